"""The embedded recogniser as a verifier: its sums against torch's and counted ones, its scores of embedded voices."""

import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llasa.codec.features import mel_features
from llasa.data.teachers.flite import Speaker, speak
from llasa.errors import LlasaError
from llasa.text.wording import letter_errors
from llasa.train.recogniser.stage import greedy
from llasa.verifiers import Batch, content
from llasa.verifiers.content import prefix_likelihoods


@pytest.fixture(scope="module")
def verifier() -> content.CtcContent:
    return content.load()


def counted(logs: torch.Tensor, label: tuple[int, ...]) -> float:
    """The probability of a label by trying every path there is."""
    total = 0.0
    for path in itertools.product(range(logs.shape[1]), repeat=logs.shape[0]):
        if tuple(symbol for symbol, _ in itertools.groupby(path) if symbol) == label:
            total += math.exp(sum(float(logs[step, symbol]) for step, symbol in enumerate(path)))
    return total


@settings(max_examples=15, deadline=None)
@given(
    label=st.lists(st.integers(1, 2), min_size=1, max_size=4),
    frames=st.integers(1, 6),
    seed=st.integers(0, 2**16),
)
def test_every_beginning_is_as_likely_as_all_its_paths(label: list[int], frames: int, seed: int) -> None:
    logs = torch.randn(frames, 3, generator=torch.Generator().manual_seed(seed)).double().log_softmax(-1)
    found = prefix_likelihoods(logs[None], torch.tensor([frames]), [label])[0].exp()
    wanted = [counted(logs, tuple(label[:k])) for k in range(len(label) + 1)]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_whole_labels_agree_with_torch_in_a_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    logs = torch.randn(4, 50, 29, generator=generator).double().log_softmax(-1)
    frames = torch.tensor([50, 31, 4, 20])
    labels = [[5, 5, 9, 1, 2], [7] * 12, [3, 3, 3], [8]]  # the third needs five frames and has four
    found = prefix_likelihoods(logs, frames, labels)
    sizes = torch.tensor([len(label) for label in labels])
    flat = torch.tensor([symbol for label in labels for symbol in label])
    theirs = -F.ctc_loss(logs.transpose(0, 1), flat, frames, sizes, reduction="none")
    np.testing.assert_allclose(found.gather(1, sizes[:, None])[:, 0], theirs, rtol=1e-9)
    assert found[2, 3] == -math.inf
    assert (found[3, 2:] == -math.inf).all()


def test_the_right_text_scores_above_a_wrong_one(verifier: content.CtcContent, said: Any) -> None:
    for clips in (said.alma, said.bruno):
        right = verifier.score(Batch(said.texts, clips, said.none))
        wrong = verifier.score(Batch(said.texts[1:] + said.texts[:1], clips, said.none))
        assert (right > 0.3).all()
        assert (right <= 1).all()
        assert (wrong < 0.05).all()


def test_a_word_more_or_less_costs(verifier: content.CtcContent, said: Any) -> None:
    clip = said.alma[0]
    texts = [
        said.texts[0],
        "The old man walked down to the river.",
        "The very old man walked slowly down to the river.",
    ]
    right, less, more = verifier.score(Batch(texts, [clip] * 3, [None] * 3))
    assert right > 1.5 * max(less, more)


@pytest.mark.parametrize("text", ["{}give up.", "I am {}tired.", "{}", "Bye {}"])
@pytest.mark.parametrize("word", ["never", "very", "bye", "really"])
def test_it_counts_words_that_repeat(verifier: content.CtcContent, text: str, word: str) -> None:
    texts = [text.format(f"{word} " * count) for count in (2, 3, 4)]
    clip, _, _ = speak(texts[1], Speaker("slt", "slt"))
    less, right, more = (verifier.doubt(one, clip) for one in texts)
    assert right < 0 < min(less, more)


def test_it_hears_a_short_text_said_twice(verifier: content.CtcContent) -> None:
    for text in ("Why?", "Yes.", "Thanks.", "Stop now."):
        clip, _, _ = speak(text, Speaker("slt", "slt"))
        assert verifier.doubt(text, clip) < 0
        assert verifier.doubt(text, np.concatenate([clip, clip])) > 0


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("Never, never.", "Never, never, never."),
        ("Why?", "Why? Why?"),
        ("Bye, bye, and thanks.", "Bye, bye, bye, and thanks."),
        ("I am very, very.", "I am very, very, very."),
    ],
)
def test_what_is_said_once_too_often_can_be_cut_out(verifier: content.CtcContent, text: str, more: str) -> None:
    clip, _, _ = speak(more, Speaker("slt", "slt"))
    span = verifier.surplus(text, clip)
    assert span is not None
    start, stop = (round(16000 * seconds) for seconds in span)
    assert 0 <= start < stop < len(clip)
    assert verifier.doubt(text, np.concatenate([clip[:start], clip[stop:]])) < 0
    assert verifier.surplus(more, clip) is None


def test_it_does_not_doubt_other_texts(verifier: content.CtcContent, said: Any) -> None:
    for text in (said.texts[1], "今天 天气 很好"):
        assert verifier.doubt(text, said.alma[0]) == -math.inf
    short = said.alma[0][:1600]  # for so many letters
    assert verifier.doubt("Stop, stop, stop, stop!", short) == math.inf
    assert verifier.surplus("Stop, stop, stop, stop!", short) is None


def test_the_likeliest_path_spells_the_labels() -> None:
    rng = np.random.default_rng(0)
    labels = [3, 3, 1, 2]
    spelt = [0, 3, 3, 0, 3, 1, 1, 0, 0, 2, 0]
    logs = np.log(np.full((len(spelt), 5), 0.01) + 0.002 * rng.random((len(spelt), 5)))
    logs[np.arange(len(spelt)), spelt] = 0.0
    assert content.align(logs, labels) == [(1, 2), (4, 4), (5, 6), (9, 9)]


@pytest.mark.parametrize("seconds", [0.5, 1, 2])
def test_a_fragment_tells_the_right_beginning(verifier: content.CtcContent, said: Any, seconds: float) -> None:
    clips = [clip[: int(16000 * seconds)] for clip in said.alma + said.bruno]
    texts, none = said.texts * 2, said.none * 2
    right = verifier.score(Batch(texts, clips, none), ended=False)
    wrong = verifier.score(Batch(texts[1:] + texts[:1], clips, none), ended=False)
    assert (right > 3 * wrong).all()
    if seconds < 2:  # and as a whole utterance it has lost its words
        assert (right > 3 * verifier.score(Batch(texts, clips, none))).all()


def test_neither_silence_nor_speech_that_stopped_passes_for_a_beginning(
    verifier: content.CtcContent, said: Any
) -> None:
    hiss = np.random.default_rng(0).normal(0, 1e-3, 32000).astype(np.float32)
    clips = [said.alma[0][:32000], np.concatenate([said.alma[0][:8000], hiss[:24000]]), hiss]
    good, stopped, silent = verifier.score(Batch(said.texts[:1] * 3, clips, [None] * 3), ended=False)
    assert good > 1.5 * stopped
    assert good > 8 * silent
    assert silent < 0.1


def test_speech_that_goes_on_after_the_text_has_ended_is_no_beginning(verifier: content.CtcContent, said: Any) -> None:
    joined = np.concatenate([said.alma[0], said.alma[1][:24000]])
    done, babbling = verifier.score(Batch(said.texts[:1] * 2, [said.alma[0], joined], [None] * 2), ended=False)
    assert done > 2 * babbling


@pytest.mark.parametrize("ended", [True, False])
def test_a_batch_scores_as_one_by_one(verifier: content.CtcContent, said: Any, ended: bool) -> None:
    clips = [clip[: 16000 + 3000 * i] for i, clip in enumerate(said.alma)]
    batch = verifier.score(Batch(said.texts, clips, said.none), ended)
    single = [
        verifier.score(Batch([text], [clip], [None]), ended)[0] for text, clip in zip(said.texts, clips, strict=True)
    ]
    np.testing.assert_allclose(batch, single, rtol=1e-4)


def test_nothing_to_hear_or_to_say_scores_zero(verifier: content.CtcContent, said: Any) -> None:
    clips = [np.zeros(0, np.float32), np.zeros(16000, np.float32), said.alma[0], said.alma[0][:100]]
    for ended in (True, False):
        scores = verifier.score(Batch([said.texts[0], said.texts[0], "?!", said.texts[0]], clips, [None] * 4), ended)
        assert (scores[:3] == 0).all()
        assert 0 <= scores[3] < 0.1
    assert verifier.score(Batch([], [], [])).shape == (0,)


def test_a_text_in_other_letters_cannot_be_judged(verifier: content.CtcContent, said: Any) -> None:
    for text in ("今天 天气 很好", "Сегодня хорошая погода"):
        with pytest.raises(LlasaError, match="does not know the letters of some of the text"):
            verifier.score(Batch([text], said.alma[:1], [None]))
    assert verifier.score(Batch(["Die Straße ist naß, übrigens."], said.alma[:1], [None])).shape == (1,)


def test_it_spells_about_what_the_teacher_says(verifier: content.CtcContent, said: Any) -> None:
    errors, letters = letter_errors(said.texts[2], verifier.transcribe(said.alma[2]))
    assert errors < 0.4 * letters
    other, _ = letter_errors(said.texts[1], verifier.transcribe(said.alma[2]))
    assert other > 1.5 * errors
    assert verifier.transcribe(np.zeros(16000, np.float32)) == ""


def test_its_best_path_is_the_one_that_training_measures(verifier: content.CtcContent, said: Any) -> None:
    features, mask = mel_features(torch.from_numpy(said.alma[2]))
    with torch.no_grad():
        (text,) = greedy(verifier.model(features, attention_mask=mask).logits, mask.sum(1))
    assert verifier.transcribe(said.alma[2]) == " ".join(text.split())


def test_a_folder_that_is_no_recogniser_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match=r"no vocab\.json"):
        content.load(folder=tmp_path)
    shutil.copy(content.EMBEDDED / "vocab.json", tmp_path)
    with pytest.raises(LlasaError, match=r"no model\.safetensors"):
        content.load(folder=tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(LlasaError, match="cannot be loaded"):
        content.load(folder=tmp_path)


def test_when_words_begin(verifier: content.CtcContent) -> None:
    samples, phones, ends = speak("Nobody spoke for some time.", Speaker("slt", "slt"))
    found = verifier.starts(["Nobody", "spoke", "for", "-", "some", "time."], samples)
    assert found is not None
    begins, sure = found
    wanted = [ends[phones.index(phone) - 1] for phone in ("n", "s", "f")]
    assert begins[:3] == pytest.approx(wanted, abs=0.08)
    assert begins[2] < begins[3] <= begins[4] < begins[5]  # a dash is not heard
    assert (sure > 0.3).all()
    assert verifier.starts(["Привет"], samples) is None
    assert verifier.starts(["word"] * 100, samples) is None  # more than fit
    assert verifier.starts(["word"], np.zeros(16000, np.float32)) is None

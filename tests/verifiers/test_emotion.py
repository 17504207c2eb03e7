"""emotion2vec through funasr, on a tiny random one in the layout of emotion2vec/emotion2vec_plus_large.

funasr is an extra of its own: without it these tests are skipped, but for the message that says so.
"""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_listeners import EMOTION_MODEL, EMOTIONS, make_emotion

from llasa.errors import LlasaError
from llasa.verifiers import Batch
from llasa.verifiers.emotion import LABELS, load

RATE = 16000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("funasr")
    return make_emotion(tmp_path)


@pytest.fixture
def sounds(voiced: np.ndarray) -> list[np.ndarray]:
    noise = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)
    return [voiced, noise, voiced[:RATE], voiced[RATE : 2 * RATE]]


def test_it_is_what_the_model_says(folder: Path, sounds: list[np.ndarray]):
    from funasr.models.emotion2vec.model import Emotion2vec

    model = Emotion2vec(model_conf=EMOTION_MODEL, vocab_size=len(EMOTIONS)).eval()
    model.load_state_dict(torch.load(folder / "model.pt"))
    with torch.no_grad():
        means = [
            model.extract_features(torch.nn.functional.layer_norm(torch.from_numpy(s), s.shape)[None])["x"].mean(1)[0]
            for s in sounds
        ]
        happy = [model.proj(mean).softmax(0)[EMOTIONS.index("开心/happy")].item() for mean in means]
    alike = [torch.cosine_similarity(mean, means[0], 0).clip(0, 1).item() for mean in means]

    reference = load(str(folder))
    assert (reference.name, reference.process, reference.needs_reference) == (f"emotion:{folder}", True, True)
    scores = reference.score(Batch([""] * 4, sounds, [sounds[0]] * 4))
    np.testing.assert_allclose(scores, alike, atol=1e-5)
    assert scores[0] == pytest.approx(1)
    assert np.ptp(scores) > 1e-3

    named = load(f"happy:{folder}")
    assert (named.name, named.process, named.needs_reference) == (f"emotion:happy:{folder}", True, False)
    scores = named.score(Batch([""] * 4, sounds, [None] * 4))
    np.testing.assert_allclose(scores, happy, atol=1e-5)
    assert np.ptp(scores) > 1e-3
    np.testing.assert_array_equal(named.score(Batch([""] * 4, sounds, [None] * 4)), scores)
    assert [named.score(Batch([""], [sound], [None]))[0] for sound in sounds] == list(scores)


def test_a_folder_of_letters_alone_is_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(folder, folder / "mymodel")
    monkeypatch.chdir(folder)
    assert load("mymodel").name == "emotion:mymodel"


def test_the_process_is_left_as_it_was(folder: Path, capfd: pytest.CaptureFixture[str]):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    load(f"sad:{folder}")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr().out == ""


def test_nothing_scores_nothing(folder: Path, voiced: np.ndarray):
    nothing = [np.zeros(0, np.float32), voiced[:320], np.zeros(RATE, np.float32)]
    for choice in (str(folder), f"happy:{folder}"):
        np.testing.assert_array_equal(load(choice).score(Batch([""] * 3, nothing, [voiced] * 3)), [0, 0, 0])


def test_what_cannot_be_had_is_said(folder: Path, lm_folder: Path):
    with pytest.raises(LlasaError, match=f"there is no emotion called glad: pass one of {', '.join(LABELS)}"):
        load("glad")
    with pytest.raises(LlasaError, match="there is no folder no/such/folder"):
        load("no/such/folder")
    with pytest.raises(LlasaError, match=r"lacks config\.yaml or model\.pt"):
        load(f"happy:{lm_folder}")
    (folder / "tokens.txt").write_text("\n".join([*"abcdefgh", "<unk>"]) + "\n")
    with pytest.raises(LlasaError, match="has no label happy"):
        load(f"happy:{folder}")
    torch.save({"other": torch.zeros(1)}, folder / "model.pt")
    with pytest.raises(LlasaError, match=r"model\.pt lacks weights of an emotion2vec"):
        load(str(folder))
    (folder / "model.pt").write_bytes(b"broken")
    with pytest.raises(LlasaError, match="cannot be loaded"):
        load(str(folder))


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LlasaError, match=r"funasr is not installed.*pip install 'llasa\[emotion\]'"):
        load("happy")

"""The verifiers whose weights lie inside their packages, on flite's speech; and the registry."""

from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from measure.from_librosa import FILE, sounds

from llasa.errors import LlasaError
from llasa.verifiers import NAMES, PROCESS, Batch, known, load_verifier, speaker
from llasa.verifiers.emotion import Emotion
from llasa.verifiers.itself import Itself
from llasa.verifiers.likeness import Likeness
from llasa.verifiers.naturalness import dnsmos
from llasa.verifiers.utmos import Utmos
from llasa.verifiers.whisper import Whisper

OFFLINE = ("content", "pocketsphinx", "speaker", "campplus", "naturalness", "sanity")
EMPTY = np.zeros(0, np.float32)
SHORT = 20000  # samples; DNSMOS repeats them to a single window, the shortest it can do


def test_pocketsphinx_tells_the_right_text_from_a_wrong_one(spoken: Any) -> None:
    verifier = load_verifier("pocketsphinx")
    texts = [spoken.texts[0], spoken.texts[1], spoken.texts[0], "", ""]
    scores = verifier.score(Batch(texts, [spoken.rms[0], spoken.rms[0], EMPTY, EMPTY, spoken.rms[0]], [None] * 5))
    assert scores[0] > 0.5 > scores[1] + 0.2
    assert list(scores[2:]) == [0, 1, 0]


def test_pocketsphinx_says_what_it_cannot_read(spoken: Any) -> None:
    verifier = load_verifier("pocketsphinx")
    for text in ("Das ist ein schöner Tag, um im Park spazieren zu gehen.", "今天天气很好"):
        with pytest.raises(LlasaError, match="it knows only English, and too few words of the text"):
            verifier.score(Batch([text], spoken.rms[:1], [None]))
    assert verifier.score(Batch(["Xanthippe didn't shout at 22 men."], spoken.rms[:1], [None])).shape == (1,)


def test_a_speaker_needs_a_reference(spoken: Any) -> None:
    with pytest.raises(LlasaError, match="speaker needs a reference"):
        load_verifier("speaker").score(Batch([""], spoken.rms[:1], [None]))


def test_what_is_known_of_verifiers_before_they_are_loaded_is_so() -> None:
    for name in OFFLINE:
        assert load_verifier(name).process == (name in PROCESS)
    kinds = dict[str, Any](whisper=Whisper, wavlm=Likeness, ecapa=Likeness, emotion=Emotion, utmos=Utmos)
    kinds |= {"wavlm-large": Likeness, "self": Itself}
    assert set(kinds) | set(OFFLINE) == set(NAMES)
    for name, kind in kinds.items():
        assert kind.process == (name in PROCESS)


def test_a_speaker_is_nearer_to_itself_and_so_is_a_fragment(spoken: Any) -> None:
    verifier = load_verifier("speaker")
    audios = [spoken.rms[1], spoken.slt[1], spoken.rms[1][:16000], spoken.slt[1][:16000], EMPTY]
    own, other, part, part_of_other, nothing = verifier.score(Batch([""] * 5, audios, [spoken.rms[0]] * 5))
    assert 1 > own > other + 0.15
    assert part > part_of_other + 0.1
    assert nothing == 0


def test_a_reference_is_embedded_once(spoken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    embed = speaker.speaker_embedding
    monkeypatch.setattr(speaker, "speaker_embedding", lambda samples: heard.append(len(samples)) or embed(samples))
    reference = spoken.slt[2][:20000]
    speaker.load().score(Batch([""] * 2, spoken.rms[:2], [reference, reference.copy()]))
    speaker.load().score(Batch([""], spoken.rms[:1], [reference]))
    assert heard.count(20000) == 1


def test_naturalness_prefers_clean_speech_and_is_never_nan(spoken: Any) -> None:
    speech = spoken.rms[1][:SHORT]
    noisy = speech + np.random.default_rng(0).normal(0, 0.05, speech.size).astype(np.float32)
    clean, rough, nothing, silence = load_verifier("naturalness").score(
        Batch([""] * 4, [speech, noisy, EMPTY, np.zeros(16000, np.float32)], [None] * 4)
    )
    assert 1 >= clean > rough + 0.1
    assert rough >= 0
    assert nothing == silence == 0


def test_naturalness_is_what_speechmos_computes(spoken: Any) -> None:
    from speechmos.dnsmos import DNSMOS

    folder = files("speechmos") / "dnsmos_models"
    theirs = DNSMOS(str(folder / "sig_bak_ovr.onnx"), str(folder / "model_v8.onnx"))
    theirs.audio_melspec = lambda audio: np.zeros((900, 120))  # of the score that is not used; it would need librosa
    for seconds in (1.2, 11.1):  # one window, and two
        clip = np.resize(spoken.slt[1], round(seconds * 16000))
        assert dnsmos(clip) == pytest.approx(theirs(clip, 16000, False)["ovrl_mos"], abs=1e-5)


def test_the_speakers_spectrogram_is_librosas() -> None:
    theirs = np.load(FILE)
    for name, sound in sounds().items():
        wanted = theirs[f"mel of {name}"]
        np.testing.assert_allclose(speaker.mel_spectrogram(sound), wanted, rtol=1e-3, atol=1e-6 * wanted.max())


@pytest.mark.parametrize("name", OFFLINE)
def test_a_batch_scores_as_one_by_one(name: str, spoken: Any) -> None:
    verifier = load_verifier(name)
    references = [spoken.rms[2], spoken.slt[2]]
    clips = [clip[:SHORT] for clip in spoken.rms[:2]]
    batch = verifier.score(Batch(spoken.texts[:2], clips, references))
    single = [
        verifier.score(Batch([text], [clip], [reference]))[0]
        for text, clip, reference in zip(spoken.texts[:2], clips, references, strict=True)
    ]
    assert verifier.name == name
    assert batch.shape == (2,)
    np.testing.assert_allclose(batch, single, rtol=1e-4)
    assert verifier.score(Batch([], [], [])).shape == (0,)


def test_a_name_that_is_none_says_which_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LlasaError, match=r"no verifier called wisper: pass one of .*whisper\[:MODEL\]"):
        load_verifier("wisper")
    with pytest.raises(LlasaError, match="content:large is not a verifier: pass content"):
        load_verifier("content:large")
    with pytest.raises(LlasaError, match="pass whisper, or whisper:MODEL"):
        load_verifier("whisper:")
    assert {name.partition("[")[0] for name in known()} >= set(OFFLINE)


def test_a_missing_package_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(speaker, "find_spec", lambda name: None)
    for name in ("pocketsphinx", "speaker", "naturalness"):
        with pytest.raises(LlasaError, match=r"is not installed, which this needs: pip install 'llasa\[verify\]'"):
            load_verifier(name)
    monkeypatch.setattr(speaker, "need_extra", lambda *names: None)
    with pytest.raises(LlasaError, match="pip install --no-deps Resemblyzer"):
        load_verifier("speaker")

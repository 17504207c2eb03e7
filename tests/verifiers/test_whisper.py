"""Whisper as a verifier, on a tiny random one in the layout of the real ones."""

from pathlib import Path

import numpy as np
import pytest
from tiny_listeners import make_whisper
from transformers import (
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from llasa.errors import LlasaError
from llasa.verifiers import Batch
from llasa.verifiers.whisper import accuracy, language_of, load, pieces

RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("whisper") / "tiny")


@pytest.fixture
def sounds(voiced: np.ndarray) -> list[np.ndarray]:
    noise = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)
    return [voiced, voiced[: RATE // 2], noise, voiced[::-1].copy()]


TEXTS = ["the first text", "the second", "a third one that is a good deal longer than the others are", "今日は"]


def test_it_hears_what_transformers_hears(folder: Path, sounds: list[np.ndarray]):
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    extractor, tokenizer = WhisperFeatureExtractor.from_pretrained(folder), WhisperTokenizer.from_pretrained(folder)
    golden = []
    for sound, language in zip(sounds, ["en", "en", "en", "ja"], strict=True):
        features = extractor(sound, sampling_rate=RATE, return_tensors="pt").input_features
        written = model.generate(features, language=language, task="transcribe", max_new_tokens=20, do_sample=False)
        golden.append(tokenizer.decode(written[0], skip_special_tokens=True).strip())
    assert len(set(golden)) > 1  # it hears differences
    assert all(golden)
    verifier = load(str(folder))
    assert (verifier.name, verifier.process) == (f"whisper:{folder}", False)
    assert (verifier.needs_text, verifier.needs_reference) == (True, False)
    assert verifier.transcribe(sounds, TEXTS) == golden
    # And the same one at a time.
    for sound, text, heard in zip(sounds, TEXTS, golden, strict=True):
        assert verifier.transcribe([sound], [text]) == [heard]
        assert verifier.score(Batch([text], [sound], [None])) == [accuracy(text, heard)]


def test_a_language_that_does_not_show_is_detected(folder: Path, voiced: np.ndarray):
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    features = WhisperFeatureExtractor.from_pretrained(folder)(voiced, sampling_rate=RATE, return_tensors="pt")
    written = model.generate(features.input_features, task="transcribe", max_new_tokens=20, do_sample=False)
    golden = WhisperTokenizer.from_pretrained(folder).decode(written[0], skip_special_tokens=True).strip()
    assert load(str(folder)).transcribe([voiced], ["Guten Morgen"]) == [golden]


def test_an_english_model_is_asked_for_no_language(tmp_path: Path, voiced: np.ndarray):
    verifier = load(str(make_whisper(tmp_path / "english", multilingual=False)))
    heard = verifier.transcribe([voiced], ["the text"])[0]
    assert heard
    assert verifier.score(Batch(["the text", heard], [voiced, voiced], [None] * 2))[1] == 1  # its own words back


def test_nothing_scores_nothing(folder: Path, voiced: np.ndarray):
    nothing = [np.zeros(0, np.float32), voiced[:320], np.zeros(RATE, np.float32)]
    verifier = load(str(folder))
    np.testing.assert_array_equal(verifier.score(Batch(["the text"] * 3, nothing, [None] * 3)), [0, 0, 0])
    assert verifier.score(Batch([], [], [])).shape == (0,)


def test_a_long_sound_is_heard_in_pieces(folder: Path, voiced: np.ndarray):
    long = np.tile(voiced, 23)  # 69 s
    long[29 * RATE : 29 * RATE + 4000] = 0
    parts = list(pieces(long))
    np.testing.assert_array_equal(np.concatenate(parts), long)
    assert [len(part) <= 30 * RATE for part in parts] == [True] * 3
    assert 29 * RATE <= len(parts[0]) <= 29 * RATE + 4000  # within the silence
    verifier = load(str(folder))
    heard = verifier.transcribe([long, voiced], ["the text"] * 2)
    assert heard[0] == " ".join(verifier.transcribe([part], ["the text"])[0] for part in parts)
    assert heard[1] == verifier.transcribe([voiced], ["the text"])[0]


def test_texts_are_compared_as_they_are_read():
    assert accuracy("Dr. Smith, it's 5 o'clock!", "doctor smith it's five o'clock") == 1
    assert accuracy("one two three four", "one two four") == pytest.approx(0.75)
    assert accuracy("one", "quite another thing") == 0
    assert accuracy("今日は、いい天気です。", "今日はいい天気です") == 1
    assert accuracy("今日はいい天気です", "今日はいい天気だ") == pytest.approx(7 / 9)
    assert accuracy("１２３", "123") == 1
    assert accuracy("...", "") == 1
    assert accuracy("...", "well") == 0


def test_the_language_shows_in_letters_or_in_frequent_words():
    assert language_of("The quick brown fox") == "en"
    assert language_of("今日はいい天気") == "ja"
    assert language_of("今天天气很好") == "zh"
    assert [language_of(text) for text in ("Guten Morgen", "Ça va bien", "Привет", "Fox!")] == [None] * 4


def test_what_cannot_be_had_is_said(tmp_path: Path, folder: Path, lm_folder: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(LlasaError, match="there is no folder nonsense: pass a model's folder, or a hub id"):
        load("nonsense")
    with pytest.raises(LlasaError, match="holds a model of type 'llama': pass one of type 'whisper'"):
        load(str(lm_folder))
    with pytest.raises(LlasaError, match=r"has no config\.json"):
        load(str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LlasaError, match=r"jiwer is not installed, which this needs: pip install 'llasa\[verify\]'"):
        load(str(folder))


def test_faster_whisper_hears(tmp_path: Path, sounds: list[np.ndarray]):
    """Which signs it never writes is its own choice, so that it does not hear what transformers hears."""
    pytest.importorskip("faster_whisper")
    from ctranslate2.converters import TransformersConverter

    folder, converted = make_whisper(tmp_path / "tiny", positions=448), tmp_path / "ct2"
    copied = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(folder), copy_files=copied).convert(str(converted))
    verifier = load(f"faster:{converted}")
    heard = verifier.transcribe(sounds, TEXTS)
    assert len(set(heard)) > 1
    assert [verifier.transcribe([s], [text])[0] for s, text in zip(sounds, TEXTS, strict=True)] == heard
    assert verifier.score(Batch(TEXTS, sounds, [None] * 4)).shape == (4,)
    assert verifier.score(Batch(["the text"], [np.zeros(0, np.float32)], [None])) == [0]
    with pytest.raises(LlasaError, match="faster-whisper cannot load"):
        load(f"faster:{folder}")


def test_without_faster_whisper_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "faster_whisper" else object())
    with pytest.raises(LlasaError, match=r"faster_whisper is not installed.*llasa\[faster-whisper\]"):
        load(f"faster:{tmp_path}")

"""Listeners on flite's speech, where the words and the speakers are known."""

import numpy as np
import pytest

from llasa.data.teachers.flite import Speaker, speak
from llasa.measure import listeners, metrics, statistics
from llasa.measure.independent import LISTENERS

SENTENCES = (
    "The old man walked slowly down to the river.",
    "There was nothing left in the house but a table and two chairs.",
    "She wrote a long letter to her brother in the city.",
    "We waited for the morning train until the rain came.",
)


@pytest.fixture(scope="module")
def clips() -> dict[str, list[np.ndarray]]:
    return {voice: [speak(text, Speaker(voice, voice))[0] for text in SENTENCES] for voice in ("rms", "slt")}


def test_the_recogniser_understands_the_teacher(clips: dict[str, list[np.ndarray]]) -> None:
    pairs = [
        metrics.word_errors(text, listeners.pocketsphinx(clip))
        for text, clip in zip(SENTENCES, clips["rms"], strict=True)
    ]
    assert statistics.error_rate(*zip(*pairs, strict=True)).value < 0.35


def test_the_recogniser_hears_words_not_just_any_speech(clips: dict[str, list[np.ndarray]]) -> None:
    heard = listeners.pocketsphinx(clips["rms"][0])
    assert metrics.wer(SENTENCES[1], heard) > 0.7


def test_whisper_understands_the_teacher_better(clips: dict[str, list[np.ndarray]]) -> None:
    pairs = [
        metrics.word_errors(text, listeners.whisper(clip)) for text, clip in zip(SENTENCES, clips["rms"], strict=True)
    ]
    assert statistics.error_rate(*zip(*pairs, strict=True)).value < 0.12
    assert LISTENERS["whisper-tiny"].hear(SENTENCES[0], clips["rms"][1], None)["whisper-tiny"][0] > 0.7


def test_whisper_does_not_write_for_ever(clips: dict[str, list[np.ndarray]]) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    assert len(listeners.whisper(noise).split()) <= 21
    assert listeners.whisper(np.zeros(16000, np.float32)) == ""


def test_distillmos_hears_what_a_narrow_band_takes_away(clips: dict[str, list[np.ndarray]]) -> None:
    import sys

    clean = clips["slt"][1]
    spectrum = np.fft.rfft(clean)
    spectrum[len(spectrum) // 4 :] = 0
    narrow = np.fft.irfft(spectrum, clean.size).astype(np.float32)
    assert 5 > listeners.distillmos(clean) > listeners.distillmos(narrow) + 0.3 > 1.3
    assert np.isnan(listeners.distillmos(np.zeros(16000, np.float32)))
    assert "torchaudio" not in sys.modules  # what stood in for it is gone
    assert LISTENERS["distillmos"].hear("", clean, None)["distillmos"] == (listeners.distillmos(clean), 1)


def test_other_processes_hear_the_same_in_any_order(clips: dict[str, list[np.ndarray]]) -> None:
    backwards = listeners.spread(listeners.pocketsphinx, clips["rms"][::-1])
    assert backwards == [listeners.pocketsphinx(clip) for clip in clips["rms"]][::-1]


def test_silence_has_no_words_no_speaker_and_no_score() -> None:
    for silence in (np.empty(0, np.float32), np.zeros(16000, np.float32)):
        assert listeners.pocketsphinx(silence) == ""
        assert listeners.similarity(silence, silence) == 0
        assert np.isnan(listeners.dnsmos(silence))


def test_a_speaker_is_nearer_to_itself(clips: dict[str, list[np.ndarray]]) -> None:
    own = listeners.similarity(clips["rms"][0], clips["rms"][1])
    assert own > listeners.similarity(clips["rms"][0], clips["slt"][1]) + 0.15
    assert own < 0.9999
    assert listeners.similarity(clips["rms"][0], clips["rms"][0]) == pytest.approx(1, abs=1e-5)


def test_the_second_encoder_tells_speakers_apart_too(clips: dict[str, list[np.ndarray]]) -> None:
    listener = LISTENERS["campplus"]
    assert listener.verifier == "campplus"
    own, other = (listener.hear("", clips[voice][1], clips["rms"][0])["campplus"] for voice in ("rms", "slt"))
    assert own[0] > other[0] + 0.2
    assert own[1] == other[1] == 1


def test_a_hum_and_an_overdriven_clip_still_have_embeddings(clips: dict[str, list[np.ndarray]]) -> None:
    hum = np.sin(np.arange(3200) / 20).astype(np.float32)
    assert np.linalg.norm(listeners.resemblyzer(hum)) == pytest.approx(1, abs=1e-4)
    assert listeners.similarity(clips["rms"][0], 30 * clips["rms"][0]) > 0.75

"""Pitch by YIN against librosa's, and against what is known."""

import librosa
import numpy as np
import pytest

from llasa.data.teachers.flite import Speaker, speak
from llasa.measure.yin import yin

SIZE, HOP, RATE = 1024, 160, 16000


def framed(samples: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(samples, SIZE)[::HOP]


@pytest.mark.parametrize("highest", [400, 500])
def test_it_is_what_librosa_finds(voiced: np.ndarray, highest: float) -> None:
    spoken = speak("Nobody in the village had seen the ferry since early spring.", Speaker("slt", "slt"))[0]
    noise = np.random.default_rng(0).normal(size=RATE)
    for samples in (voiced, spoken, noise, np.zeros(RATE)):
        wide = samples.astype(np.float64)
        theirs = librosa.yin(wide, fmin=60, fmax=highest, sr=RATE, frame_length=SIZE, hop_length=HOP, center=False)
        assert np.allclose(yin(framed(wide), 60, highest, RATE), theirs, rtol=1e-4)


@pytest.mark.parametrize("hertz", [70.0, 123.4, 250.0, 390.0])
def test_a_tone_has_its_pitch(hertz: float) -> None:
    time = np.arange(RATE) / RATE
    tone = sum((np.sin(2 * np.pi * k * hertz * time) / k for k in range(1, 8)), np.zeros(RATE))
    assert np.allclose(yin(framed(tone), 60, 400, RATE), hertz, rtol=0.005)

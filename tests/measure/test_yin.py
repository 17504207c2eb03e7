"""Pitch by YIN against librosa's, and against what is known."""

import numpy as np
import pytest
from measure.from_librosa import FILE, HIGHEST, HOP, LOWEST, RATE, SIZE, sounds

from llasa.measure.yin import yin


def framed(samples: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(samples, SIZE)[::HOP]


@pytest.mark.parametrize("highest", HIGHEST)
def test_it_is_what_librosa_finds(highest: float) -> None:
    theirs = np.load(FILE)
    for name, sound in sounds().items():
        ours = yin(framed(sound), LOWEST, highest, RATE)
        assert np.allclose(ours, theirs[f"pitch of {name} to {highest}"], rtol=1e-4), name


@pytest.mark.parametrize("hertz", [70.0, 123.4, 250.0, 390.0])
def test_a_tone_has_its_pitch(hertz: float) -> None:
    time = np.arange(RATE) / RATE
    tone = sum((np.sin(2 * np.pi * k * hertz * time) / k for k in range(1, 8)), np.zeros(RATE))
    assert np.allclose(yin(framed(tone), 60, 400, RATE), hertz, rtol=0.005)

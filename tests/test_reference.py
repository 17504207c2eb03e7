"""What people record becomes the speech alone, whatever lies around and beneath it; what holds no speech is refused."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llasa import audio
from llasa.data.teachers.flite import Speaker, speak
from llasa.errors import LlasaError
from llasa.reference import LEVEL, PAUSE, condition, find_speech, without_hum

RATE = 16000
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Two sentences, with a peak of half the full scale."""
    samples, _, _ = speak("The lamp was low, and nobody spoke. It was late.", Speaker("awb", "awb"))
    return samples * (0.5 / np.abs(samples).max())


def noise(seconds: float, level: float) -> np.ndarray:
    return 10 ** (level / 20) * RNG.standard_normal(round(seconds * RATE))


def hum(samples: int, level: float) -> np.ndarray:
    time = np.arange(samples) / RATE
    return 10 ** (level / 20) * np.sum([np.sin(2 * np.pi * 50 * k * time + k) / k for k in range(1, 12)], axis=0)


def quiet(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE))


AROUND: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nothing": lambda x: x,
    "an offset": lambda x: x + 0.3,
    "a step of the offset": lambda x: np.r_[quiet(1), x + 0.3],
    "silence": lambda x: np.r_[quiet(5), x, quiet(5)],
    "14 s of silence": lambda x: np.r_[quiet(14), x, quiet(14)],
    "noise before and after": lambda x: np.r_[noise(5, -40), x, noise(5, -40)],
    "loud noise before and after": lambda x: np.r_[noise(5, -30), x, noise(5, -30)],
    "noise throughout": lambda x: np.r_[quiet(5), x, quiet(5)] + noise(10 + len(x) / RATE, -45)[: len(x) + 10 * RATE],
    "hum throughout": lambda x: np.r_[quiet(5), x, quiet(5)] + hum(len(x) + 10 * RATE, -35),
    "too much gain": lambda x: np.clip(6 * x, -1, 1),
    "little gain": lambda x: 1e-3 * x,
    "hardly any gain, in 16 bits": lambda x: np.round(3e-4 * x * 32768) / 32768,
}


@pytest.mark.parametrize("kind", AROUND)
def test_the_speech_alone_is_left(speech: np.ndarray, kind: str) -> None:
    plain, found = condition(speech, RATE), condition(AROUND[kind](speech), RATE)
    assert found.dtype == np.float32
    assert len(found) / RATE == pytest.approx(len(plain) / RATE, abs=0.5)
    assert audio.loudness(found, RATE) == pytest.approx(LEVEL, abs=0.1)
    assert abs(found.mean()) < 1e-3
    # The words are in it: at the right delay it is much like the plain one.
    size = 1 << (len(plain) + len(found)).bit_length()
    likeness = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(plain, size)))
    assert likeness.max() / (np.linalg.norm(found) * np.linalg.norm(plain)) > 0.85


@pytest.mark.parametrize("level", [-10, -20])
@pytest.mark.parametrize("mains", [49.97, 60.02])
def test_a_hum_is_taken_away(speech: np.ndarray, mains: float, level: float) -> None:
    plain = np.r_[quiet(0.5), speech, quiet(0.5)]
    plain += noise(len(plain) / RATE, -60)
    time = np.arange(len(plain)) / RATE
    humming = np.sum([np.sin(2 * np.pi * mains * k * time + k) / k for k in range(1, 12)], axis=0)
    humming *= 10 ** (level / 20) * np.linalg.norm(plain) / np.linalg.norm(humming)
    left = np.linalg.norm(without_hum(plain + humming, RATE) - plain) / np.linalg.norm(plain)
    assert 20 * np.log10(left) < -28
    np.testing.assert_array_equal(without_hum(plain, RATE), plain)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seconds=st.floats(min_value=0.8, max_value=8.0), where=st.floats(min_value=0.2, max_value=0.8))
def test_no_pause_is_long(speech: np.ndarray, seconds: float, where: float) -> None:
    half = round(where * len(speech))
    paused = np.r_[speech[:half], quiet(seconds), speech[half:]]
    # A pause that begins within a word leaves both parts of it, and each may have a margin.
    assert len(condition(paused, RATE)) <= len(condition(speech, RATE)) + (PAUSE + 0.2) * RATE


def test_a_short_pause_stays(speech: np.ndarray) -> None:
    paused = np.r_[speech, quiet(0.2), speech]
    assert len(find_speech(paused, RATE)) == 1


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (quiet(2), "the reference is silent"),
        (np.full(32000, 0.3), "the reference is silent"),
        (np.full(32000, np.nan), "are NaN"),
        (noise(2, -110), "the reference is silent"),
        (noise(2, -20), "no speech in the reference"),
        (noise(2, -70), "no speech in the reference"),
        (hum(32000, -10), "no speech in the reference"),
        (0.3 * np.sin(np.arange(32000) * 0.1), "no speech in the reference"),
        (noise(0.1, -20), "lasts 0.10 s, too short"),
        (quiet(0), "too short"),
        (noise(600, -20), "too long: 600 s"),
    ],
)
def test_what_holds_no_speech_is_refused(samples: np.ndarray, message: str) -> None:
    with pytest.raises(LlasaError, match=message) as raised:
        condition(samples, RATE)
    assert "\n" not in str(raised.value)


def test_the_speech_counts_and_not_the_silence(speech: np.ndarray) -> None:
    word = speech[: RATE // 2]
    with pytest.raises(LlasaError, match="s of speech, too little"):
        condition(np.r_[quiet(5), word, quiet(5)], RATE)
    with pytest.raises(LlasaError, match="s of speech, more than 30"):
        condition(np.tile(speech, 1 + 31 * RATE // len(speech)), RATE)

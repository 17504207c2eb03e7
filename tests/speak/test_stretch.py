"""Speech at another speed: its length, its pitch, its words, and the same in a stream."""

import numpy as np
import pytest
import pyworld

from llasa.data.teachers.flite import Speaker, speak
from llasa.errors import LlasaError
from llasa.measure import listeners, metrics
from llasa.speak.stretch import Stretcher, stretch

RATE = 16000
SPEEDS = (0.25, 0.5, 0.8, 1.25, 2, 4)
SENTENCES = (
    "The old man walked slowly down to the river.",
    "There was nothing left in the house but a table and two chairs.",
    "She wrote a long letter to her brother in the city.",
    "We waited for the morning train until the rain came.",
)


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_length_changes(speed: float):
    for voice in ("rms", "slt"):
        clip = speak(SENTENCES[1], Speaker(voice, voice))[0]
        made = stretch(clip, RATE, speed)
        assert len(made) == round(len(clip) / speed)
        assert made.dtype == np.float32
        assert made.std() == pytest.approx(clip.std(), rel=0.05)


@pytest.mark.parametrize("voice", ["rms", "slt"])
def test_the_pitch_stays(voice: str):
    clips = [speak(text, Speaker(voice, voice))[0] for text in SENTENCES]

    def median(speed: float) -> float:
        found = []
        for clip in clips:
            made = stretch(clip, RATE, speed).astype(np.float64)
            rough, times = pyworld.dio(made, RATE)
            found.append(pyworld.stonemask(made, rough, times, RATE))
        pitches = np.concatenate(found)
        return float(np.median(pitches[pitches > 0]))

    usual = median(1)
    for speed in (0.5, 0.8, 1.25, 2):
        assert median(speed) == pytest.approx(usual, rel=0.02)


@pytest.mark.parametrize("pitch", [70, 120, 230, 400])
def test_a_tone_stays_pure(pitch: float):
    """Windows laid where they do not fit would cancel or roughen it."""
    tone = (0.2 * np.sin(2 * np.pi * pitch * np.arange(3 * RATE) / RATE)).astype(np.float32)
    for speed in SPEEDS:
        made = stretch(tone, RATE, speed)[800:-800]
        power = np.abs(np.fft.rfft(made * np.hanning(len(made)))) ** 2
        near = np.abs(np.fft.rfftfreq(len(made), 1 / RATE) - pitch) < 0.1 * pitch
        assert power[~near].sum() < 0.01 * power.sum()


def test_the_words_stay():
    clip = np.concatenate([speak(text, Speaker("slt", "slt"))[0] for text in SENTENCES])

    def errors(speed: float) -> int:
        return metrics.word_errors(" ".join(SENTENCES), listeners.whisper(stretch(clip, RATE, speed)))[0]

    usual = errors(1)
    assert usual <= 4  # of 43
    assert max(errors(0.8), errors(1.25)) <= usual + 1


@pytest.mark.parametrize("speed", [*SPEEDS, 1])
def test_pieces_give_what_the_whole_gives(speed: float, voiced: np.ndarray):
    rng = np.random.default_rng(0)
    stretcher, made, late, taken = Stretcher(RATE, speed), [], 0.0, 0
    for piece in np.split(voiced, np.sort(rng.integers(0, len(voiced), 60))):
        taken += len(piece)
        made.append(stretcher.push(piece))
        late = max(late, taken - speed * sum(map(len, made)))
    whole = np.concatenate([*made, stretcher.finish()])
    assert np.abs(whole - stretch(voiced, RATE, speed)).max() < 1e-6
    assert len(whole) == round(len(voiced) / speed)
    assert late <= 0.06 * RATE


def test_speed_1_changes_nothing(voiced: np.ndarray):
    assert np.array_equal(stretch(voiced, RATE, 1), voiced)


@pytest.mark.parametrize("size", [0, 1, 2, 100, 479, 480, 481])
def test_short_sounds(size: int, voiced: np.ndarray):
    for speed in SPEEDS:
        assert len(stretch(voiced[:size], RATE, speed)) == round(size / speed)


def test_silence_stays_silent():
    sound = np.zeros(RATE, np.float32)
    for speed in SPEEDS:
        assert not stretch(sound, RATE, speed).any()


@pytest.mark.parametrize("speed", [0, -1, 0.2, 4.1, float("inf"), float("nan")])
def test_speeds_that_there_are_not(speed: float):
    with pytest.raises(LlasaError, match=r"^the speed is .*: it must be from 0.25 to 4"):
        Stretcher(RATE, speed)

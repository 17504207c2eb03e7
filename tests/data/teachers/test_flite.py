"""flite as a teacher, for real."""

import numpy as np
import pytest

from llasa.data.teachers import open_teacher
from llasa.data.teachers.flite import TEACHERS, Speaker, speak, speakers
from llasa.data.teachers.teacher import RATE, RMS_LEVEL
from llasa.text.lexicon import ARPABET

TEXT = "The quick brown fox jumps over the lazy dog."


def pitch(samples: np.ndarray) -> float:
    """Median F0 in Hz by autocorrelation of the loud frames."""
    found = []
    for start in range(0, len(samples) - 1024, 320):
        frame = samples[start : start + 1024]
        if np.abs(frame).mean() < 0.02:
            continue
        correlation = np.correlate(frame, frame, "full")[1023:]
        lag = int(np.argmax(correlation[40:300])) + 40
        if correlation[lag] > 0.5 * correlation[0]:
            found.append(RATE / lag)
    return float(np.median(found))


def centroid(samples: np.ndarray) -> float:
    """Spectral centre of gravity below 5 kHz, Hz: it moves with the formants."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    low = frequencies < 5000
    return float((power * frequencies)[low].sum() / power[low].sum())


def test_speech_comes_with_the_end_of_every_phone() -> None:
    samples, phones, ends = speak(TEXT, Speaker("slt", "slt"))
    assert phones[0] == phones[-1] == "pau"
    assert {p for p in phones if p != "pau"} <= set(ARPABET)
    assert ends == sorted(ends)
    assert len(samples) / RATE == pytest.approx(ends[-1], abs=0.05)
    # The pause before the first phone is the lead alone, and quiet beside what follows.
    assert np.abs(samples[: int(ends[0] * RATE * 0.5)]).max() < 0.2 * np.abs(samples).max()


def test_loudness_is_the_same_for_every_voice() -> None:
    for name in TEACHERS:
        samples, _, _ = speak(TEXT, Speaker(name, name))
        assert np.sqrt(np.mean(samples**2)) == pytest.approx(RMS_LEVEL, rel=0.05)


def test_pitch_formants_and_tempo_move_one_at_a_time() -> None:
    plain, _, _ = speak(TEXT, Speaker("a", "slt", pitch=180))
    high, _, _ = speak(TEXT, Speaker("b", "slt", pitch=240))
    small, _, _ = speak(TEXT, Speaker("c", "slt", formants=1.2, pitch=180))
    slow, _, _ = speak(TEXT, Speaker("d", "slt", pitch=180, tempo=1.2))
    assert pitch(high) / pitch(plain) == pytest.approx(240 / 180, rel=0.1)
    assert pitch(small) / pitch(plain) == pytest.approx(1, abs=0.1)
    assert centroid(small) > 1.05 * centroid(plain)
    assert len(small) / len(plain) == pytest.approx(1, abs=0.03)
    assert len(slow) / len(plain) == pytest.approx(1.2, abs=0.06)


def test_speakers_are_distinct_and_the_same_every_time() -> None:
    made = speakers(240)
    assert len({s.name for s in made}) == len(made) == 244
    assert len({(s.voice, s.formants, s.pitch) for s in made}) == 244
    assert made == speakers(240)


def test_as_a_teacher_it_has_its_voices_and_shifted_ones() -> None:
    teacher = open_teacher("flite", invented=8)
    assert tuple(teacher.voices) == TEACHERS
    assert len(teacher.invented) == 8
    plain, phones, ends = teacher.speak(TEXT, "slt", 1.0)
    assert phones == speak(TEXT, Speaker("slt", "slt")).phones
    assert ends[-1] == pytest.approx(len(plain) / RATE, abs=0.02)
    assert len(teacher.speak(TEXT, "slt", 1.25).samples) == pytest.approx(len(plain) / 1.25, rel=0.03)
    assert len(teacher.speak(TEXT, teacher.invented[3], 1.0).samples) != len(plain)

"""Cutting recordings into windows: all speech is in one, in order, and none is too long."""

import tracemalloc
from itertools import chain, pairwise

import numpy as np
import pytest
from listening import RATE, phrase, recording

from llasa.listen.windows import cut, quietest, windows

NAMES = ["alma", "edith", "clara"]


def found(samples: np.ndarray, longest: float = 12.0) -> list[tuple[int, int]]:
    return list(chain(*windows(samples, RATE, longest)))


def energy(samples: np.ndarray, spans: list[tuple[int, int]]) -> float:
    """The share of a recording's energy in some spans."""
    return sum(float((samples[a:b] ** 2).sum()) for a, b in spans) / float((samples**2).sum())


def test_each_phrase_is_a_window_of_its_own_after_a_long_pause() -> None:
    sound = recording(NAMES)
    spans = found(sound)
    assert len(spans) == 3
    place = 0.5
    for name, (start, stop) in zip(NAMES, spans, strict=True):
        assert start / RATE == pytest.approx(place, abs=0.25)
        assert stop / RATE == pytest.approx(place + len(phrase(name)) / RATE, abs=0.25)
        place += len(phrase(name)) / RATE + 2.0


def test_phrases_with_short_pauses_share_a_window() -> None:
    assert len(found(recording(NAMES, pause=0.4))) == 1
    assert len(found(recording(NAMES, pause=0.4), longest=4.0)) == 2


def test_nothing_is_lost_or_doubled_where_a_minute_ends() -> None:
    """Phrases lie across second 60 at several places."""
    for before in (58.7, 59.9):
        sound = recording([*NAMES, "alma"], before=before)
        spans = found(sound)
        assert len(spans) == 4, before
        assert energy(sound, spans) > 0.995


def test_speech_without_a_pause_is_cut_where_it_is_quietest_and_goes_on_there() -> None:
    sound = np.concatenate([phrase("clara"), phrase("alma")] * 25)  # 75 seconds
    spans = found(sound, longest=6.0)
    assert all(stop - start <= 6.0 * RATE for start, stop in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert energy(sound, spans) > 0.98


def test_the_quietest_place_is_found() -> None:
    sound = np.ones(RATE)
    sound[9000:11000] = 0.0
    place = quietest(sound, RATE, 0, RATE)
    assert place == pytest.approx(10000, abs=300)
    assert list(cut(sound, [(0, 16000)], RATE, 0.9)) == [(0, place), (place, 16000)]


def test_silence_noise_and_tones_have_no_windows() -> None:
    time, noise = np.arange(5 * RATE) / RATE, np.random.default_rng(0).normal(0, 0.1, 5 * RATE)
    for sound in (np.zeros(5 * RATE), noise, 0.3 * np.sin(2 * np.pi * 440 * time), np.zeros(0), np.zeros(100)):
        assert not found(sound.astype(np.float32))


def test_memory_does_not_grow_with_the_recording() -> None:
    peaks = []
    for count in (12, 24):  # one or two minutes
        sound = np.tile(recording(["alma"], pause=3.0), count)
        tracemalloc.start()
        assert len(found(sound)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]

"""Defines a teacher, a synthesiser that reads the corpus to the models, and its readings.

The synthesisers are in files of their own; `data/synthesis.py` writes shards.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

RATE = 16000  # Hz, of every reading
PAUSE = "pau"  # the phone for silence
QUIET = 40.0  # dB; a frame further than this below the mean level of a reading is silence
FRAME = 160  # samples over which a level is measured
# One loudness for everything written, so that no voice teaches the models its own gain.
RMS_LEVEL = 0.06
LEAD, TAIL = 0.06, 0.12  # seconds of silence kept around an utterance


class Reading(NamedTuple):
    """A text as it was read.

    Attributes:
        samples: (N,) float32, 16 kHz mono.
        phones: what was said, in the teacher's own symbols, between two pauses; empty if their times are unknown.
        ends: the second at which each phone ends, ascending.
    """

    samples: np.ndarray
    phones: list[str]
    ends: list[float]


class Unreadable(RuntimeError):
    """The teacher cannot read this text."""


def sounding(samples: np.ndarray) -> tuple[float, float]:
    """The seconds at which the sound of a reading begins and ends.

    Raises:
        Unreadable: there is no sound.
    """
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    power = np.mean(frames**2, axis=1)
    loud = np.flatnonzero(power > power.sum() / max(len(power), 1) * 10 ** (-QUIET / 10))
    if not len(loud):
        raise Unreadable("nothing but silence was said")
    return float(loud[0]) * FRAME / RATE, float(loud[-1] + 1) * FRAME / RATE


def finish(reading: Reading) -> Reading:
    """Cuts the silences at the ends to LEAD and TAIL, and sets the loudness.

    Raises:
        Unreadable: there is only silence.
    """
    samples, phones, ends = reading.samples, reading.phones, np.array(reading.ends)
    spoken = [i for i, phone in enumerate(phones) if phone != PAUSE and any(map(str.isalpha, phone))]
    if spoken:
        begin, end = ends[0] if phones[0] == PAUSE else LEAD, ends[spoken[-1]]
    else:
        begin, end = sounding(samples)
    start, stop = max(0.0, begin - LEAD), min(len(samples) / RATE, end + TAIL)
    samples = samples[int(start * RATE) : int(stop * RATE)]
    samples = samples * (RMS_LEVEL / max(float(np.sqrt(np.mean(samples**2))), 1e-6))
    peak = float(np.abs(samples).max())
    if peak > 0.99:
        samples = samples * (0.99 / peak)
    return Reading(samples.astype(np.float32), phones, np.clip(ends - start, 0, stop - start).tolist())


class Teacher(Protocol):
    """A synthesiser with its voices.

    It is sent to other processes before it first speaks, so it must open anything large only then.

    Attributes:
        name: its name on the command line, with which its shards' names begin.
        prefix: put before a voice's name in the shards' `speaker`.
        voices: its own voices.
        invented: voices made from those; they share the rest of a corpus evenly.
        shares: default shares of a corpus by voice, with a sum of at most 1.
        speeds: the least and the greatest speed of a reading.
    """

    name: str
    prefix: str
    voices: Sequence[str]
    invented: Sequence[str]
    shares: Mapping[str, float]
    speeds: tuple[float, float]

    def identity(self) -> dict[str, str]:
        """Properties in which two corpora of one teacher may differ, such as its model."""
        ...

    def speak(self, text: str, voice: str, speed: float) -> Reading:
        """Reads a text, including the silences at its ends.

        Args:
            speed: 1 is the voice's own, 2 twice as fast.

        Raises:
            Unreadable: it cannot read this text, but may read others.
            LlasaError: it can read no text, because something is missing or damaged.
        """
        ...

"""What a teacher is: a synthesiser that reads the corpus to the models.

Knows what a reading consists of; knows nothing of any one synthesiser, nor of shards.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

RATE = 16000  # Hz, of every reading
PAUSE = "pau"  # the phone that is silence
QUIET = 40.0  # dB below the mean level of a reading, under which a frame is silence
FRAME = 160  # samples that a level is measured over


class Reading(NamedTuple):
    """A text as it was read.

    Attributes:
        samples: (N,) float32, 16 kHz mono.
        phones: what was said, in the teacher's own symbols, between two pauses; empty if the teacher does not say when.
        ends: the second at which each phone ends, ascending, one for each.
    """

    samples: np.ndarray
    phones: list[str]
    ends: list[float]


class Unreadable(RuntimeError):
    """The teacher cannot read this one text."""


def sounding(samples: np.ndarray) -> tuple[float, float]:
    """The seconds at which the sound of a reading begins and ends.

    Raises:
        Unreadable: there is none.
    """
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    power = np.mean(frames**2, axis=1)
    loud = np.flatnonzero(power > power.sum() / max(len(power), 1) * 10 ** (-QUIET / 10))
    if not len(loud):
        raise Unreadable("nothing but silence was said")
    return float(loud[0]) * FRAME / RATE, float(loud[-1] + 1) * FRAME / RATE


class Teacher(Protocol):
    """A synthesiser with its voices.

    It is sent to other processes before it has spoken, so whatever is large it opens when it first speaks.

    Attributes:
        name: what it is called on the command line, and at the head of its shards' names.
        prefix: what stands before a voice's name in the shards' `speaker`.
        voices: its own voices.
        invented: voices made from those, which share evenly what is left of a corpus.
        shares: of a corpus, by voice, where the user names none; they sum up to 1 at most.
        speeds: between which the speed of each reading is drawn.
    """

    name: str
    prefix: str
    voices: Sequence[str]
    invented: Sequence[str]
    shares: Mapping[str, float]
    speeds: tuple[float, float]

    def identity(self) -> dict[str, str]:
        """What two corpora of one teacher may differ in: of which model it is, say."""
        ...

    def speak(self, text: str, voice: str, speed: float) -> Reading:
        """Reads a text, the silences at its ends included.

        Args:
            speed: 1 is the voice's own, 2 twice as fast.

        Raises:
            Unreadable: it cannot read this text; others it can.
            LlasaError: it can read none: something is missing or damaged.
        """
        ...

"""Real speech with known words and speakers: flite's."""

from dataclasses import dataclass

import numpy as np
import pytest

from llasa.data.teachers.flite import Speaker, speak

SENTENCES = (
    "The old man walked slowly down to the river.",
    "There was nothing left in the house but a table and two chairs.",
    "She wrote a long letter to her brother in the city.",
    "We waited for the morning train until the rain came.",
)


@dataclass(frozen=True)
class Spoken:
    """Sentences, and the clip of each by two speakers."""

    texts: list[str]
    rms: list[np.ndarray]
    slt: list[np.ndarray]
    none: list[None]


@pytest.fixture(scope="session")
def spoken() -> Spoken:
    rms, slt = ([speak(text, Speaker(voice, voice))[0] for text in SENTENCES] for voice in ("rms", "slt"))
    return Spoken(list(SENTENCES), rms, slt, [None] * len(SENTENCES))

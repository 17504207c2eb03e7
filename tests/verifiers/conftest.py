"""Speech with known words and speakers: flite's, and the embedded voice's."""

from dataclasses import dataclass

import numpy as np
import pytest

from llasa.data.teachers.flite import Speaker, speak
from llasa.tts import Llasa

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


@dataclass(frozen=True)
class Said:
    """Sentences, and the clip of each by two presets, whom the embedded recogniser knows."""

    texts: list[str]
    alma: list[np.ndarray]
    bruno: list[np.ndarray]
    none: list[None]


@pytest.fixture(scope="session")
def said() -> Said:
    tts = Llasa.load("tiny", device="cpu")
    alma, bruno = ([tts.say(text, voice, seed=1).samples for text in SENTENCES] for voice in ("alma", "bruno"))
    return Said(list(SENTENCES), alma, bruno, [None] * len(SENTENCES))

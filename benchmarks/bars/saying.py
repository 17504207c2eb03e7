"""Says sentences for measurements, in which speech without a sound is a result instead of an error."""

from typing import Any

import numpy as np

from llasa import audio
from llasa.errors import NoSound
from llasa.speak.speech import Speech
from llasa.tts import Llasa
from llasa.voice import Voice

RATE = 16000  # Hz, for all listeners


def say(tts: Llasa, sentence: str, voice: str | Voice, seed: int, **search: Any) -> Speech | None:
    """The speech, or None if no take made a sound."""
    try:
        return tts.say(sentence, voice=voice, seed=seed, **search)
    except NoSound:
        return None


def sound(speech: Speech | None) -> np.ndarray:
    """The samples of speech at `RATE`; empty for None."""
    return audio.resample(speech.samples, speech.rate, RATE) if speech else np.zeros(0, np.float32)

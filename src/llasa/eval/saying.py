"""Saying a sentence where a take without a sound is a finding, not an error.

Knows the one object a user holds; knows nothing of what is measured.
"""

from typing import Any

import numpy as np

from llasa import audio
from llasa.errors import LlasaError
from llasa.speech import Speech
from llasa.tts import NO_SOUND, Llasa
from llasa.voice import Voice

RATE = 16000  # Hz, of all that is listened to


def say(tts: Llasa, sentence: str, voice: str | Voice, seed: int, **search: Any) -> Speech | None:
    """The speech, or None where no take made a sound."""
    try:
        return tts.say(sentence, voice=voice, seed=seed, **search)
    except LlasaError as error:
        if str(error) != NO_SOUND:
            raise
        return None


def sound(speech: Speech | None) -> np.ndarray:
    """Its samples at `RATE`; none of no speech."""
    return audio.resample(speech.samples, speech.rate, RATE) if speech else np.zeros(0, np.float32)

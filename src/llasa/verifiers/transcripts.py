"""Compares the transcript of a reference with what the model's recogniser hears in it."""

from textwrap import shorten

import numpy as np

from llasa import audio
from llasa.errors import LlasaError, WrongTranscript
from llasa.text.script import is_latin
from llasa.verifiers.content import CtcContent
from llasa.verifiers.protocol import RATE, Verifier
from llasa.voice import check_transcript


def transcript_of(samples: np.ndarray, rate: int, given: str | None, recogniser: Verifier | None) -> str:
    """The transcript of a reference: the one given, if it can be right, or what is heard.

    Args:
        samples: (N,), not silent.
        rate: Hz.
        given: None to have it written down.
        recogniser: the verifier `content`; None if the model has none, when whatever is given passes.

    Raises:
        LlasaError: what is given has no words; or nothing is given and there is no recogniser, or it hears no words.
        WrongTranscript: what is heard is something else.
    """
    if given is not None:
        given = check_transcript(given)
    if recogniser is None:
        if given is None:
            raise LlasaError("this model has no recogniser to transcribe with: give the words of the recording")
        return given
    assert isinstance(recogniser, CtcContent)
    sound = audio.resample(samples, rate, RATE)
    if given is None:
        return check_transcript(recogniser.transcribe(sound))
    if not is_latin(given):
        return given  # the recogniser cannot tell
    fits, heard = recogniser.compare(given, sound)
    if not fits:
        raise WrongTranscript(
            f"the transcript is not what is said in the reference, which sounds like {shorten(heard, 160)!r}: "
            "correct it, or pass --voice-text auto"
        )
    return given

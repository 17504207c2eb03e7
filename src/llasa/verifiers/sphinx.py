"""Scores whether speech says its text, with PocketSphinx and its own US English model: 1 - WER.

It guesses words from their neighbours, and no model here was trained with it. It runs at a few times real time. The
weights lie inside the package pocketsphinx.
"""

from functools import cache
from typing import Any

import numpy as np

from llasa.errors import LlasaError, need_extra
from llasa.text.script import is_latin
from llasa.text.wording import word_errors, words
from llasa.verifiers.protocol import RATE, Batch


def load(device: str = "cpu") -> "Sphinx":
    """Loads the verifier, which stays on the CPU.

    Raises:
        LlasaError: a package is missing.
    """
    need_extra("verify", "pocketsphinx", "jiwer")
    return Sphinx()


class Sphinx:
    """1 - WER of PocketSphinx's transcript, at least 0. For a text without words, 1 if it hears none, else 0."""

    name = "pocketsphinx"
    process = False
    needs_text = True
    needs_reference = False

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        """See `Verifier.score`.

        Raises:
            LlasaError: a text is not in Latin letters, or over a third of its words are not in the dictionary; that is
                rare in English sentences and usual in other languages.
        """
        for text in dict.fromkeys(batch.texts):
            spoken = words(text)
            unknown = sum(_recogniser().lookup_word(word) is None for word in spoken)
            if not is_latin(text) or 3 * unknown > len(spoken):
                raise LlasaError("it knows only English, and too few words of the text: verify with whisper")
        counts = [word_errors(text, transcribe(audio)) for text, audio in zip(batch.texts, batch.audios, strict=True)]
        return np.array([max(0.0, 1 - errors / max(1, total)) for errors, total in counts])


def transcribe(samples: np.ndarray) -> str:
    """PocketSphinx's transcript in lower case; empty if it hears no word. It runs at about 7 times real time."""
    if not samples.any():
        return ""
    return listen(_recogniser(), samples)


def listen(decoder: Any, samples: np.ndarray) -> str:
    """What a decoder of PocketSphinx hears in samples at 16 kHz; empty if it hears no word."""
    # Otherwise its noise removal would remember the last clip, and transcripts would depend on the order of clips.
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw((np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    heard = decoder.hyp()
    return heard.hypstr if heard else ""


@cache
def _recogniser() -> Any:
    from pocketsphinx import Decoder

    return Decoder(samprate=RATE, loglevel="FATAL")

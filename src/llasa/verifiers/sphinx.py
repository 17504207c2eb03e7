"""Whether the words are there, by PocketSphinx with its own US English model: 1 - WER.

It guesses words from their neighbours, at the speed of a few times real time, and had no part in training any model
here. Its weights lie inside its package.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from llasa.errors import LlasaError, need_extra
from llasa.planning import is_latin
from llasa.verifiers.protocol import RATE
from llasa.verifiers.wording import word_errors, words


def load(device: str = "cpu") -> "Sphinx":
    """The verifier, which stays on the CPU.

    Raises:
        LlasaError: a package is missing.
    """
    need_extra("verify", "pocketsphinx", "jiwer")
    return Sphinx()


class Sphinx:
    """1 - WER of what PocketSphinx hears, 0 at the least. A text without words has nothing to be heard: 1 or 0."""

    name = "pocketsphinx"
    process = False
    needs_text = True
    needs_reference = False

    def score(
        self,
        texts: Sequence[str],
        audios: Sequence[np.ndarray],
        references: Sequence[np.ndarray | None],
        ended: bool = True,
    ) -> np.ndarray:
        """As the protocol says.

        Raises:
            LlasaError: a text is not in Latin letters, or over a third of its words are not in the dictionary, as few
                English sentences and most of other languages have it.
        """
        for text in dict.fromkeys(texts):
            spoken = words(text)
            unknown = sum(_recogniser().lookup_word(word) is None for word in spoken)
            if not is_latin(text) or 3 * unknown > len(spoken):
                raise LlasaError("it knows English, and too few words of some of the text: verify with whisper")
        counts = [word_errors(text, transcribe(audio)) for text, audio in zip(texts, audios, strict=True)]
        return np.array([max(0.0, 1 - errors / max(1, total)) for errors, total in counts])


def transcribe(samples: np.ndarray) -> str:
    """What PocketSphinx hears, in lower case; an empty string where it hears no word. About 7 times real time."""
    if not samples.any():
        return ""
    decoder = _recogniser()
    # Its noise removal would remember the clip before, and the order of clips change what is heard.
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

"""Builds a model's lexicon from espeak-ng's pronunciations, stress included, which the neural teacher reads.

A word that is frequent in the sentences gets the form that it has inside them: for "the", "of" or "to" that is weaker
than the form said alone. espeak-ng comes with the packages `phonemizer` and `espeakng-loader`, Kokoro's front end.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from llasa.errors import LlasaError
from llasa.text.lexicon import LONG, PHONES, fold

LONGEST = 10_000  # letters of a line in which forms are looked up; phonemizer takes minutes for a book on one line
_OFTEN = 3  # a form that occurs this often inside sentences is used
_PARTS = frozenset("".join(PHONES)) | {LONG}
# Marks that Kokoro does not read either: a syllabic consonant, a nasal vowel, a tie.
_DROPPED = re.compile("[\u0303\u0329\u0361]")
_EDGES = ".,?!;:-\"'()[]“”‘’—… "


def espeak_lexicon(words: Iterable[str], sentences: Sequence[str] = ()) -> dict[str, str]:
    """Word to phone characters, for every word that espeak-ng reads as one word.

    Args:
        words: in lower case.
        sentences: texts as a teacher would read them, in which to find forms inside a sentence.

    Raises:
        LlasaError: espeak-ng is not installed.
    """
    speak = _speaker()
    wanted = sorted(set(words))
    lexicon = {}
    for word, spoken in zip(wanted, speak(wanted), strict=True):
        if phones := _phones(spoken):
            lexicon[word] = phones
    forms: dict[str, Counter[str]] = defaultdict(Counter)
    sentences = [sentence for sentence in sentences if len(sentence) <= LONGEST]
    for sentence, spoken in zip(sentences, speak(sentences), strict=True):
        # espeak-ng runs some small words together ("of the"), and the phones of each are then unknown.
        written, heard = sentence.split(), spoken.split()
        if len(written) == len(heard):
            for word, group in zip(written, heard, strict=True):
                if phones := _phones(group.strip(_EDGES)):
                    forms[word.strip(_EDGES).lower()][phones] += 1
    for word, found in forms.items():
        phones, count = found.most_common(1)[0]
        if word in lexicon and count >= _OFTEN:
            lexicon[word] = phones
    return lexicon


def _phones(spoken: str) -> str | None:
    """espeak-ng's IPA for one word in the lexicon's characters; None for several words or those of another language."""
    symbols = _DROPPED.sub("", spoken.strip())
    return fold(symbols)[0] or None if set(symbols) <= _PARTS else None


def _speaker() -> Any:
    """A function from texts to the IPA of each."""
    try:
        import espeakng_loader
        from phonemizer.backend import EspeakBackend
        from phonemizer.backend.espeak.wrapper import EspeakWrapper
    except ImportError as error:
        raise LlasaError("espeak-ng is not installed: pip install 'llasa[synth]'") from error
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    backend = EspeakBackend("en-us", preserve_punctuation=True, with_stress=True)

    def speak(texts: Sequence[str]) -> list[str]:
        # One by one, because for many at once it may return more than it was given.
        return [" ".join(backend.phonemize([text], strip=False)).strip() for text in texts]

    return speak

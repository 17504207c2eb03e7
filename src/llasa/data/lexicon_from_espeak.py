"""Builds a model's lexicon by asking espeak-ng how it says every word: what the neural teacher reads, stress included.

A word that sentences often hold gets the form that it has inside them, which for "the", "of" or "to" is a weaker one
than when it is said alone. espeak-ng comes with the packages `phonemizer` and `espeakng-loader`, Kokoro's front end.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from llasa.errors import LlasaError
from llasa.lexicon import LONG, PHONES, fold

_OFTEN = 3  # so many times inside sentences, and that form is taken
_PARTS = frozenset("".join(PHONES)) | {LONG}
# Marks that Kokoro does not read either: a consonant that is a syllable, a nasal vowel, a tie.
_DROPPED = re.compile("[\u0303\u0329\u0361]")
_EDGES = ".,?!;:-\"'()[]“”‘’—… "


def espeak_lexicon(words: Iterable[str], sentences: Sequence[str] = ()) -> dict[str, str]:
    """Word to phone characters for every word that espeak-ng says as one.

    Args:
        words: in lower case.
        sentences: where forms inside a sentence are looked for, as a teacher would read them.

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
    for sentence, spoken in zip(sentences, speak(sentences), strict=True):
        # espeak-ng runs some small words together ("of the"): there nobody knows whose phones are whose.
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
    """espeak-ng's IPA for one word in the lexicon's characters; None of several words, or of another language's."""
    symbols = _DROPPED.sub("", spoken.strip())
    return fold(symbols)[0] or None if set(symbols) <= _PARTS else None


def _speaker() -> Any:
    """A function from texts to their IPA, one each."""
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
        # One by one: of many at once it may give back more than it was given.
        return [" ".join(backend.phonemize([text], strip=False)).strip() for text in texts]

    return speak

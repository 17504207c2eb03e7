"""Collects the words for a pronouncing lexicon: those of a text, and those of a dictionary."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from llasa.files import read_text


def words_of(texts: Iterable[str]) -> Counter[str]:
    """Counts each lower-case word."""
    return Counter(
        word.strip("'") for text in texts for word in re.findall(r"[a-z']+", text.lower()) if word.strip("'")
    )


def word_list(path: Path) -> list[str]:
    """The words of a CMU-style dictionary file, without the marks of alternative pronunciations.

    Raises:
        LlasaError: the file cannot be read.
    """
    lines = read_text(path).splitlines()
    return [w for w in (line.split(None, 1)[0] for line in lines if line.strip()) if re.fullmatch(r"[a-z][a-z']*", w)]

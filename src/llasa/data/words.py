"""Which words a pronouncing lexicon is to hold: those of a text, and those of a dictionary."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


def words_of(texts: Iterable[str]) -> Counter[str]:
    """How often each lower-case word occurs."""
    return Counter(
        word.strip("'") for text in texts for word in re.findall(r"[a-z']+", text.lower()) if word.strip("'")
    )


def word_list(path: Path) -> list[str]:
    """The words of a CMU-style dictionary file, without the marks of second pronunciations."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [w for w in (line.split(None, 1)[0] for line in lines if line) if re.fullmatch(r"[a-z][a-z']*", w)]

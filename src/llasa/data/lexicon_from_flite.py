"""Builds a model's lexicon by asking flite how it says every word: the teacher's own pronunciations."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from llasa.errors import LlasaError
from llasa.lexicon import PHONES

# Said alone these words are stressed; in a sentence they hardly ever are.
_WEAK = {"a": "ə", "the": "ðə"}


def words_of(texts: Iterable[str]) -> Counter[str]:
    """How often each lower-case word occurs."""
    return Counter(
        word.strip("'") for text in texts for word in re.findall(r"[a-z']+", text.lower()) if word.strip("'")
    )


def flite_lexicon(words: Iterable[str], batch: int = 500) -> dict[str, str]:
    """Word to phone characters for every word that flite says as one.

    Raises:
        LlasaError: flite is not installed.
    """
    pending, lexicon = sorted(set(words)), dict[str, str]()
    for start in range(0, len(pending), batch):
        part = pending[start : start + batch]
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("".join(f"{word}.\n\n" for word in part))
            file.flush()
            command = ["flite", "-voice", "kal", "-ps", "-f", file.name, "none"]
            try:
                printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            except FileNotFoundError as error:
                raise LlasaError("flite is not installed: apt-get install flite") from error
        lines = printed.strip().splitlines()
        if len(lines) != len(part):  # flite took some word for two sentences: find out which by halves
            if len(part) > 1:
                lexicon |= flite_lexicon(part, batch=max(1, len(part) // 4))
            continue
        for word, line in zip(part, lines, strict=True):
            phones = line.split()
            inner = [phone for phone in phones if phone != "pau"]
            # A pause inside means that flite spelled it or read several words.
            if inner and phones[1:-1] == inner and all(phone in PHONES for phone in inner):
                lexicon[word] = "".join(PHONES[phone] for phone in inner)
    return lexicon | {word: sounds for word, sounds in _WEAK.items() if word in lexicon}


def word_list(path: Path) -> list[str]:
    """The words of a CMU-style dictionary file, without the marks of second pronunciations."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [w for w in (line.split(None, 1)[0] for line in lines if line) if re.fullmatch(r"[a-z][a-z']*", w)]

"""Builds a model's lexicon by asking flite how it says every word: the teacher's own pronunciations."""

import subprocess
import tempfile
from collections.abc import Iterable

from llasa.errors import LlasaError
from llasa.lexicon import ARPABET

# Said alone these words are stressed; in a sentence they hardly ever are.
_WEAK = {"a": "ə", "the": "ðə"}


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
            if inner and phones[1:-1] == inner and all(phone in ARPABET for phone in inner):
                lexicon[word] = "".join(ARPABET[phone] for phone in inner)
    return lexicon | {word: sounds for word, sounds in _WEAK.items() if word in lexicon}

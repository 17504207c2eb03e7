"""Builds a model's lexicon from flite's pronunciations, for models that learn from its voices."""

import subprocess
import tempfile
from collections.abc import Iterable

from llasa.errors import LlasaError
from llasa.text.lexicon import ARPABET

# flite stresses these words when they are said alone; in a sentence they hardly ever are.
_WEAK = {"a": "ə", "the": "ðə"}


def flite_lexicon(words: Iterable[str], batch: int = 500) -> dict[str, str]:
    """Word to phone characters, for every word that flite reads as one word.

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
        if len(lines) != len(part):  # flite read a word as two sentences: bisect to find it
            if len(part) > 1:
                lexicon |= flite_lexicon(part, batch=max(1, len(part) // 4))
            continue
        for word, line in zip(part, lines, strict=True):
            phones = line.split()
            inner = [phone for phone in phones if phone != "pau"]
            # A pause inside means that flite spelled the word or read several words.
            if inner and phones[1:-1] == inner and all(phone in ARPABET for phone in inner):
                lexicon[word] = "".join(ARPABET[phone] for phone in inner)
    return lexicon | {word: sounds for word, sounds in _WEAK.items() if word in lexicon}

"""Properties of a text: its script, its length in letters, and how long people take to say it."""

import unicodedata

from llasa.errors import LlasaError

PACE = 0.08  # seconds a letter: 150 English words a minute
WIDE = 3.5  # letters that a Chinese, Japanese or Korean character stands for
SLACK = 1.5  # seconds that a few words may take on top of twice their expected length
WORD_SLACK, LETTER_SLACK = 0.5, 0.1  # seconds, and seconds a letter, that a single short word may take on top of it


def check_text(text: str) -> None:
    """Refuses a text without a letter or digit.

    Raises:
        LlasaError: the text has none.
    """
    if not any(character.isalnum() for character in text):
        raise LlasaError(f"there is nothing to say: the text {'has no words' if text.strip() else 'is empty'}")


def is_latin(text: str) -> bool:
    """Whether at least half of a text's letters are Latin."""
    found = [character for character in text if character.isalpha()]
    return sum(character < "\u0250" for character in found) * 2 >= len(found)


def strip_controls(text: str) -> str:
    """The text on one line, without control characters."""
    return " ".join("".join(c for c in text if c.isspace() or unicodedata.category(c)[0] != "C").split())


def letters(text: str) -> float:
    """The length of a text in letters; a character that stands for a syllable counts as several."""
    return sum(WIDE if unicodedata.east_asian_width(c) in "WF" else 1 for c in text if not c.isspace())


def longest(text: str, pace: float) -> float:
    """The most seconds that a reading may last: twice what is expected and some slack, so that no word fits in twice.

    Args:
        pace: seconds a letter.
    """
    count = letters(text)
    return 2 * count * pace + min(SLACK, WORD_SLACK + LETTER_SLACK * count)

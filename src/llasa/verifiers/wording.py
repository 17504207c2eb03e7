"""What two texts share once a reader has read them: words, and the errors of one text against another.

Knows texts alone. What was to be said and what a recogniser wrote are normalised alike before they are compared.
"""

import re
import unicodedata

from llasa import text
from llasa.errors import LlasaError


def words(sentence: str) -> list[str]:
    """The words that a reader would say and a recogniser write: normalised, lower case, no accents, no punctuation."""
    plain = unicodedata.normalize("NFKD", text.normalise(sentence).lower().replace("’", "'"))
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    # An apostrophe is kept within a word (don't, o'clock) only: around one it is a quotation mark.
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", plain)


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Substitutions, deletions and insertions, and the number of words in the reference."""
    import jiwer

    ours, theirs = words(reference), words(hypothesis)
    if not ours:
        return len(theirs), 0
    found = jiwer.process_words(" ".join(ours), " ".join(theirs))
    return found.substitutions + found.deletions + found.insertions, len(ours)


def letter_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Letters substituted, deleted and inserted, and letters in the reference, the spaces between words among them."""
    import jiwer

    ours, theirs = " ".join(words(reference)), " ".join(words(hypothesis))
    if not ours:
        return len(theirs), 0
    found = jiwer.process_characters(ours, theirs)
    return found.substitutions + found.deletions + found.insertions, len(ours)


def wer(reference: str, hypothesis: str) -> float:
    """Word error rate of one sentence; above 1 where much was added.

    Raises:
        LlasaError: the reference has no words.
    """
    errors, total = word_errors(reference, hypothesis)
    if not total:
        raise LlasaError(f"no words to compare with in {reference[:60]!r}: give a transcript with words")
    return errors / total

"""Compares a text with what a recogniser wrote: word errors, letter errors, word error rate. Finds words that repeat.

Both texts are normalised in the same way first. Another spelling of a word is not an error: British and American ones,
"to day" and "today".
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from llasa.errors import LlasaError
from llasa.text.normalise import normalise

PHRASE = 3  # words: the longest phrase that is looked for when it comes several times
FEW = 4  # words: a text so short is easily said twice
# Patterns that give British and American spellings one form. The form need not be a word ("hour" becomes "hor" on both
# sides), and only few different words become alike.
_SPELLINGS = [
    (re.compile(pattern), to)
    for pattern, to in [
        (r"(?<=..)our(?=$|s$|ed$|ing$|ers?$|abl[ey]$|ful$|less$|ites?$|ly$|hood$)", "or"),
        (r"is(?=es?$|ed$|ers?$|ing$|ations?$)", "iz"), (r"ys(?=es?$|ed$|ing$)", "yz"), (r"(?<=[bct])re(?=s?$)", "er"),
        (r"ll(?=ed$|ing$|[eo]rs?$|y$)", "l"), (r"(?<=[fpt]en)c(?=es?$)", "s"), (r"ogue(?=s?$)", "og"),
        (r"^licence", "license"), (r"^practis", "practic"), (r"^grey", "gray"), (r"^mould", "mold"),
        (r"^plough", "plow"),
        (r"^programme(?=s?$)", "program"), (r"^cheque", "check"), (r"^sceptic", "skeptic"), (r"^skilful", "skillful"),
        (r"^gaol", "jail"), (r"judgement", "judgment"), (r"^aeroplane", "airplane"), (r"^aluminium$", "aluminum"),
        (r"^jewellery$", "jewelry"), (r"^tyre(?=s?$)", "tire"), (r"^ok$", "okay"), (r"^towards$", "toward"),
        (r"^mr$", "mister"), (r"^mrs$", "missus"), (r"^dr$", "doctor"),
    ]
]  # fmt: skip


def words(sentence: str) -> list[str]:
    """The words of a sentence as a recogniser writes them: normalised, lower case, without accents and punctuation."""
    plain = unicodedata.normalize("NFKD", normalise(sentence).lower().replace("’", "'"))
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    # An apostrophe is kept only within a word (don't, o'clock); around a word it is a quotation mark.
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", plain)


def plain(sentence: str) -> str:
    """The words of a sentence in lower-case letters with a space between them, apostrophes left out."""
    return " ".join(words(sentence)).replace("'", "")


class Run(NamedTuple):
    """A word or phrase that comes several times in a row: its first word's index, its words, how often it comes."""

    start: int
    size: int
    times: int


def runs(spoken: Sequence[str]) -> list[Run]:
    """The words and phrases of up to three words that come twice or more in a row, in order."""
    found, start = list[Run](), 0
    while start < len(spoken):
        best = Run(start, 1, 1)
        for size in range(1, PHRASE + 1):
            unit, count = spoken[start : start + size], 1
            while list(spoken[start + count * size : start + (count + 1) * size]) == list(unit):
                count += 1
            if count > 1 and size * count > best.size * best.times:
                best = Run(start, size, count)
        found += [best] if best.times > 1 else []
        start += best.size * best.times
    return found


class Miscount(NamedTuple):
    """What is easily said in place of a text, and which of its words, from start to stop, come once too often."""

    words: list[str]
    surplus: tuple[int, int] | None = None


def miscounts(spoken: Sequence[str]) -> list[Miscount]:
    """What is easily said in place of a text: a word or phrase that repeats comes once more or once less.

    In a text of up to four words each of them, or all of them, may come twice. Other texts have no miscounts.
    """
    counted = runs(spoken)
    if len(spoken) <= FEW:
        repeated = {place for run in counted for place in range(run.start, run.start + run.size * run.times)}
        counted += [Run(place, 1, 1) for place in range(len(spoken)) if place not in repeated]
        counted += [Run(0, len(spoken), 1)] if len(spoken) > 1 else []
    found = []
    for start, size, count in counted:
        unit, rest = list(spoken[start : start + size]), spoken[start + size * count :]
        last = start + size * count
        found += [Miscount([*spoken[:start], *unit * (count - 1), *rest])] if count > 1 else []
        # The last one but one is too many: so the first keeps its beginning, and the last its end.
        found.append(Miscount([*spoken[:start], *unit * (count + 1), *rest], (last - size, last)))
    return found


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Substitutions, deletions and insertions, and the number of words in the reference."""
    import jiwer

    ours, theirs = ([_spelt(word) for word in words(sentence)] for sentence in (reference, hypothesis))
    ours, theirs = _joined(ours, theirs), _joined(theirs, ours)
    if not ours:
        return len(theirs), 0
    found = jiwer.process_words(" ".join(ours), " ".join(theirs))
    return found.substitutions + found.deletions + found.insertions, len(ours)


@cache
def _spelt(word: str) -> str:
    """A word in the spelling that is compared."""
    for pattern, to in _SPELLINGS:
        word = pattern.sub(to, word)
    return word


def _joined(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Joins two neighbouring words if the other text writes them as one word and this text never does."""
    known = set(theirs) - set(ours)
    result: list[str] = []
    for word in ours:
        if result and result[-1] + word in known:
            result[-1] += word
        else:
            result.append(word)
    return result


def letter_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Substitutions, deletions and insertions of letters, and the number of letters in the reference; spaces count."""
    import jiwer

    ours, theirs = " ".join(words(reference)), " ".join(words(hypothesis))
    if not ours:
        return len(theirs), 0
    found = jiwer.process_characters(ours, theirs)
    return found.substitutions + found.deletions + found.insertions, len(ours)


def wer(reference: str, hypothesis: str) -> float:
    """Word error rate of one sentence; above 1 if much was inserted.

    Raises:
        LlasaError: the reference has no words.
    """
    errors, total = word_errors(reference, hypothesis)
    if not total:
        raise LlasaError(f"the reference {reference[:60]!r} has no words: give a transcript with words")
    return errors / total

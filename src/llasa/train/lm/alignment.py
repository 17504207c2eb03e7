"""Aligns a text with the codes that say it, by the times of the teacher's phones."""

import difflib
import re
from typing import NamedTuple

import numpy as np

from llasa.text.lexicon import ARPABET, LONG, PHONES, PUNCTUATION, fold

UNKNOWN = -1  # the place of what is not known to lie anywhere
LATE = 6  # codes; what is said is asked for so much later, when the codes after it have been heard too
_WORD = re.compile(f"[^{re.escape(PUNCTUATION)}]+")


def align(text: str, phones: list[str], ends: np.ndarray, frames: int, rate: float) -> np.ndarray:
    """For each frame, the index of the character of `text` that it speaks, (frames,) ints.

    Characters that equal the teacher's phones are matched first. Between matches (words in letters, other
    pronunciations), frames are spread evenly over the characters. A pause belongs to the character after the last
    sound: a space, a punctuation mark, or the token after the text.

    Args:
        phones: the teacher's symbols. Symbols that are not phones, such as `pau`, a space or a mark, are pauses. A
            phone that `llasa.text.lexicon` writes as one symbol may be two here (`t`, `ʃ`).
        ends: (phones,) the second at which each ends.
    """
    sounds = [i for i, c in enumerate(text) if c not in PUNCTUATION]
    folded, last = fold(phones)
    if not sounds or not folded:
        return np.full(frames, 0)
    wanted = "".join(text[i] for i in sounds)
    matches = difflib.SequenceMatcher(None, folded, wanted, autojunk=False).get_matching_blocks()
    anchors = [(m.a + k, m.b + k) for m in matches for k in range(m.size)]
    # The ends of both strings match, too.
    at = [-1, *(a for a, _ in anchors), len(folded)]
    to = [-1, *(b for _, b in anchors), len(wanted)]
    index = np.clip(np.rint(np.interp(np.arange(len(folded)), at, to)).astype(int), 0, len(wanted) - 1)
    spoken = np.asarray(sounds)[index]
    symbols = np.arange(len(phones))
    order = np.searchsorted(last, symbols)  # the phone that a symbol is part of or precedes
    part = np.array([phone in PHONES or phone in ARPABET or phone == LONG for phone in phones])
    before = np.concatenate([[0], spoken + 1])
    character = np.where(part, spoken[np.minimum(order, len(folded) - 1)], before[order])
    segment = np.searchsorted(ends, (np.arange(frames) + 0.5) / rate)
    return np.append(character, len(text))[np.minimum(segment, len(phones))]


class Heard(NamedTuple):
    """Where an utterance's letters are heard, and which phone is heard at each of its codes.

    Attributes:
        places: (letters + 1,) for each letter of the text and the end, the code where it can be told.
        phones: a character for each code: the phone, a space in pauses.
    """

    places: np.ndarray
    phones: str


def listen(read: str, written: str, phones: list[str], ends: np.ndarray, frames: int, rate: float) -> Heard | None:
    """Aligns an utterance's codes with its text in letters, LATE codes after they are said.

    The letters of a word are spread evenly over its codes. None if the two texts have not equally many words.

    Args:
        read: the text in phones, as `pronounce` returns it.
        written: the same in letters, as `plain` returns it.
        phones, ends, frames, rate: as in `align`.
    """
    spans, words = [match.span() for match in _WORD.finditer(read)], written.split()
    if len(spans) != len(words):
        return None
    spoken = np.maximum.accumulate(align(read, phones, ends, frames, rate))
    places: list[float] = []
    for (first, stop), word in zip(spans, words, strict=True):
        begin, end = np.searchsorted(spoken, [first, stop])
        places += np.linspace(begin, end, len(word), endpoint=False).tolist()
        places.append(end)  # the space after it
    shown = np.array([" " if c in PUNCTUATION else c for c in read + " "])[spoken]
    late = np.concatenate([np.full(min(LATE, frames), " "), shown[: max(0, frames - LATE)]])
    return Heard(np.minimum(np.array(places).astype(int) + LATE, frames - 1), "".join(late))

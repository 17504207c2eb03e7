"""Finds which words of a text, as its writer typed them, each spoken word belongs to: "$5" is said as "five dollars".

Normalisation looks at several words at once and says nothing of where a word came from. So each typed word is
normalised alone, which mostly gives what it becomes in its sentence, and the result is matched with what was spoken.
What does not match belongs to the typed words in between.
"""

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import NamedTuple

WINDOW = 64  # words that are compared with one another at once, so that time is linear in the length of the text
_PLAIN = re.compile(r"[a-z]+(?:['-][a-z]+)*")
_MARKS = "\"'“”‘’«»()[]{}*_~.,?!;:…"


class Typed(NamedTuple):
    """A word as it was typed, its punctuation included, and the numbers of the spoken words that say it."""

    word: str
    first: int
    stop: int


def typed_words(text: str, spoken: Sequence[str], clean: Callable[[str], str], whole: bool = True) -> list[Typed]:
    """The typed words of a text, each with what was spoken of it. All spoken words belong to one, in order.

    What is typed alone and not spoken, such as a dash, goes with the word before it, so that the words joined by spaces
    are the text on one line.

    Args:
        spoken: the words of the normalised text.
        clean: normalises the text.
        whole: whether all of the text was spoken; if not, words after the last spoken one are left out.
    """
    tokens = text.split()
    found, owner, plain = list[str](), list[int](), list[bool]()
    for index, token in enumerate(tokens):
        bare = _bare(token)
        is_plain = _PLAIN.fullmatch(bare) is not None
        parts = [bare] if is_plain else [_bare(word) for word in clean(token).split()]
        found += parts
        owner += [index] * len(parts)
        plain += [is_plain] * len(parts)
    said = [_bare(word) for word in spoken]
    places = _places(found, plain, said)
    stops = [0] * len(tokens)  # of each token, the number of spoken words up to its end
    for number, place in enumerate(places):
        if owner:
            stops[owner[place]] = number + 1
    result, last, before = list[Typed](), 0, ""
    for token, stop in zip(tokens, stops, strict=True):
        if stop > last:
            result.append(Typed(before + token, last, stop))
            last, before = stop, ""
        elif not result:
            before += f"{token} "
        elif whole or last < len(said):
            result[-1] = result[-1]._replace(word=f"{result[-1].word} {token}")
    return result


def _bare(word: str) -> str:
    return word.lower().replace("’", "'").strip(_MARKS)


def _places(found: Sequence[str], plain: Sequence[bool], said: Sequence[str]) -> list[int]:
    """For each spoken word, the place in `found` that it belongs to; they never decrease."""
    # Plain words are matched first: in "$5 million", which is "five million dollars", the dollars have moved.
    certain = _matches([word if is_plain else None for word, is_plain in zip(found, plain, strict=True)], said)
    anchors = list[tuple[int, int]]()
    ends = (len(found), len(said))
    for (a, b), (c, d) in pairwise([(-1, -1), *certain, ends]):
        anchors += [(a + 1 + x, b + 1 + y) for x, y in _matches(found[a + 1 : c], said[b + 1 : d])]
        anchors += [(c, d)] if (c, d) != ends else []
    places = [0] * len(said)
    for (a, b), (c, d) in pairwise([(-1, -1), *anchors, ends]):
        between, count = c - a - 1, d - b - 1
        # A plain word says only itself, unless there is nothing else: "$ 5" is "five dollars".
        nearest = c if c < len(found) and (a < 0 or (plain[a] and not plain[c])) else a
        for number in range(count):
            places[b + 1 + number] = a + 1 + number * between // count if between else nearest
        if (c, d) != ends:
            places[d] = c
    return places


def _matches(ours: Sequence[str | None], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of places of equal words, both growing. Compares windows, of which the first halves are kept."""
    pairs, a, b = list[tuple[int, int]](), 0, 0
    while a < len(ours) and b < len(theirs):
        blocks = SequenceMatcher(
            None, ours[a : a + WINDOW], theirs[b : b + WINDOW], autojunk=False
        ).get_matching_blocks()
        new = [(a + m.a + k, b + m.b + k) for m in blocks for k in range(m.size)]
        if a + WINDOW < len(ours) or b + WINDOW < len(theirs):
            new = [(x, y) for x, y in new if max(x - a, y - b) < WINDOW // 2]
            a, b = (new[-1][0] + 1, new[-1][1] + 1) if new else (a + WINDOW // 2, b + WINDOW // 2)
        else:
            a = len(ours)
        pairs += new
    return pairs

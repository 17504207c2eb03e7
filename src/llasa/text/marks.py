"""Reads the marks of enumerations, such as "(a)", "2." or "iii)", as openings of their items.

"(a) a room, (b) a table" becomes "A: a room, B: a table", and each item on a line of its own a sentence. The colon
keeps the mark with its item wherever the text is cut (`llasa.text.splitting`).
"""

import re
from typing import NamedTuple

from llasa.text.notation import roman
from llasa.text.numbers import LABELS, speak_numbers

_NAME = r"\d{1,2}|[A-Za-z]|[ivx]{2,5}|[IVX]{2,5}"
# What goes on after a reference, as in "(1) and (2) hold", is no item.
_MARK = re.compile(rf"(?<!\S)(?:\(({_NAME})\)|({_NAME})([.)]))[ \t]+(?!(?:and|or|to|is|are|in|of)\b)(?=\S)")
_LABELLED = re.compile(rf"\b(?:{'|'.join(LABELS)})\.$", re.I)
_NEAR = 40  # characters before a mark that are looked at


class _Item(NamedTuple):
    start: int
    end: int
    spoken: str
    before: str  # the end of the text before it, without spaces
    leads: bool  # it stands first in its line


def open_items(text: str) -> str:
    """Rewrites the marks of enumerations. Marks count from one upwards; alone, one counts at the start of a paragraph
    or after a colon.

    Args:
        text: lines, folded to ASCII.
    """
    result, last = [], 0
    for item in sorted(_items(text)):
        piece = text[last : item.start]
        if item.leads and re.search(r"[\w)\]\"']$", item.before):
            piece = f"{piece.rstrip()}.\n"
        elif not item.leads and re.search(r"[\w)\]\"']$", item.before) and not re.search(r"\b(?:and|or)$", item.before):
            piece = f"{piece.rstrip()}, "
        result += [piece, f"{item.spoken}: "]
        last = item.end
    return "".join([*result, text[last:]])


def _items(text: str) -> list[_Item]:
    """The marks that follow one another, and those that open a paragraph or follow a colon."""
    found: list[_Item] = []
    chains: dict[tuple[str, str], tuple[int, _Item | None]] = {}  # the last number of each kind, and an unproven first
    for match in _MARK.finditer(text):
        name, style = match[1] or match[2], match[3] or "()"
        before = text[max(0, match.start() - _NEAR) : match.start()].rstrip(" \t")
        first = before.endswith("\n\n") or not before.strip()
        leads = first or before.endswith("\n")
        before = before.rstrip()
        readings = _readings(name)
        # In a list that is open, the next number needs no mark before it: "1. Eggs 2. Milk".
        awaited = chains.get((style, "number")) == (readings[0][1] - 1, None) and name.isdigit()
        marked = awaited or before[-1:] in ",;:.!?"
        if style == "." and not leads and (name.isalpha() or not marked or _LABELLED.search(before)):
            continue
        for kind, number in readings:
            item = _Item(match.start(), match.end(), _spoken(kind, number), before, leads)
            previous, unproven = chains.get((style, kind), (0, None))
            if number > 1 and number == previous + 1:
                found += [item] if unproven is None else [unproven, item]
                chains[style, kind] = number, None
                break
        else:
            kind, number = readings[0]
            item = _Item(match.start(), match.end(), _spoken(kind, number), before, leads)
            alone = (
                (first or before.endswith(":"))
                and (style != "." or name.isdigit() or len(name) > 1)
                and not text[match.end()].isdigit()
            )
            found += [item] if alone else []
            if alone or number == 1:
                chains[style, kind] = number, None if alone else item
    return found


def _readings(name: str) -> list[tuple[str, int]]:
    """What a mark may count in, and its number there, the likelier first."""
    if name.isdigit():
        return [("number", int(name))]
    case = "small" if name.islower() else "capital"
    numeral = [(f"{case} numeral", roman(name.upper()))] if set(name.upper()) <= set("IVX") else []
    letter = [(f"{case} letter", ord(name.upper()) - ord("A") + 1)] if len(name) == 1 else []
    return numeral + letter


def _spoken(kind: str, number: int) -> str:
    return chr(ord("A") + number - 1) if kind.endswith("letter") else speak_numbers(str(number)).strip()

"""Marks of enumerations: how they are read, and that each stays in the chunk of its item."""

import re

import pytest

from llasa.text.lexicon import pronounce
from llasa.text.normalise import normalise
from llasa.text.splitting import chunks

# A mark, three items after it, and how the marks are read.
STYLES = [
    (("(a)", "(b)", "(c)"), ("A", "B", "C")),
    (("a)", "b)", "c)"), ("A", "B", "C")),
    (("(1)", "(2)", "(3)"), ("one", "two", "three")),
    (("1)", "2)", "3)"), ("one", "two", "three")),
    (("1.", "2.", "3."), ("one", "two", "three")),
    (("(i)", "(ii)", "(iii)"), ("one", "two", "three")),
    (("(A)", "(B)", "(C)"), ("A", "B", "C")),
]
ITEMS = ("open the door of the old house", "close the window by the stairs", "go home before the rain comes")


JOINTS = (", ", "; ", " ", ", and ", "\n", "\n\n", ".\n", "\n  ")
CASES = [(*style, joint) for style in STYLES for joint in JOINTS]


@pytest.mark.parametrize(("marks", "names", "joint"), CASES)
def test_a_mark_opens_its_item_wherever_the_text_is_cut(
    marks: tuple[str, ...], names: tuple[str, ...], joint: str
) -> None:
    text = joint.join(f"{mark} {item}" for mark, item in zip(marks, ITEMS, strict=True))
    spoken = normalise(text)
    assert normalise(spoken) == spoken
    for limit in range(45, 161, 5):
        pieces = [chunk.text for chunk in chunks(f"Do this: {text}", limit)]
        for name, item in zip(names, ITEMS, strict=True):
            opening = f"{name}: {' '.join(item.split()[:2])}"
            assert sum(opening in piece for piece in pieces) == 1, (limit, pieces)
        assert not any(re.search(r"(?:^|\W)(?:[A-C]|one|two|three)\W*$", piece) for piece in pieces), (limit, pieces)


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("1. eggs\n2. milk", "one: eggs. two: milk"),
        ("1. Eggs 2. Milk", "one: Eggs, two: Milk"),
        ("Steps: 1. Open it 2. Close it", "Steps: one: Open it, two: Close it"),
        ("1. Foo\n\n2. Bar", "one: Foo. two: Bar"),
        ("a. one thing\nb. other thing", "A: one thing. B: other thing"),
        ("I. Intro\nII. Methods\nIII. Results", "one: Intro. two: Methods. three: Results"),
        ("(h) this and (i) that", "H: this and I: that"),
        ("rooms (a) large (b) small", "rooms, A: large, B: small"),
        ("You need:\n- Eggs\n- Milk", "You need: Eggs. Milk"),
        ("You need:\n- eggs\n- milk", "You need: eggs, milk"),
        ("- Open the door of the old house and look\n- Close it", "Open the door of the old house and look. Close it"),
        # What only looks like a mark.
        ("plan (a) or (b) is fine", "plan, a, or, b, is fine"),
        ("equations (1) and (2) hold", "equations, one, and, two, hold"),
        ("(c) 2024 Acme", "c, twenty twenty four Acme"),
        ("J. K. Rowling", "J K Rowling"),
        ("See No. 1. Then see No. 2. Then go.", "See number one. Then see number two. Then go."),
        ("I have 1. You have 2. She has 3.", "I have one. You have two. She has three."),
    ],
)  # fmt: skip
def test_enumerations(text: str, reading: str) -> None:
    assert normalise(text) == reading
    assert normalise(reading) == reading


def test_a_capital_a_before_a_mark_is_the_letter() -> None:
    assert pronounce("A: a room", {"a": "ə", "room": "RUM"}) == "ˈE: ə RUM"
    assert pronounce("vitamin A.", {"a": "ə", "vitamin": "V"}) == "V ˈE."

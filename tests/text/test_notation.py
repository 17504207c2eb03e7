"""Notations, read as a person would: readings.txt has a text and its reading a line."""

from pathlib import Path

import pytest

from llasa.text.normalise import normalise
from llasa.text.notation import roman

READINGS = [
    line.rpartition(" => ")[::2] for line in Path(__file__).with_name("readings.txt").read_text().splitlines() if line
]


@pytest.mark.parametrize(("text", "reading"), READINGS, ids=[text for text, _ in READINGS])
def test_a_notation_is_read_as_a_person_would(text: str, reading: str) -> None:
    assert normalise(text) == reading
    assert normalise(reading) == reading


@pytest.mark.parametrize(("numeral", "value"), [("I", 1), ("IV", 4), ("XIV", 14), ("XC", 90), ("MCMLXXXIV", 1984)])
def test_roman_numerals(numeral: str, value: int) -> None:
    assert roman(numeral) == value


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("Milk\nEggs\nBread and butter", "Milk. Eggs. Bread and butter"),
        ("Chapter One\nIt was late and the lamp in the hall had burned so low that nobody could see\nthe stairs.",
         "Chapter One. It was late and the lamp in the hall had burned so low that nobody could see the stairs."),
        ("The woods are lovely, dark and deep,\nBut I have promises to keep.",
         "The woods are lovely, dark and deep, But I have promises to keep."),
        ("He walked for a long time through the old and silent streets of New\nYork until late, and then\nhe slept.",
         "He walked for a long time through the old and silent streets of New York until late, and then he slept."),
        ("one\ntwo", "one two"),
        ("Dear Anna\nThank you.", "Dear Anna. Thank you."),
        ("Ready?\nGo", "Ready? Go"),
    ],
)  # fmt: skip
def test_a_short_line_before_a_capital_ends_a_sentence(text: str, reading: str) -> None:
    assert normalise(text) == reading

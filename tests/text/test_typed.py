"""Which typed word each spoken word belongs to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llasa.text.normalise import normalise
from llasa.text.typed import Typed, typed_words


def said(text: str) -> dict[str, str]:
    """What is spoken of each typed word."""
    spoken = normalise(text).split()
    return {one.word: " ".join(spoken[one.first : one.stop]) for one in typed_words(text, spoken, normalise)}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It cost $5, wow.", {"It": "It", "cost": "cost", "$5,": "five dollars,", "wow.": "wow."}),
        ("$5 million — really!", {"$5": "five", "million —": "million dollars,", "really!": "really!"}),
        ("Dr. Who at 3:30 p.m.", {"Dr.": "Doctor", "Who": "Who", "at": "at", "3:30": "three thirty", "p.m.": "P M."}),
        ("Owed $ 5", {"Owed": "Owed", "$ 5": "five dollars"}),
        (
            "— “Well-known,” she’s 7 %",
            {"— “Well-known,”": "Well-known,", "she’s": "she's", "7": "seven", "%": "percent"},
        ),
        ("on Jan 5, 2024", {"on": "on", "Jan": "January", "5,": "fifth,", "2024": "twenty twenty four"}),
        ("NASA and USA", {"NASA": "NASA", "and": "and", "USA": "U S A"}),
        ("Привет hello …", {"Привет hello …": "hello."}),
        ("x.com/a now", {"x.com/a": "x dot com slash a", "now": "now"}),
    ],
)
def test_numbers_signs_and_abbreviations_stay_as_typed(text: str, wanted: dict[str, str]) -> None:
    assert said(text) == wanted


def test_what_was_not_spoken_yet_is_left_out() -> None:
    assert typed_words("One two. Three four.", ["One", "two."], normalise, whole=False) == [
        Typed("One", 0, 1), Typed("two.", 1, 2),
    ]  # fmt: skip
    assert typed_words("One", [], normalise) == []


WORDS = [
    "the",
    "a",
    "Dr.",
    "$5",
    "$",
    "3/4",
    "—",
    "very",
    "NASA",
    "10",
    "000",
    "Jan",
    "5,",
    "e.g.",
    "[x]",
    "a.com/b",
    "…",
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=90))
def test_every_spoken_word_belongs_to_one_typed_word_and_no_letter_is_lost(words: list[str]) -> None:
    text = "  ".join(words)
    spoken = normalise(text).split()
    found = typed_words(text, spoken, normalise)
    if spoken:
        assert " ".join(one.word for one in found) == " ".join(words)
        assert [one.first for one in found] == [0, *(one.stop for one in found[:-1])]
        assert found[-1].stop == len(spoken)
        assert all(one.first < one.stop for one in found)


def test_long_texts() -> None:
    text = "It cost $5 then and 10 000 now. " * 500
    spoken = normalise(text).split()
    assert [one.word for one in typed_words(text, spoken, normalise)] == text.split()

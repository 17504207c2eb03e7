"""Words that repeat: where they are, and how they are miscounted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llasa.text.wording import FEW, Miscount, Run, miscounts, runs

WORDS = st.lists(st.sampled_from("abc"), max_size=12)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("i am very very very tired", [Run(2, 1, 3)]),
        ("one two three one two three one two three", [Run(0, 3, 3)]),
        ("call five five five one two one two", [Run(1, 1, 3), Run(4, 2, 2)]),
        ("bye bye and ha ha ho ha ha ho", [Run(0, 1, 2), Run(3, 3, 2)]),
        ("we had had enough of that", [Run(1, 1, 2)]),
        ("no word comes twice in a row and a word may come again", []),
        ("", []),
    ],
)
def test_runs(text: str, found: list[Run]) -> None:
    assert runs(text.split()) == found


@given(WORDS)
def test_runs_are_apart_and_say_what_is_there(spoken: list[str]) -> None:
    end = 0
    for start, size, count in runs(spoken):
        assert start >= end
        assert count >= 2
        end = start + size * count
        assert spoken[start:end] == spoken[start : start + size] * count


def test_a_run_may_come_once_more_or_once_less() -> None:
    assert [" ".join(one.words) for one in miscounts(["we", "never", "never", "never", "give", "it", "up"])] == [
        "we never never give it up",
        "we never never never never give it up",
    ]
    assert miscounts(["this", "is", "a", "sentence", "of", "many", "words"]) == []


def test_a_short_text_may_come_twice() -> None:
    assert miscounts(["hi"]) == [Miscount(["hi", "hi"], (0, 1))]
    assert [" ".join(one.words) for one in miscounts(["very", "very", "tired"])] == [
        "very tired",
        "very very very tired",
        "very very tired tired",
        "very very tired very very tired",
    ]


@given(WORDS)
def test_miscounts_are_other_texts(spoken: list[str]) -> None:
    found = [one.words for one in miscounts(spoken)]
    assert spoken not in found
    assert [] not in found
    assert bool(found) == (bool(runs(spoken)) or 0 < len(spoken) <= FEW)


@given(WORDS)
def test_without_its_surplus_a_miscount_is_the_text(spoken: list[str]) -> None:
    for words, surplus in miscounts(spoken):
        assert (surplus is not None) == (len(words) > len(spoken))
        if surplus:
            assert words[: surplus[0]] + words[surplus[1] :] == spoken

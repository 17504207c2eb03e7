"""Chunks whose words repeat are cut so that each part is easily counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llasa.text.splitting import SENTENCE, TWICE, Chunk, part_repeats
from llasa.text.wording import runs


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("I am very very very tired.", [("I am very very", 0.0), ("very tired.", 1.0)]),
        ("No, no, no, no.", [("No, no,", 0.0), ("no, no.", 1.0)]),
        ("No. No. No.", [("No. No.", SENTENCE), ("No.", 1.0)]),
        ("Go on and on and on and on!", [("Go on and on", 0.0), ("and on and on!", 1.0)]),
        ("Ha ha ha ha ha!", [("Ha ha", 0.0), ("ha ha", 0.0), ("ha!", 1.0)]),
        ("Bye bye, we had had enough.", [("Bye bye, we had had enough.", 1.0)]),
    ],
)
def test_parts(text: str, parts: list[tuple[str, float]]) -> None:
    assert part_repeats(Chunk(text, 1.0)) == parts


@given(st.lists(st.sampled_from(["no", "yes,", "Yes.", "maybe"]), min_size=1, max_size=20))
def test_parts_lose_nothing_and_hold_few_repeats(words: list[str]) -> None:
    parts = part_repeats(Chunk(" ".join(words), 1.0))
    assert " ".join(part.text for part in parts) == " ".join(words)
    assert parts[-1].pause == 1.0
    if len({word.strip(",.").lower() for word in words}) == 1:
        assert all(run.times <= TWICE for part in parts for run in runs(part.text.lower().replace(",", "").split()))

"""Strategies as they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llasa.errors import LlasaError
from llasa.search.strategy import USUAL, Strategy, choose, parse

count = st.integers(1, 500)


@given(count)
def test_best_of_is_read_as_it_is_written(samples: int) -> None:
    assert parse(str(Strategy(samples))) == Strategy(samples)


@given(count, count, count, st.integers(0, 99), st.none() | st.tuples(st.integers(1, 80), count))
def test_beams_are_read_as_they_are_written(
    keep: int, width: int, chunk: int, ahead: int, rest: tuple[int, int] | None
) -> None:
    halves, samples = rest or (0, 0)
    strategy = Strategy(samples, keep, width, chunk, ahead, halves / 2)
    assert parse(str(strategy)) == strategy


def test_the_forms_of_the_documentation() -> None:
    assert parse("beam:4x4") == Strategy(keep=4, width=4)
    assert parse("beam:4x4/25^10") == Strategy(keep=4, width=4, chunk=25, ahead=10)
    assert parse("mixed:4x2@2s+16") == Strategy(16, 4, 2, seconds=2)
    assert parse("mixed:4x2@1.5+16").seconds == 1.5


@pytest.mark.parametrize(
    "written", ["", "beam", "beam:4", "beam:4x", "best-of", "best-of:-1", "mixed:4x4", "beam:4x4@2s+8", "best-of:1.5"]
)
def test_what_is_no_search_says_what_is(written: str) -> None:
    with pytest.raises(LlasaError, match="write best-of:N"):
        parse(written)


@pytest.mark.parametrize(
    "written", ["best-of:0", "beam:0x4", "beam:4x0", "beam:2x2/0", "mixed:4x4@0s+8", "mixed:4x4@2s+0"]
)
def test_nothing_is_no_search(written: str) -> None:
    with pytest.raises(LlasaError, match="every number must be above 0"):
        parse(written)


def test_what_the_arguments_of_say_ask_for() -> None:
    assert choose(None, None, False, None) is None
    assert choose(3, None, True, 9.0) == Strategy(3)
    assert choose(None, "beam:2x2", False, 1.0) == Strategy(keep=2, width=2)
    assert choose(None, None, False, 2.0) == Strategy(USUAL)
    assert choose(None, None, True, None) == Strategy(USUAL)
    with pytest.raises(LlasaError, match="best-of is 0"):
        choose(0, None, False, None)
    with pytest.raises(LlasaError, match="two searches"):
        choose(4, "beam:2x2", False, None)
    for budget in (0.0, float("inf"), float("nan")):
        with pytest.raises(LlasaError, match=f"the budget is {budget:g} seconds"):
            choose(4, None, False, budget)

"""What the measured steps foretell of others."""

import math

import pytest

from llasa.serve.pace import Pace


def measured(*rows: int, noise: float = 0.0) -> Pace:
    """A pace of steps whose tokens take 5 ms and 1 ms a row, every other one of them a bit longer."""
    pace = Pace()
    for number, count in enumerate(rows):
        pace.step(count, 10, 10 * (0.005 + 0.001 * count + noise * (number % 2)))
    return pace


def test_nothing_is_foretold_of_nothing() -> None:
    assert Pace()(1) == math.inf


def test_one_row_more_costs_half_of_a_row_until_it_was_seen() -> None:
    assert 1 / measured(1, 1, 1)(2) == pytest.approx(0.009)


def test_many_rows_are_foretold_from_few() -> None:
    pace = measured(*[1, 2, 3, 4] * 20)
    assert 1 / pace(1) == pytest.approx(0.006, rel=0.1)
    assert 1 / pace(8) == pytest.approx(0.013, rel=0.1)


def test_more_rows_are_never_faster() -> None:
    pace = Pace()
    for _ in range(20):
        pace.step(2, 10, 0.1)
        pace.step(4, 10, 0.05)
    assert pace(5) <= pace(3) <= pace(1)


def test_prompts_take_their_share() -> None:
    pace = measured(4)
    alone = 1 / pace(4)
    pace.start(2, 0.2)
    pace.piece(200)
    assert pace.prefill == pytest.approx(0.1)
    assert 1 / pace(4) == pytest.approx(alone + 4 * 0.1 / 200)


def test_a_surprise_fades() -> None:
    pace = measured(*[1] * 20)
    assert pace.surprise == pytest.approx(0.0, abs=1e-9)
    pace.step(1, 10, 0.26)
    assert pace.surprise == pytest.approx(0.2)
    for _ in range(100):
        pace.step(1, 10, 0.05)
    assert 0.05 < pace.surprise < 0.1

"""Intervals against closed forms, and against what they promise: to hold the truth 19 times in 20."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llasa.measure import statistics


def test_mean_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    found = statistics.mean(values)
    reach = statistics.Z * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - reach, abs=0.03)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.03)


def test_mean_covers_the_truth_about_19_times_in_20() -> None:
    rng = np.random.default_rng(2)
    found = [statistics.mean(rng.exponential(1.0, 60)) for _ in range(100)]
    assert 87 <= sum(interval.low <= 1.0 <= interval.high for interval in found) <= 99


def test_median_ignores_one_outlier() -> None:
    found = statistics.median([*np.linspace(1, 2, 51), 1e6])
    assert 1.0 < found.low < found.value < found.high < 2.0


def test_the_same_figures_give_the_same_interval() -> None:
    assert statistics.mean([1, 2, 5]) == statistics.mean([1, 2, 5])


def test_error_rate_weighs_sentences_by_their_words() -> None:
    found = statistics.error_rate([1, 9], [1, 99])
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((9 / 99, 1.0))


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    rng = np.random.default_rng(3)
    words = rng.integers(5, 20, 100)
    teacher = rng.binomial(words, rng.uniform(0, 0.6, 100))
    ours = teacher + 1  # each sentence one error worse, however hard it is
    paired = statistics.error_rate_difference(ours, teacher, words)
    alone = statistics.error_rate(teacher, words)
    assert paired.value == pytest.approx(100 / words.sum())
    assert 0 < paired.low < paired.high
    assert paired.high - paired.low < 0.3 * (alone.high - alone.low)


def test_a_gap_between_other_sentences_is_less_sure_than_either_side() -> None:
    rng = np.random.default_rng(4)
    words, others = rng.integers(5, 20, 100), rng.integers(5, 20, 30)
    ours, theirs = rng.binomial(words, 0.4), rng.binomial(others, 0.2)
    gap = statistics.error_rate_gap(ours, words, theirs, others)
    one, other = statistics.error_rate(ours, words), statistics.error_rate(theirs, others)
    assert gap.value == pytest.approx(one.value - other.value)
    # Variances of independent figures add up.
    widths = np.hypot(one.high - one.low, other.high - other.low)
    assert gap.high - gap.low == pytest.approx(widths, rel=0.05)
    # Equal columns are drawn apart too: no pairing takes the difference to nothing.
    same = statistics.error_rate_gap(ours, words, ours, words)
    assert same.value == 0
    assert same.low < -0.01 < 0.01 < same.high


def test_the_p_of_signs_agrees_with_counting_them_all() -> None:
    # Of the 32 ways to sign five equal differences, two reach their sum.
    assert statistics.paired_p([1, 1, 1, 1, 1]) == pytest.approx(2 / 32, abs=0.01)
    values = np.array([0.5, -0.2, 0.9, 0.3, -0.1, 0.7])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1)
    exact = np.mean(np.abs(signs.T @ values) >= values.sum() - 1e-9)
    assert statistics.paired_p(values) == pytest.approx(exact, abs=0.02)


def test_no_difference_has_a_p_of_one_and_a_clear_one_the_least() -> None:
    assert statistics.paired_p([0.0, 0.0, 0.0]) == 1
    assert statistics.paired_p(np.ones(100)) == 1 / (statistics.DRAWS + 1)


def test_p_is_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(5)
    found = [statistics.paired_p(rng.normal(size=20)) for _ in range(100)]
    assert 1 <= sum(p < 0.05 for p in found) <= 11


def test_weights_make_p_that_of_the_corpus_rate() -> None:
    rng = np.random.default_rng(6)
    words = rng.integers(5, 20, 60)
    fewer = rng.integers(-1, 3, 60)
    assert statistics.paired_p(fewer / words, words) == statistics.paired_p(fewer)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    # 0 of n: high is z² / (n + z²); half of n: the centre stays and the reach is z / 2 / sqrt(n + z²).
    [(0, 100, 0.0, 0.036995), (100, 100, 0.963005, 1.0), (50, 100, 0.403832, 0.596168)],
)
def test_share_agrees_with_wilsons_closed_forms(hits: int, total: int, low: float, high: float) -> None:
    found = statistics.share(hits, total)
    assert (found.value, found.low, found.high) == pytest.approx((hits / total, low, high), abs=1e-5)


@given(st.integers(1, 500).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_share_is_symmetric_and_within_bounds(pair: tuple[int, int]) -> None:
    hits, total = pair
    found, mirrored = statistics.share(hits, total), statistics.share(total - hits, total)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low == pytest.approx(1 - mirrored.high)


@pytest.mark.parametrize(("hits", "total"), [(3, 2), (-1, 2), (0, 0)])
def test_share_refuses_what_is_no_proportion(hits: int, total: int) -> None:
    with pytest.raises(ValueError, match="not a proportion"):
        statistics.share(hits, total)


def test_empty_or_uneven_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="equal length"):
        statistics.mean([])
    with pytest.raises(ValueError, match="equal length"):
        statistics.error_rate([1, 2], [3])


def test_groups_weigh_the_same_and_are_drawn_apart() -> None:
    found = statistics.mean_of_groups([([1.0] * 90, [10.0] * 90), ([3.0] * 10, [10.0] * 10)])
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.2), pytest.approx(0.2))
    wide = statistics.mean_of_groups([([0.0, 1.0], [1.0, 1.0]), ([0.5] * 50, [1.0] * 50)])
    assert (wide.low, wide.high) == (0.25, 0.75)

"""Confidence intervals of measured figures, by bootstrap and Wilson, always at 95 % and from a fixed seed.

Figures come as arrays with one entry for each utterance (or speaker). The bootstrap draws utterances rather than words,
because the errors within a sentence depend on each other.

The bootstrap is the percentile one (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13), used on
word error rates as by Bisani and Ney (ICASSP 2004). The interval of a share is Wilson's (JASA 22, 1927). The test of a
paired difference is Fisher's randomisation of signs (The Design of Experiments, 1935, section 21).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Figures = Sequence[float] | np.ndarray
DRAWS = 10_000
Z = 1.959963984540054  # the standard normal's 97.5 % quantile


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Interval":
        """The interval in another unit. The factor must be positive."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


def mean(values: Figures) -> Interval:
    """Mean of independent figures. For a paired comparison of two systems, pass the differences."""
    array = _figures(values)
    return _bootstrap(lambda picks: array[picks].mean(-1), array.size)


def mean_of_groups(groups: Sequence[tuple[Figures, Figures]]) -> Interval:
    """Mean over groups of the ratio of each group's figures to its weights, such as the error rates of several voices.

    Every group has the same weight, whatever its size. The bootstrap draws figures within each group.
    """
    arrays = [_figures(figures, weights) for figures, weights in groups]

    def statistic(*picks: np.ndarray) -> np.ndarray:
        rates = [array[0][own].sum(-1) / array[1][own].sum(-1) for array, own in zip(arrays, picks, strict=True)]
        return np.mean(rates, axis=0)

    return _bootstrap(statistic, *[array.shape[1] for array in arrays])


def median(values: Figures) -> Interval:
    """Median of independent figures."""
    array = _figures(values)
    return _bootstrap(lambda picks: np.median(array[picks], axis=-1), array.size)


def error_rate(errors: Figures, words: Figures) -> Interval:
    """Corpus word error rate: all errors over all words, given those of each sentence."""
    wrong, total = _figures(errors, words)
    return _bootstrap(lambda picks: wrong[picks].sum(-1) / total[picks].sum(-1), wrong.size)


def error_rate_difference(errors: Figures, baseline: Figures, words: Figures) -> Interval:
    """Corpus word error rate of one system less that of another on the same sentences, which are drawn together."""
    ours, theirs, _ = _figures(errors, baseline, words)
    return error_rate(ours - theirs, words)


def error_rate_gap(errors: Figures, words: Figures, other_errors: Figures, other_words: Figures) -> Interval:
    """Corpus word error rate less that on other sentences. The two sets are unpaired and drawn separately."""
    (wrong, total), (other, others) = _figures(errors, words), _figures(other_errors, other_words)
    return _bootstrap(
        lambda picks, rest: wrong[picks].sum(-1) / total[picks].sum(-1) - other[rest].sum(-1) / others[rest].sum(-1),
        wrong.size,
        other.size,
    )


def paired_p(differences: Figures, weights: Figures | None = None) -> float:
    """Two-sided p of the (weighted) mean of paired differences, if each were equally likely to have the other sign.

    For corpus word error rates, pass the difference of each sentence's rate, and its number of words as the weight. The
    least value is one in `DRAWS` + 1; if all differences are 0 it is 1.
    """
    array = _figures(differences) if weights is None else np.multiply(*_figures(differences, weights))
    rng = np.random.default_rng(0)
    found = abs(array.sum()) * (1 - 1e-9)  # so that the same sum in another order counts as equal
    hits = 0
    for _ in range(10):
        signs = rng.choice(np.array([-1.0, 1.0]), (DRAWS // 10, array.size))
        hits += int((np.abs(signs @ array) >= found).sum())
    return (1 + hits) / (1 + DRAWS)


def share(hits: int, total: int) -> Interval:
    """A proportion with Wilson's score interval, which is valid for none and for all, too.

    Raises:
        ValueError: `hits` is not within 0 to `total`, or `total` is 0.
    """
    if not 0 <= hits <= total or total == 0:
        raise ValueError(f"{hits} of {total} is not a proportion")
    rate, square = hits / total, Z * Z
    centre = (rate + square / (2 * total)) / (1 + square / total)
    reach = Z / (1 + square / total) * np.sqrt(rate * (1 - rate) / total + square / (4 * total * total))
    # For none and for all, a bound equals the rate itself, and rounding must not push it beyond.
    low, high = max(0.0, min(rate, centre - reach)), min(1.0, max(rate, centre + reach))
    return Interval(rate, float(low), float(high))


def _figures(*columns: Figures) -> np.ndarray:
    """Columns of equal length as an array (one column: 1-D)."""
    lengths = {len(column) for column in columns}
    if len(lengths) != 1 or not lengths.pop():
        raise ValueError("a statistic needs columns of equal length that are not empty")
    array = np.asarray(columns, dtype=np.float64)
    return array if len(columns) > 1 else array[0]


def _bootstrap(statistic: Callable[..., np.ndarray], *counts: int) -> Interval:
    """Percentile interval of `statistic`, a function of one array of indices (..., count) a count to figures (...)."""
    rng = np.random.default_rng(0)
    draws = np.concatenate(
        [statistic(*[rng.integers(0, count, (DRAWS // 10, count)) for count in counts]) for _ in range(10)]
    )
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(statistic(*[np.arange(count) for count in counts])), float(low), float(high))

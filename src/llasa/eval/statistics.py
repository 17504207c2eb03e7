"""How sure a measured figure is: bootstrap and Wilson intervals, always at 95 % and from a fixed seed.

Knows arrays of figures, one an utterance (or speaker); knows nothing of where they came from. The utterance is what is
drawn again, never the word: the errors within a sentence go together.

The bootstrap is the percentile one (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13), its use
on word error rates Bisani and Ney's (ICASSP 2004); the interval of a share is Wilson's (JASA 22, 1927); the test of a
paired difference is Fisher's of signs drawn at random (The Design of Experiments, 1935, section 21).
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
        """In another unit; the factor is positive."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


def mean(values: Figures) -> Interval:
    """Mean of independent figures. The mean of differences is the paired comparison of two systems."""
    array = _figures(values)
    return _bootstrap(lambda picks: array[picks].mean(-1), array.size)


def mean_of_groups(groups: Sequence[tuple[Figures, Figures]]) -> Interval:
    """Mean over groups of each one's sum of figures over its sum of weights: of error rates, say, of several voices.

    Every group weighs the same, however large; figures are drawn again within theirs.
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
    """Corpus word error rate, all errors over all words, from each sentence's own."""
    wrong, total = _figures(errors, words)
    return _bootstrap(lambda picks: wrong[picks].sum(-1) / total[picks].sum(-1), wrong.size)


def error_rate_difference(errors: Figures, baseline: Figures, words: Figures) -> Interval:
    """Corpus word error rate of one system less that of another on the same sentences, drawn together."""
    ours, theirs, _ = _figures(errors, baseline, words)
    return error_rate(ours - theirs, words)


def error_rate_gap(errors: Figures, words: Figures, other_errors: Figures, other_words: Figures) -> Interval:
    """Corpus word error rate less that on other sentences, drawn apart: the two have nothing to be paired by."""
    (wrong, total), (other, others) = _figures(errors, words), _figures(other_errors, other_words)
    return _bootstrap(
        lambda picks, rest: wrong[picks].sum(-1) / total[picks].sum(-1) - other[rest].sum(-1) / others[rest].sum(-1),
        wrong.size,
        other.size,
    )


def paired_p(differences: Figures, weights: Figures | None = None) -> float:
    """Two-sided p of the (weighted) mean of paired differences, were each as likely to have had the other sign.

    For a difference of corpus word error rates, the differences are of each sentence's rate and the weights its words.
    At least one in `DRAWS` + 1; 1 where all differences are 0.
    """
    array = _figures(differences) if weights is None else np.multiply(*_figures(differences, weights))
    rng = np.random.default_rng(0)
    found = abs(array.sum()) * (1 - 1e-9)  # rounding must not tell a sum from itself in another order
    hits = 0
    for _ in range(10):
        signs = rng.choice(np.array([-1.0, 1.0]), (DRAWS // 10, array.size))
        hits += int((np.abs(signs @ array) >= found).sum())
    return (1 + hits) / (1 + DRAWS)


def share(hits: int, total: int) -> Interval:
    """A proportion with Wilson's score interval, which stays honest at none and at all.

    Raises:
        ValueError: `hits` isn't within 0 to `total`, or there is nothing to take a share of.
    """
    if not 0 <= hits <= total or total == 0:
        raise ValueError(f"{hits} of {total} is not a proportion")
    rate, square = hits / total, Z * Z
    centre = (rate + square / (2 * total)) / (1 + square / total)
    reach = Z / (1 + square / total) * np.sqrt(rate * (1 - rate) / total + square / (4 * total * total))
    # At none and at all a bound is the rate itself: rounding must not push it past.
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
    """Percentile interval of `statistic`, which maps indices (..., count), an array a count, to figures (...)."""
    rng = np.random.default_rng(0)
    draws = np.concatenate(
        [statistic(*[rng.integers(0, count, (DRAWS // 10, count)) for count in counts]) for _ in range(10)]
    )
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(statistic(*[np.arange(count) for count in counts])), float(low), float(high))

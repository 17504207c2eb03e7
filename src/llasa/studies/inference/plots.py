"""Evaluates the results of a study of inference: compares strategies, and finds where more no longer helps.

The results come from `sweep.py`. A figure over all sentences is the mean; word errors are those of the corpus.
Differences are between the same sentences, with paired intervals and tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from llasa.measure import statistics
from llasa.measure.independent import Figure
from llasa.measure.statistics import Interval
from llasa.studies.inference.sweep import BEST_OF, MATCHED, SweepSettings

TURN = 16  # candidates up to which every figure should improve, and after which none should get worse


@dataclass(frozen=True, eq=False)
class Series:
    """One strategy at one n, over all sentences that every strategy finished.

    Attributes:
        tokens, seconds: the average cost of a sentence.
        values, weights: of each figure, by its key: (S,), one for each sentence, NaN where nothing could be measured.
    """

    strategy: str
    n: int
    tokens: float
    seconds: float
    values: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]

    @property
    def label(self) -> str:
        return f"best of {self.n}" if self.strategy == BEST_OF else self.strategy


@dataclass(frozen=True)
class Compared:
    """A figure of one strategy, and its paired difference to another strategy's, with its p."""

    value: Interval
    difference: Interval
    p: float

    @property
    def sure(self) -> bool:
        """Whether interval and test agree that there is a difference; for few sentences the interval is too narrow."""
        return not self.difference.low <= 0 <= self.difference.high and self.p < 0.05


def collect(settings: SweepSettings, items: Sequence[dict[str, Any]]) -> list[Series]:
    """Every strategy and n, best-of-n first, sorted by n.

    Sampling many at once takes less time a token than sampling few. So the seconds of a best-of-n whose candidates came
    from a larger one are its tokens times the seconds a token of searches of that n, on the sentences that were timed.
    """
    rates: dict[int, float] = {}
    for n in settings.sizes[:-1]:
        timed = [item["timed"][str(n)] for item in items if str(n) in item["timed"]]
        if tokens := sum(tokens for tokens, _ in timed):
            rates[n] = sum(seconds for _, seconds in timed) / tokens
    found = []
    for place in range(len(items[0]["takes"])):
        takes = [item["takes"][place] for item in items]
        tokens = float(np.mean([take["tokens"] for take in takes]))
        spent = [take["seconds"] for take in takes if take["seconds"] is not None]
        n = takes[0]["n"] if not takes[0]["strategy"].startswith(MATCHED) else 0
        seconds = float(np.mean(spent)) if len(spent) == len(takes) else tokens * rates.get(n, float("nan"))
        columns = {key: np.array([take["figures"][key] for take in takes], float) for key in settings.figures}
        found.append(
            Series(
                takes[0]["strategy"], n, tokens, seconds,
                {key: column[:, 0] for key, column in columns.items()},
                {key: column[:, 1] for key, column in columns.items()},
            )
        )  # fmt: skip
    return found


@cache
def compare(one: Series, other: Series, key: str) -> Compared:
    """A figure of `one` less that of `other` on the same sentences, without sentences where either has none."""
    usable = np.isfinite(one.values[key]) & np.isfinite(other.values[key])
    if not usable.any():
        nothing = Interval(float("nan"), float("nan"), float("nan"))
        return Compared(nothing, nothing, float("nan"))
    weights = one.weights[key][usable]
    ours, theirs = one.values[key][usable], other.values[key][usable]
    return Compared(
        statistics.error_rate(ours * weights, weights),
        statistics.error_rate_difference(ours * weights, theirs * weights, weights),
        statistics.paired_p(ours - theirs, weights),
    )


def slope(series: Sequence[Series], key: str) -> Compared | None:
    """The average change of a figure with each doubling of n: the slope of each sentence's values against log2(n)."""
    if len(series) < 2:
        return None
    steps = np.log2([one.n for one in series])
    steps = (steps - steps.mean()) / np.square(steps - steps.mean()).sum()
    lines = sum(step * one.values[key] for step, one in zip(steps, series, strict=True))
    line = Series("", 0, 0, 0, {key: np.asarray(lines)}, series[0].weights)
    return compare(line, Series("", 0, 0, 0, {key: np.zeros_like(lines)}, series[0].weights), key)


def over_optimised(series: Sequence[Series], key: str, figure: Figure) -> tuple[int, int, Compared] | None:
    """Where a figure gets worse while the verifier's score rises.

    Returns:
        the n with the best figure, the first larger n at which it is significantly (p < 0.05) worse although the score
        is higher, and the difference; None if there is no such n.
    """
    sign = -1 if figure.less else 1
    means = [sign * compare(one, one, key).value.value for one in series]
    best = int(np.argmax(means))
    for one in series[best + 1 :]:
        found = compare(one, series[best], key)
        worse = (found.difference.value > 0) == figure.less
        if found.sure and worse and compare(one, series[best], "score").difference.value > 0:
            return series[best].n, one.n, found
    return None


def findings(settings: SweepSettings, series: Sequence[Series]) -> list[str]:
    """The findings in sentences: the gain of the most candidates, trends, over-optimisation, beams at equal cost."""
    best_of = [one for one in series if one.strategy == BEST_OF]
    lines: list[str] = []
    turns: list[str] = []
    for key, figure in settings.figures.items():
        first, last = best_of[0], best_of[-1]
        start, end = compare(first, first, key).value.value, compare(last, first, key)
        unit = _unit(figure)
        text = f"{start:.3g}{unit} for one sample, {end.value.value:.3g}{unit} for the best of {last.n}"
        lines.append(f"{figure.name}: {text}, {_told(end, figure)}")
        for part, where in ((best_of[: _upto(best_of)], "up to"), (best_of[_upto(best_of) - 1 :], "from")):
            trend = slope(part, key)
            if trend and (where == "up to" or part[0].n >= TURN):
                n = part[-1].n if where == "up to" else part[0].n
                lines.append(f"{figure.name}, each doubling {where} n = {n}: {_told(trend, figure)}")
        if key != "score" and (turn := over_optimised(best_of, key, figure)):
            best, start_n, found = turn
            turns.append(
                f"over-optimisation: from n = {start_n} on, {figure.name} is worse than at n = {best} "
                f"({_told(found, figure)}) while the verifier's score climbs"
            )
    if not turns:
        turns = [f"no over-optimisation up to n = {best_of[-1].n}: no figure is surely worse than at its best"]
    for one, matched in pairs(series):
        cost = (
            "the same tokens" if matched.tokens > 0.9 * one.tokens else "fewer tokens, as there are no more candidates"
        )
        for key, figure in settings.figures.items():
            lines.append(
                f"{one.strategy} against best-of at {cost} ({one.tokens:.0f} and {matched.tokens:.0f}), "
                f"{figure.name}: {_told(compare(one, matched, key), figure)}"
            )
    return [*turns, *lines]


def _upto(best_of: Sequence[Series]) -> int:
    return sum(one.n <= TURN for one in best_of)


def pairs(series: Sequence[Series]) -> list[tuple[Series, Series]]:
    """Every other strategy with the best-of-n at its tokens."""
    by_name = {one.strategy: one for one in series}
    return [(by_name[name.removeprefix(MATCHED)], one) for name, one in by_name.items() if name.startswith(MATCHED)]


def _unit(figure: Figure) -> str:
    return f" {figure.unit}" if figure.unit else ""


def _told(found: Compared, figure: Figure) -> str:
    value, low, high = found.difference.value, found.difference.low, found.difference.high
    verdict = "not surely different" if not found.sure else "better" if (value < 0) == figure.less else "worse"
    return f"{value:+.3g}{_unit(figure)} ({low:+.3g} to {high:+.3g}, p {found.p:.2g}), {verdict}"

"""Evaluates a study of training: whether more parameters and more hours lower the loss, and by which power.

The loss is in nats a second of audio: the sum over all tokens, divided by the seconds of all utterances. The fit is
L = K / (N^a H^b), with N parameters and H hours. A grid of nine cells is enough for these three numbers. Over so small
a range it cannot tell a lower bound of the loss (E + A / N^a + B / H^b, Hoffmann et al., arXiv 2203.15556) from a
smaller power, so the powers are valid inside the grid and say nothing beyond it.

There are two 95 % intervals. "By utterances" is a bootstrap over held-out utterances, drawn alike for all cells. It
does not cover that another seed would have trained other models. "By scatter" is that of the regression: Student's t,
with three degrees of freedom fewer than cells. It covers the seed as far as cells scatter about the fit, but also
counts as scatter whatever the law does not describe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from llasa.measure import statistics
from llasa.measure.statistics import DRAWS, Interval

NOTHING = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True, eq=False)
class Point:
    """One size on one amount of speech, over all its seeds.

    Attributes:
        results: of every seed.
    """

    size: str
    hours: float
    results: list[dict[str, Any]]

    @property
    def parameters(self) -> int:
        return int(self.results[0]["parameters"])

    @property
    def label(self) -> str:
        return f"{self.size}, {self.hours:g} h"

    @cached_property
    def nats(self) -> np.ndarray:
        """(U,): the loss of each held-out utterance, as a mean over the seeds."""
        return np.mean([result["nats"] for result in self.results], axis=0)

    @cached_property
    def seconds(self) -> np.ndarray:
        """(U,): the length of each held-out utterance."""
        return np.array(self.results[0]["audio"])

    @cached_property
    def loss(self) -> Interval:
        """Nats a second of audio."""
        return statistics.error_rate(self.nats, self.seconds)

    @cached_property
    def wer(self) -> Interval:
        """Word error rate of the sentences that it says."""
        return error_rate([one for result in self.results for one in result["spoken"]])

    @cached_property
    def similarity(self) -> Interval:
        """Similarity of the sentences that it says to the references."""
        return statistics.mean([one["similarity"] for result in self.results for one in result["spoken"]])


def error_rate(spoken: Sequence[dict[str, Any]]) -> Interval:
    """Word error rate of some sentences."""
    return statistics.error_rate([one["errors"] for one in spoken], [one["words"] for one in spoken])


def collect(results: Sequence[dict[str, Any]]) -> list[Point]:
    """The points of a grid, sorted by parameters and then by hours."""
    places = dict.fromkeys((result["size"], result["hours"]) for result in results)
    points = [
        Point(size, hours, [r for r in results if (r["size"], r["hours"]) == (size, hours)]) for size, hours in places
    ]
    return sorted(points, key=lambda point: (point.parameters, point.hours))


@dataclass(frozen=True)
class Step:
    """The change of the loss from a point to the next larger size, or to the next number of hours."""

    start: Point
    end: Point
    difference: Interval


def steps(points: Sequence[Point]) -> list[Step]:
    """All steps of the grid, along both axes, with differences over the same utterances."""
    sizes = list(dict.fromkeys(point.size for point in points))
    hours = sorted({point.hours for point in points})
    by_place = {(sizes.index(point.size), hours.index(point.hours)): point for point in points}
    found = []
    for (i, j), start in by_place.items():
        for end in (by_place.get((i + 1, j)), by_place.get((i, j + 1))):
            if end:
                difference = statistics.error_rate_difference(end.nats, start.nats, start.seconds)
                found.append(Step(start, end, difference))
    return found


@dataclass(frozen=True)
class Power:
    """An exponent, with its interval by utterances and its interval by the scatter of the cells about the fit."""

    by_utterances: Interval
    by_scatter: Interval

    @property
    def value(self) -> float:
        return self.by_utterances.value

    @property
    def halving(self) -> float:
        """The share by which a doubling lowers the loss."""
        return 1 - 2**-self.value


@dataclass(frozen=True, eq=False)
class Fit:
    """L = exp(constant) / (parameters ** of_parameters * hours ** of_hours).

    Attributes:
        worst: the largest distance of a point from the law, as a share of the loss.
    """

    constant: float
    of_parameters: Power
    of_hours: Power
    worst: float

    def loss(self, parameters: float | np.ndarray, hours: float | np.ndarray) -> np.ndarray:
        """Nats a second."""
        powers = self.of_parameters.value * np.log(parameters) + self.of_hours.value * np.log(hours)
        return np.exp(self.constant - powers)


def fit(points: Sequence[Point]) -> Fit:
    """The power law through the points, by least squares of the loss' logarithm."""
    from scipy.stats import t

    design = np.array([[1, -np.log(point.parameters), -np.log(point.hours)] for point in points])
    solve = np.linalg.pinv(design)
    nats, seconds = np.array([point.nats for point in points]), points[0].seconds
    losses = np.log(nats.sum(1) / seconds.sum())
    found = solve @ losses
    rest = losses - design @ found
    rng = np.random.default_rng(0)
    count = len(seconds)
    drawn = []
    for _ in range(20):
        weights = rng.multinomial(count, np.full(count, 1 / count), DRAWS // 20)
        drawn.append(solve @ np.log((nats @ weights.T) / (seconds @ weights.T)))
    low, high = np.quantile(np.concatenate(drawn, 1), [0.025, 0.975], axis=1)
    freedom = len(points) - 3
    reach = np.full(3, np.nan)
    if freedom > 0:
        reach = t.ppf(0.975, freedom) * np.sqrt(rest @ rest / freedom * np.diag(np.linalg.inv(design.T @ design)))
    of_parameters, of_hours = (
        Power(
            Interval(float(found[i]), float(low[i]), float(high[i])),
            Interval(float(found[i]), float(found[i] - reach[i]), float(found[i] + reach[i])),
        )
        for i in (1, 2)
    )
    return Fit(float(found[0]), of_parameters, of_hours, float(np.expm1(np.abs(rest).max())))


def findings(points: Sequence[Point], copies: Sequence[dict[str, Any]], epochs: float) -> list[str]:
    """The findings in sentences."""
    law, climbs = fit(points), steps(points)
    falls = [step for step in climbs if step.difference.value < 0]
    sure = [step for step in climbs if step.difference.high < 0]
    least = max(climbs, key=lambda step: step.difference.value)
    first, last = points[0], points[-1]
    results = [result for point in points for result in point.results]
    lines = [
        f"the loss falls in {len(falls)} of {len(climbs)} steps to the next size or number of hours, surely in "
        f"{len(sure)}; least from {least.start.label} to {least.end.label}: {_told(least.difference, 2)} nats a second",
        f"loss, nats a second of audio: {_told(first.loss, 1)} at {first.label}, {_told(last.loss, 1)} at {last.label}",
    ]
    for what, power in (("parameters", law.of_parameters), ("hours", law.of_hours)):
        lines.append(
            f"the loss falls with the power {power.value:.4f} of the {what} ({_range(power.by_utterances, 4)} by "
            f"utterances, {_range(power.by_scatter, 4)} by scatter): twice as many take {100 * power.halving:.1f} % off"
        )
    lines.append(f"the worst of {len(points)} points lies {100 * law.worst:.1f} % off that law")
    floor = error_rate(copies)
    lines.append(
        f"word error rate: {_told(first.wer.scaled(100), 0)} % at {first.label}, {_told(last.wer.scaled(100), 0)} % at "
        f"{last.label}, {_told(floor.scaled(100), 0)} % of the codec's own copies"
    )
    like = statistics.mean([one["similarity"] for one in copies])
    lines.append(
        f"similarity to the reference: {_told(first.similarity, 3)} at {first.label}, {_told(last.similarity, 3)} at "
        f"{last.label}, {_told(like, 3)} of the codec's own copies"
    )
    ended = sum(result["best"] == result["steps"] for result in results)
    lines.append(
        f"of {len(results)} trainings, {ended} were best at their end; the others count as they were at their best"
    )
    flops, tokens, seconds = (sum(result[key] for result in results) for key in ("flops", "tokens", "seconds"))
    machines = " and ".join(sorted({result["machine"] for result in results}))
    lines.append(
        f"compute: {tokens:,} tokens (passes over the speech of each cell: {epochs:g}), {flops:.3g} FLOPs, "
        f"{seconds / 3600:.2f} hours of training on {machines}"
    )
    return lines


def _told(interval: Interval, digits: int) -> str:
    return f"{interval.value:.{digits}f} ({_range(interval, digits)})"


def _range(interval: Interval, digits: int) -> str:
    return f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"

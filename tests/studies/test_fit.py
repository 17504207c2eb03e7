"""The power law and the steps of a grid, on losses that are known."""

from typing import Any

import numpy as np
import pytest

from llasa.studies.training.fit import collect, findings, fit, steps

SIZES = {"small": 1_000_000, "middle": 3_000_000, "large": 9_000_000}
HOURS = (1.0, 3.0, 9.0)


def results(noise: float = 0.0, seeds: int = 1, floor: float = 0.0) -> list[dict[str, Any]]:
    """A grid whose loss is 1000 / (N^0.08 H^0.05), each utterance with a difficulty of its own."""
    rng = np.random.default_rng(0)
    seconds, hard = rng.uniform(2, 8, 50), rng.normal(1, 0.1, 50)
    hard *= seconds.sum() / (hard * seconds).sum()
    found = []
    for seed in range(seeds):
        for size, parameters in SIZES.items():
            for hours in HOURS:
                loss = floor + 1000 * parameters**-0.08 * hours**-0.05 * np.exp(noise * rng.normal())
                said = [{"errors": 3, "words": 10, "similarity": 0.8, "seconds": 3.0}] * 2
                found.append(
                    {"size": size, "hours": hours, "seed": seed, "parameters": parameters, "spoken": said,
                     "nats": (loss * hard * seconds).tolist(), "audio": seconds.tolist(), "best": 9, "steps": 10,
                     "flops": 1e12, "tokens": 1000, "seconds": 60.0, "machine": "a machine"}
                )  # fmt: skip
    return found


def test_an_exact_law_is_found() -> None:
    law = fit(collect(results()))
    assert (law.of_parameters.value, law.of_hours.value) == (pytest.approx(0.08), pytest.approx(0.05))
    assert law.of_parameters.halving == pytest.approx(1 - 2**-0.08)
    assert law.worst == pytest.approx(0, abs=1e-9)
    assert law.loss(1e6, 1.0) == pytest.approx(1000 * 1e6**-0.08)
    # The difficulty of an utterance is the same in all cells, and takes nothing from what is known of the powers.
    for power in (law.of_parameters, law.of_hours):
        for interval in (power.by_utterances, power.by_scatter):
            assert interval.high - interval.low < 1e-6


def test_scatter_widens_the_interval_that_is_named_after_it() -> None:
    hits = 0
    noisy = results(noise=0.02)
    law = fit(collect(noisy))
    for power, true in ((law.of_parameters, 0.08), (law.of_hours, 0.05)):
        assert power.by_scatter.high - power.by_scatter.low > 10 * (power.by_utterances.high - power.by_utterances.low)
        hits += power.by_scatter.low < true < power.by_scatter.high
    assert hits == 2
    assert 0.005 < law.worst < 0.06


def test_seeds_are_averaged() -> None:
    points = collect(results(noise=0.02, seeds=3))
    assert len(points) == 9
    assert all(len(point.results) == 3 for point in points)
    first = np.mean([one["nats"] for one in points[0].results], axis=0)
    assert points[0].loss.value == pytest.approx(first.sum() / points[0].seconds.sum())
    assert points[0].wer.value == pytest.approx(0.3)


def test_steps_go_along_both_axes_and_know_which_way() -> None:
    points = collect(results())
    found = steps(points)
    assert len(found) == 12
    assert all(step.difference.high < 0 for step in found)
    swapped = results()
    swapped[0]["nats"], swapped[1]["nats"] = swapped[1]["nats"], swapped[0]["nats"]
    worse = [step for step in steps(collect(swapped)) if step.difference.low > 0]
    assert [(step.start.label, step.end.label) for step in worse] == [("small, 1 h", "small, 3 h")]
    said = findings(collect(swapped), swapped[0]["spoken"], 6)
    assert "falls in 11 of 12 steps to the next size or number of hours, surely in 11; least from small, 1 h" in said[0]


def test_four_points_carry_a_law_and_three_of_a_line_no_interval_by_scatter() -> None:
    four = [one for one in results(noise=0.01) if one["size"] != "large" and one["hours"] < 9]
    assert np.isfinite(fit(collect(four)).of_hours.by_scatter.high)
    three = fit(collect(four[:3]))
    assert np.isnan(three.of_hours.by_scatter.high)
    assert three.worst == pytest.approx(0, abs=1e-9)

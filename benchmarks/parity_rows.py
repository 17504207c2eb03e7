"""Defines what the parts of parity.py share: their options, and the lines that they return."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Options:
    """How to run a part: sizes, speech, and the reference code.

    Attributes:
        full: official sizes instead of small ones.
        speech: (N,) float32 at 16 kHz, a minute or more.
        reference: the folder into which the reference packages were installed, if there is one.
        scratch: a folder for checkpoints, removed afterwards.
    """

    full: bool
    speech: np.ndarray
    reference: Path | None
    scratch: Path


@dataclass(frozen=True)
class Row:
    """One line: what was computed, the reference, how much they differ, and the bar. Without a bar there is no verdict.

    Attributes:
        difference: the largest difference.
        equal: share from 0 to 1 of codes, tokens or tensors that are the same.
        bound: the largest difference allowed.
        all_equal: whether all must be the same.
        count: number of codes.
        ties: number of differing codes whose latents lay nearer to the edge between two levels than the rounding
            error, so that both results are right.
    """

    what: str
    against: str
    difference: float | None = None
    equal: float | None = None
    bound: float | None = None
    all_equal: bool = False
    count: int = 0
    ties: int = 0

    @property
    def passed(self) -> bool | None:
        """Whether the result meets its bar; None if it has none."""
        if self.bound is None and not self.all_equal:
            return None
        near = self.bound is None or (self.difference is not None and self.difference <= self.bound)
        differ = round((1 - (self.equal or 0)) * self.count) if self.count else self.equal != 1
        return near and (not self.all_equal or differ == self.ties)


def table(rows: list[Row]) -> str:
    """The lines as a Markdown table."""
    verdicts = {None: "", True: "pass", False: "**fail**"}
    lines = ["| what | against | largest difference | equal | asked | |", "|---|---|---|---|---|---|"]
    for row in rows:
        difference = "" if row.difference is None else f"{row.difference:.1e}"
        # Rounded down, so that one differing code in a million shows.
        equal = "" if row.equal is None else "100 %" if row.equal == 1 else f"{np.floor(row.equal * 1e6) / 1e4:g} %"
        equal += f", {row.ties} of {row.count} on an edge" if row.ties else ""
        asked = [] if row.bound is None else [f"at most {row.bound:g}"]
        asked += ["100 %"] if row.all_equal else []
        cells = [row.what, row.against, difference, equal, ", ".join(asked), verdicts[row.passed]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"

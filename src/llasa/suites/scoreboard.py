"""Puts the stored results of a suite together: for each part, every row's figures with their intervals.

A mean is over the items that a judge could hear, and says of how many. Rows are compared item by item, as the
strategies of `llasa study` are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llasa.measure.metrics import Usage, codebook_usage
from llasa.studies.inference.plots import Compared, Series, compare
from llasa.suites.judges import Judge
from llasa.suites.published import Published, published
from llasa.suites.table_rows import COPIES, RECORDINGS, Row

Results = Sequence[dict[str, Any]]
TOGETHER = "all texts"


@dataclass(frozen=True, eq=False)
class Part:
    """A table.

    Attributes:
        name, language: of its items.
        count: how many items it has.
        judges: those with something to say of it.
        series: its rows; their values are NaN where there is none.
        published: what papers report.
    """

    name: str
    language: str
    count: int
    judges: list[Judge]
    series: list[Series]
    published: list[Published]

    @property
    def base(self) -> Series:
        """The row that the others are compared with: the first that no person spoke; of recordings alone, they."""
        return next((one for one in self.series if one.strategy != RECORDINGS), self.series[0])

    def label(self, judge: Judge) -> str:
        return judge.label.replace("WER", "CER") if self.language == "zh" else judge.label

    def found(self, one: Series, judge: Judge) -> Compared:
        """A figure, and its difference to the base's."""
        return compare(one, self.base if one.strategy != RECORDINGS else one, judge.written)

    def heard(self, one: Series, judge: Judge) -> int:
        """Of how many items a judge has a figure."""
        return int(np.isfinite(one.values[judge.written]).sum())


def collect(suite: str, results: Results, judges: Sequence[Judge], together: bool = False) -> list[Part]:
    """All parts, in the order of their lists.

    Args:
        together: whether all items of a language are a part as well, before the others.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in sorted(results, key=lambda one: str(one["item"]["language"])) if together else ():
        groups.setdefault(f"{TOGETHER}, {one['item']['language']}", []).append(one)
    for one in results:
        groups.setdefault(one["item"]["part"], []).append(one)
    parts = []
    for name, own in groups.items():
        ids = list(dict.fromkeys(one["item"]["id"] for one in own))
        able = [judge for judge in judges if any(judge.written in one["figures"] for one in own)]
        rows = list(dict.fromkeys(one["row"]["name"] for one in own))
        series = [_series(row, ids, [one for one in own if one["row"]["name"] == row], able) for row in rows]
        language = own[0]["item"]["language"]
        parts.append(Part(name, language, len(ids), able, series, published(suite, name)))
    return parts


def _series(row: str, ids: Sequence[str], results: Results, judges: Sequence[Judge]) -> Series:
    places = {name: place for place, name in enumerate(ids)}
    values = {judge.written: np.full(len(ids), np.nan) for judge in judges}
    weights = {judge.written: np.ones(len(ids)) for judge in judges}
    for one in results:
        place = places[one["item"]["id"]]
        for judge in judges:
            if found := one["figures"].get(judge.written):
                values[judge.written][place], weights[judge.written][place] = found
    facts = [one["facts"] for one in results if one["facts"]]
    tokens, seconds = ([each[key] for each in facts] or [0.0] for key in ("tokens", "seconds"))
    return Series(row, 0, float(np.mean(tokens)), float(np.mean(seconds)), values, weights)


def problems(results: Results) -> list[tuple[str, str, str]]:
    """What went wrong or should be known: the row, the item, and what it was."""
    found = []
    for one in results:
        for judge, problem in one["problems"].items():
            found.append((one["row"]["name"], one["item"]["id"], f"{judge}: {problem}"))
        for note in one["facts"].get("notes", ()):
            found.append((one["row"]["name"], one["item"]["id"], note))
    return found


def codes_used(results: Results) -> Usage | None:
    """How much of a codebook the copies of all recordings use; None if nothing was copied."""
    copied = [one["facts"] for one in results if one["facts"].get("codes")]
    return codebook_usage([np.asarray(one["codes"]) for one in copied], copied[0]["codebook"]) if copied else None


def findings(parts: Sequence[Part], rows: Sequence[Row]) -> list[str]:
    """Each part's base row in a sentence, and where a search is surely better or worse."""
    lines = []
    for part in parts:
        told = ", ".join(f"{part.label(judge)} {shown(part, part.base, judge)}" for judge in part.judges)
        what = part.base.strategy if part.base.strategy != COPIES else "copies"
        lines.append(f"{part.name}, {what}: {told or 'no judge could hear anything'}")
        for one in part.series:
            if one.strategy in (RECORDINGS, part.base.strategy):
                continue
            sure = [(judge, found) for judge in part.judges if (found := part.found(one, judge)).sure]
            words = [
                f"{part.label(judge)} {'better' if (found.difference.value < 0) == judge.less else 'worse'} by "
                f"{abs(found.difference.value) * judge.factor:.{judge.digits}f}"
                for judge, found in sure
            ]
            lines.append(f"{part.name}, {one.strategy}, against one sample: {', '.join(words) or 'no sure difference'}")
    return lines


def shown(part: Part, one: Series, judge: Judge) -> str:
    """A figure with its interval, and of how many items it is the mean if not of all."""
    found, count = part.found(one, judge).value, part.heard(one, judge)
    if not count:
        return "none"
    unit = " %" if judge.factor == 100 else ""
    low, high = (f"{bound * judge.factor:.{judge.digits}f}" for bound in (found.low, found.high))
    of = f", {count} of {part.count}" if count < part.count else ""
    return f"{found.value * judge.factor:.{judge.digits}f}{unit} ({low} to {high}{of})"

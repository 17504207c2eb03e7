"""Writes a study's files: a table of every sentence, a table of all together, a plot, and a page with sounds.

The figures come from `plots.py`. The page contains its picture and sounds.
"""

import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from llasa.measure import tables
from llasa.measure.independent import Figure
from llasa.measure.tables import write_picture, write_text
from llasa.studies.inference.plots import Series, collect, compare, findings, over_optimised, pairs
from llasa.studies.inference.sweep import BEST_OF, MATCHED, STORED, SweepJob, SweepSettings
from llasa.studies.storage import read

HEARD = 3  # sentences on the page


def write_report(settings: SweepSettings, jobs: Sequence[SweepJob], folder: Path) -> list[str]:
    """Writes results.csv, summary.csv, plot.png and report.html, and returns the findings, a line each.

    Raises:
        LlasaError: a stored result is damaged, or a file cannot be written.
    """
    items = [read(folder / STORED / f"{job.number:04d}.json") for job in jobs]
    kept = [item for item in items if "left_out" not in item]
    write_text(folder / "results.csv", _results(settings, kept))
    lines = [f"left out sentence {item['number']}: {item['left_out']}" for item in items if "left_out" in item]
    if not kept:
        return [*lines, "there is nothing to compare: every sentence was left out"]
    series = collect(settings, kept)
    write_text(folder / "summary.csv", _summary(settings, series))
    lines = [*findings(settings, series), *lines]
    draw(folder / "plot.png", settings, series)
    write_text(folder / "report.html", page(settings, kept, series, lines, folder))
    return lines


def draw(path: Path, settings: SweepSettings, series: Sequence[Series]) -> None:
    """Draws every figure as a row of two panels, against tokens and against seconds, with 95 % intervals.

    Raises:
        LlasaError: it cannot be written.
    """
    # The object-oriented way: pyplot would keep the figure and choose a window system.
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import ScalarFormatter

    keys = list(settings.figures)
    canvas = Canvas(figsize=(11, 2.5 * len(keys)), layout="constrained")
    axes = canvas.subplots(len(keys), 2, squeeze=False, sharex="col", sharey="row")
    best_of = [one for one in series if one.strategy == BEST_OF]
    others = [one for one in series if one.strategy != BEST_OF and not one.strategy.startswith(MATCHED)]
    for line, key in zip(axes, keys, strict=True):
        figure = settings.figures[key]
        turn = over_optimised(best_of, key, figure) if key != "score" else None
        for axis, unit in zip(line, ("tokens", "seconds"), strict=True):
            curve = [one for one in best_of if np.isfinite(getattr(one, unit))]
            cost = [getattr(one, unit) for one in curve]
            found = [compare(one, one, key).value for one in curve]
            axis.fill_between(cost, [i.low for i in found], [i.high for i in found], color="C0", alpha=0.15, lw=0)
            axis.plot(cost, [i.value for i in found], "o-", color="C0", ms=4, label="best of n")
            for one, x, i in zip(curve, cost, found, strict=True):
                axis.annotate(str(one.n), (x, i.value), (0, 5), textcoords="offset points", ha="center", fontsize=7)
                if turn and one.n == turn[1]:
                    axis.axvline(x, color="C3", ls=":", label="over-optimised")
            for place, one in enumerate(others, 1):
                i = compare(one, one, key).value
                reach = [[max(0.0, i.value - i.low)], [max(0.0, i.high - i.value)]]
                axis.errorbar([getattr(one, unit)], [i.value], reach, fmt="s", color=f"C{place}", ms=5, label=one.label)
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter(ScalarFormatter())
            axis.grid(alpha=0.25)
        better = "less is better" if figure.less else "more is better"
        line[0].set_title(
            f"{figure.name}{f' ({figure.unit})' if figure.unit else ''}; {better}", fontsize=9, loc="left"
        )
    axes[-1][0].set_xlabel("tokens a sentence")
    axes[-1][1].set_xlabel("seconds a sentence")
    axes[0][1].legend(fontsize=8, loc="best")
    write_picture(path, canvas)


def page(
    settings: SweepSettings,
    items: Sequence[dict[str, Any]],
    series: Sequence[Series],
    lines: Sequence[str],
    folder: Path,
) -> str:
    """report.html, with the plot and some sounds in it."""
    said = "".join(f"<li>{escape(line)}</li>" for line in lines)
    facts = (
        f"{settings.model}, {len(items)} sentences, chosen by {settings.verify}, measured by "
        f"{', '.join(settings.listeners)}; intervals of 95 %, paired with one sample's; seconds are of one thread"
    )
    return tables.page(
        f"Compute at inference: {settings.verify}",
        f'<p class="dim">{escape(facts)}</p>\n<ul>{said}</ul>\n'
        f"{tables.picture(folder / 'plot.png', 'Every figure against tokens and seconds')}\n"
        f"<h2>Figures</h2>\n{_table(settings, series)}\n<h2>To listen to</h2>\n"
        '<p class="dim">The sentences whose scores rose least, by the median, and most, from one sample to the best '
        f"of {settings.most}.</p>\n{_sounds(items, folder)}",
    )


def _table(settings: SweepSettings, series: Sequence[Series]) -> str:
    head = "".join(f"<th>{escape(figure.name)}</th>" for figure in settings.figures.values())
    rows = [f"<tr><th></th><th>tokens</th><th>seconds</th>{head}</tr>"]
    for one in series:
        cells = "".join(_cell(one, series[0], key, figure) for key, figure in settings.figures.items())
        seconds = "" if np.isnan(one.seconds) else f"{one.seconds:.1f}"
        rows.append(f"<tr><td>{escape(one.label)}</td><td>{one.tokens:.0f}</td><td>{seconds}</td>{cells}</tr>")
    return tables.wide(rows)


def _cell(one: Series, first: Series, key: str, figure: Figure) -> str:
    found = compare(one, first, key)
    cell = f"{found.value.value:.3f}"
    if one is not first:
        low, high = found.difference.low, found.difference.high
        cell += f"<small>{found.difference.value:+.3f}<br>{low:+.3f} to {high:+.3f}<br>p {found.p:.2g}</small>"
    return f"<td>{cell}</td>"


def _sounds(items: Sequence[dict[str, Any]], folder: Path) -> str:
    def named(item: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """One sample, the best of the most, and every other strategy."""
        best_of = [take for take in item["takes"] if take["strategy"] == BEST_OF]
        others = {
            take["strategy"]: take
            for take in item["takes"]
            if take["strategy"] != BEST_OF and not take["strategy"].startswith(MATCHED)
        }
        return {"one sample": best_of[0], f"best of {best_of[-1]['n']}": best_of[-1]} | others

    def gain(item: dict[str, Any]) -> float:
        one, best, *_ = named(item).values()
        return float(best["figures"]["score"][0] - one["figures"]["score"][0])

    ordered = sorted(items, key=gain)
    places = sorted({round(k * (len(ordered) - 1) / (HEARD - 1)) for k in range(HEARD)})
    parts = []
    for item in (ordered[place] for place in places):
        rows = []
        for name, take in named(item).items():
            audio = tables.player(folder / STORED / take["wav"])
            rows.append(f"<tr><td>{escape(name)}</td><td>{take['figures']['score'][0]:.3f}</td><td>{audio}</td></tr>")
        parts.append(f"<p>{item['number']}: {escape(item['text'])}</p>\n<table>{''.join(rows)}</table>")
    return "\n".join(parts)


def _results(settings: SweepSettings, items: Sequence[dict[str, Any]]) -> str:
    """A row per sentence, strategy and n. Word errors come with the number of words."""
    verifiers = list(dict.fromkeys(name for item in items for take in item["takes"] for name in take["scores"]))
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    words = ["words"] if "pocketsphinx" in settings.figures else []
    writer.writerow(
        ["sentence", "voice", "strategy", "n", "tokens", "seconds", "seconds_of_audio", "condemned",
         *(f"verifier_{name}" for name in verifiers), *settings.figures, *words]
    )  # fmt: skip
    for item in items:
        for take in item["takes"]:
            figures = [f"{take['figures'][key][0]:.6g}" for key in settings.figures]
            scores = [f"{take['scores'][name]:.6g}" if name in take["scores"] else "" for name in verifiers]
            seconds = "" if take["seconds"] is None else f"{take['seconds']:.3f}"
            total = [take["figures"]["pocketsphinx"][1]] if words else []
            writer.writerow(
                [item["number"], item["voice"] or "", take["strategy"], take["n"], take["tokens"], seconds,
                 f"{take['seconds_of_audio']:.3f}", take["condemned"] or "", *scores, *figures, *total]
            )  # fmt: skip
    return buffer.getvalue()


def _summary(settings: SweepSettings, series: Sequence[Series]) -> str:
    """A row per strategy, n, figure and what it is compared with: one sample, or best-of-n at the same tokens."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(
        ["strategy", "n", "figure", "sentences", "tokens", "seconds", "value", "low", "high", "against", "difference",
         "difference_low", "difference_high", "p"]
    )  # fmt: skip
    against = [(one, series[0], "best of 1") for one in series]
    against += [(one, matched, matched.strategy) for one, matched in pairs(series)]
    for one, other, name in against:
        for key in settings.figures:
            found = compare(one, other, key)
            count = int((np.isfinite(one.values[key]) & np.isfinite(other.values[key])).sum())
            intervals = [found.value, found.difference]
            (value, low, high), (gain, least, most) = (
                [f"{x:.6g}" for x in (i.value, i.low, i.high)] for i in intervals
            )
            seconds = "" if np.isnan(one.seconds) else f"{one.seconds:.3f}"
            writer.writerow(
                [one.strategy, one.n or "", key, count, f"{one.tokens:.1f}", seconds, value, low, high, name,
                 gain, least, most, f"{found.p:.4g}"]
            )  # fmt: skip
    return buffer.getvalue()

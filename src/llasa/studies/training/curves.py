"""Writes the files of a study of training: a table of its cells, a table of the fit, a plot, and a page.

The figures come from `fit.py`. The page contains its picture and sounds.
"""

import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from llasa.files import exists
from llasa.measure import statistics, tables
from llasa.measure.statistics import Interval
from llasa.measure.tables import write_picture, write_text
from llasa.studies.storage import read
from llasa.studies.training.cell import KEPT
from llasa.studies.training.fit import NOTHING, Fit, Point, Power, collect, error_rate, findings, fit, steps
from llasa.studies.training.grid import CELLS, COPIES, GridSettings, Run, read_results

Results = Sequence[dict[str, Any]]


def write_report(settings: GridSettings, runs: Sequence[Run]) -> list[str]:
    """Writes results.csv, summary.csv, plot.png and report.html, and returns the findings, a line each.

    Raises:
        LlasaError: a stored result is damaged, or a file cannot be written.
    """
    folder = Path(settings.out)
    results, copies = read_results(settings, runs), read(folder / COPIES)
    points = collect(results)
    law = fit(points)
    write_text(folder / "results.csv", _results(results))
    write_text(folder / "summary.csv", _summary(points, law, copies["spoken"]))
    lines = findings(points, copies["spoken"], settings.epochs)
    draw(folder / "plot.png", points, law, copies["spoken"])
    write_text(folder / "report.html", page(settings, results, points, lines, copies["texts"]))
    return lines


def draw(path: Path, points: Sequence[Point], law: Fit, copies: Results) -> None:
    """Draws the loss against parameters and against hours, with the fit, and words and similarity against hours.

    Bars are 95 % intervals by utterances. All points share the utterances, so differences are more certain than the
    bars suggest.

    Raises:
        LlasaError: it cannot be written.
    """
    # The object-oriented way: pyplot would keep the figure and choose a window system.
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    sizes = list(dict.fromkeys(point.size for point in points))
    hours = sorted({point.hours for point in points})
    canvas = Figure(figsize=(11, 8), layout="constrained")
    ((by_size, by_hours), (words, likeness)) = canvas.subplots(2, 2)
    for place, amount in enumerate(hours):
        row = [point for point in points if point.hours == amount]
        x = np.array([point.parameters for point in row], float)
        _curve(by_size, x, [point.loss for point in row], f"C{place + 5}", f"{amount:g} h")
        by_size.plot(x, law.loss(x, amount), ":", color=f"C{place + 5}", lw=1)
    for place, size in enumerate(sizes):
        row = [point for point in points if point.size == size]
        x = np.array([point.hours for point in row])
        label = f"{size}, {row[0].parameters / 1e6:.3g} M parameters"
        _curve(by_hours, x, [point.loss for point in row], f"C{place}", label)
        by_hours.plot(x, law.loss(row[0].parameters, x), ":", color=f"C{place}", lw=1)
        _curve(words, x, [point.wer.scaled(100) for point in row], f"C{place}", label)
        _curve(likeness, x, [point.similarity for point in row], f"C{place}", label)
    for axis in (by_size, by_hours):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        axis.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        axis.set_ylabel("nats a second of audio")
    copied = [error_rate(copies).scaled(100), statistics.mean([one["similarity"] for one in copies])]
    for axis, found in zip((words, likeness), copied, strict=True):
        axis.axhline(found.value, color="grey", ls="--", lw=1, label="the codec's own copies")
    words.set_ylabel("%")
    by_size.set_title("loss on held-out speech; dotted: the power law", fontsize=9, loc="left")
    by_hours.set_title("the same, against hours", fontsize=9, loc="left")
    words.set_title("word error rate, PocketSphinx; less is better", fontsize=9, loc="left")
    likeness.set_title("similarity to the reference, Resemblyzer; more is better", fontsize=9, loc="left")
    counts = sorted({point.parameters for point in points})
    for axis in (by_size, by_hours, words, likeness):
        axis.set_xscale("log")
        if axis is by_size:
            axis.set_xticks(counts, [f"{n / 1e6:.3g} M" for n in counts])
        else:
            axis.set_xticks(hours, [f"{amount:g}" for amount in hours])
        axis.set_xlabel("parameters" if axis is by_size else "hours of speech")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8)
    write_picture(path, canvas)


def _curve(axis: Any, x: np.ndarray, found: Sequence[Interval], colour: str, label: str) -> None:
    reach = [[max(0.0, i.value - i.low) for i in found], [max(0.0, i.high - i.value) for i in found]]
    axis.errorbar(x, [i.value for i in found], reach, fmt="o-", color=colour, ms=4, lw=1.2, capsize=2, label=label)


def page(
    settings: GridSettings, results: Results, points: Sequence[Point], lines: Sequence[str], texts: Sequence[str]
) -> str:
    """The text of report.html, with the plot and some sounds in it."""
    folder = Path(settings.out)
    said = "".join(f"<li>{escape(line)}</li>" for line in lines)
    facts = (
        f"{len(points[0].seconds)} held-out utterances for the loss, {len(results[0]['spoken'])} said by each model, "
        f"passes over each amount: {settings.epochs:g}, seeds {', '.join(map(str, settings.seeds))}; "
        "95 % intervals over utterances, which do not cover the training with another seed"
    )
    return tables.page(
        f"Compute at training: {len(settings.sizes)} sizes, {len(set(settings.hours))} amounts of speech",
        f'<p class="dim">{escape(facts)}</p>\n<ul>{said}</ul>\n'
        f"{tables.picture(folder / 'plot.png', 'Loss, word errors and similarity')}\n"
        f"<h2>Figures</h2>\n{_table(points)}\n<h2>Compute</h2>\n{_compute(results)}\n"
        f"<h2>To listen to</h2>\n{_sounds(settings, results, points, texts)}",
    )


def _table(points: Sequence[Point]) -> str:
    rows = ["<tr><th></th><th>parameters</th><th>nats a second</th><th>word error rate</th><th>similarity</th></tr>"]
    for point in points:
        cells = [_cell(point.loss, 2), _cell(point.wer.scaled(100), 1, " %"), _cell(point.similarity, 3)]
        rows.append(f"<tr><td>{escape(point.label)}</td><td>{point.parameters:,}</td>{''.join(cells)}</tr>")
    return tables.wide(rows)


def _cell(found: Interval, digits: int, unit: str = "") -> str:
    low, high = f"{found.low:.{digits}f}", f"{found.high:.{digits}f}"
    return f"<td>{found.value:.{digits}f}{unit}<small>{low} to {high}</small></td>"


def _compute(results: Results) -> str:
    head = ("", "tokens", "steps", "best at", "FLOPs", "seconds", "machine")
    rows = [f"<tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>"]
    for one in results:
        cells = (
            one["name"], f"{one['tokens']:,}", f"{one['steps']:,}", f"{one['best']:,}", f"{one['flops']:.3g}",
            f"{one['seconds']:.0f}", one["machine"],
        )  # fmt: skip
        rows.append(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>")
    note = (
        '<p class="dim">FLOPs are six a token for each weight of a matrix product, plus those of attention, forward '
        "and backward. Seconds are of training alone, as it ran; a machine with other work to do needs more.</p>"
    )
    return f"{tables.wide(rows)}\n{note}"


def _sounds(settings: GridSettings, results: Results, points: Sequence[Point], texts: Sequence[str]) -> str:
    """What the smallest, a middle and the largest cell say, beside the codec's copy."""
    folder = Path(settings.out)
    names = {}
    for point in (points[0], points[len(points) // 2], points[-1]):
        names[point.label] = folder / CELLS / point.results[0]["name"]
    parts = []
    for number, text in enumerate(texts[:KEPT]):
        places = {"the codec's copy": folder / f"copy-{number}.wav"}
        places |= {label: place / f"{number}.wav" for label, place in names.items()}
        rows = []
        for label, place in places.items():
            audio = tables.player(place) if exists(place) else "silence"
            rows.append(f"<tr><td>{escape(label)}</td><td>{audio}</td></tr>")
        parts.append(f"<p>{escape(text)}</p>\n<table>{''.join(rows)}</table>")
    return "\n".join(parts)


def _results(results: Results) -> str:
    """A row per cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    facts = [
        "size",
        "hours",
        "seed",
        "parameters",
        "embeddings",
        "steps",
        "tokens",
        "flops",
        "seconds",
        "machine",
        "best",
    ]
    figures = ["nats_per_second", "word_error_rate", "similarity"]
    writer.writerow([*facts, *(f"{name}{end}" for name in figures for end in ("", "_low", "_high"))])
    for one in results:
        alone = Point(one["size"], one["hours"], [one])
        shown = {"hours": f"{one['hours']:g}", "flops": f"{one['flops']:.4g}", "seconds": f"{one['seconds']:.1f}"}
        found = [f"{x:.6g}" for i in (alone.loss, alone.wer, alone.similarity) for x in (i.value, i.low, i.high)]
        writer.writerow([*((one | shown)[name] for name in facts), *found])
    return buffer.getvalue()


def _summary(points: Sequence[Point], law: Fit, copies: Results) -> str:
    """The powers, every step of the grid, and the codec's copies."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["what", "value", "low", "high", "scatter_low", "scatter_high"])

    def row(what: str, found: Interval, scatter: Interval = NOTHING) -> None:
        ends = (found.value, found.low, found.high, scatter.low, scatter.high)
        writer.writerow([what, *("" if np.isnan(x) else f"{x:.6g}" for x in ends)])

    powers: dict[str, Power] = {"parameters": law.of_parameters, "hours": law.of_hours}
    for name, power in powers.items():
        row(f"power of {name}", power.by_utterances, power.by_scatter)
    row("constant", Interval(float(np.exp(law.constant)), float("nan"), float("nan")))
    row("worst distance from the law", Interval(law.worst, float("nan"), float("nan")))
    for step in steps(points):
        row(f"nats a second: {step.start.label} to {step.end.label}", step.difference)
    row("word error rate of the codec's copies", error_rate(copies))
    row("similarity of the codec's copies", statistics.mean([one["similarity"] for one in copies]))
    return buffer.getvalue()

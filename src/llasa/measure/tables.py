"""Writes results for people: Markdown tables of figures with their intervals, pages with sounds, pictures.

Files appear whole or not at all.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llasa.errors import LlasaError, reason
from llasa.files import whole
from llasa.measure.metrics import log_mel
from llasa.measure.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The style of a study's page, which is a single file.
STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #687076; --paper: #fff; --line: #dfe3e6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --dim: #9aa4ad; --paper: #16191c; --line: #343a40; } }
body { margin: 0 auto; max-width: 66rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9em; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
small { display: block; white-space: nowrap; }
th { font-weight: 600; min-width: 7rem; }
small, .dim { color: var(--dim); }
img { width: 100%; border-radius: 8px; }
audio { height: 2.2rem; width: 14rem; }
"""


@dataclass(frozen=True)
class Row:
    """One line of a table: what was measured, the figure as text, and the bar that it must meet, if any."""

    what: str
    figure: str
    bar: str = ""
    passed: bool | None = None


@dataclass
class Part:
    """The results of one part of a measurement: rows of the table, figures of every utterance, sounds to draw."""

    rows: list[Row]
    items: list[dict[str, Any]]
    pictures: list[tuple[str, list[tuple[str, np.ndarray]]]] = field(default_factory=list)


def show(interval: Interval, digits: int = 2, unit: str = "") -> str:
    """A figure with its interval: "17.3 % (14.0 to 20.9)"."""
    value, low, high = (f"{figure:.{digits}f}" for figure in (interval.value, interval.low, interval.high))
    return f"{value}{unit} ({low} to {high})"


def percent(interval: Interval) -> str:
    """A share from 0 to 1 as a percentage with its interval."""
    return show(interval.scaled(100), 1, " %")


def points(interval: Interval) -> str:
    """A difference of shares in percentage points with its interval."""
    return show(interval.scaled(100), 1, " points")


def table(rows: Sequence[Row], before: Mapping[str, str] | None = None) -> str:
    """A Markdown table. The last column says whether the figure itself (not its interval) meets its bar.

    Args:
        before: earlier figures by the names of rows; if there are any they get a column.
    """
    lines = ["| what | measured (95 % interval) | bar | |", "|---|---|---|---|"]
    verdicts = {None: "", True: "pass", False: "**fail**"}
    lines += [f"| {row.what} | {row.figure} | {row.bar} | {verdicts[row.passed]} |" for row in rows]
    if before:
        columns = [" before ", "---", *(f" {before.get(row.what, '')} " for row in rows)]
        lines = [f"{line}{column}|" for line, column in zip(lines, columns, strict=True)]
    return "\n".join(lines) + "\n"


def page(title: str, body: str, style: str = "") -> str:
    """A page of HTML in one file, for which `body` is what stands below the title."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f"{body}\n</body>\n</html>\n"
    )


def wide(rows: Sequence[str]) -> str:
    """Rows of HTML as a table that scrolls where it is too wide."""
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def player(sound: Path | bytes) -> str:
    """A WAV file, or what one holds, inside a page, with the means to play it.

    Raises:
        LlasaError: it cannot be read.
    """
    return f'<audio controls preload="none" src="data:audio/wav;base64,{_encoded(sound)}"></audio>'


def picture(path: Path, told: str) -> str:
    """A PNG file inside a page, and in words what it shows.

    Raises:
        LlasaError: it cannot be read.
    """
    return f'<img alt="{escape(told)}" src="data:image/png;base64,{_encoded(path)}">'


def _encoded(file: Path | bytes) -> str:
    try:
        return base64.b64encode(file.read_bytes() if isinstance(file, Path) else file).decode()
    except OSError as error:
        raise LlasaError(f"cannot read {file!s}: {reason(error)}") from error


def write_text(path: Path, content: str) -> None:
    """Writes a text file whole or not at all.

    Raises:
        LlasaError: it cannot be written.
    """
    with whole(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(content, encoding="utf-8")


def draw_spectrograms(path: Path, rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]]) -> None:
    """Draws log-mel spectrograms as a PNG: a row for each sentence, its renderings side by side on one time axis.

    Args:
        path: the .png to write.
        rows: (sentence, [(name, samples at 16 kHz), ...]), each row with the same names.

    Raises:
        LlasaError: it cannot be written.
    """
    # The object-oriented way: pyplot would keep the figure and choose a window system.
    from matplotlib.figure import Figure

    columns = len(rows[0][1])
    figure = Figure(figsize=(5.5 * columns, 2.3 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (sentence, renderings) in zip(axes, rows, strict=True):
        longest = max(samples.size for _, samples in renderings) / 16000
        for axis, (name, samples) in zip(line, renderings, strict=True):
            seconds = samples.size / 16000
            # From the floor of `log_mel` to the loudest hundredth of speech at the corpus' level.
            axis.imshow(
                log_mel(samples), origin="lower", aspect="auto", cmap="magma",
                vmin=-9.2, vmax=-0.5, extent=(0, seconds, 0, 80),
            )  # fmt: skip
            axis.set(xlim=(0, longest), xlabel="s", yticks=[], facecolor="black")
            shown = sentence if len(sentence) <= 60 else sentence[:57] + "..."
            axis.set_title(f"{name}: {shown}", fontsize=8, loc="left", parse_math=False)
    write_picture(path, figure, 80)


def write_picture(path: Path, figure: "Figure", dpi: int = 100) -> None:
    """Writes a matplotlib figure as a PNG, whole or not at all.

    Raises:
        LlasaError: it cannot be written.
    """
    with whole(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, format="png", dpi=dpi)

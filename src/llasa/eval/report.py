"""Results as people read them: Markdown tables of figures with their intervals, and pictures of spectrograms.

Knows figures and how to write them down; knows nothing of how they were measured. Files appear whole or not at all.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llasa.errors import LlasaError
from llasa.eval.metrics import log_mel
from llasa.eval.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Row:
    """One line of a table: what was measured, the figure as text, and the bar it was held to, if any."""

    what: str
    figure: str
    bar: str = ""
    passed: bool | None = None


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


def table(rows: Sequence[Row]) -> str:
    """A Markdown table; the last column says whether the figure itself (not its interval) meets its bar."""
    lines = ["| what | measured (95 % interval) | bar | |", "|---|---|---|---|"]
    verdicts = {None: "", True: "pass", False: "**fail**"}
    lines += [f"| {row.what} | {row.figure} | {row.bar} | {verdicts[row.passed]} |" for row in rows]
    return "\n".join(lines) + "\n"


def write_text(path: Path, content: str) -> None:
    """Writes a text file whole or not at all.

    Raises:
        LlasaError: it cannot be written.
    """
    with _whole(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def draw_spectrograms(path: Path, rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]]) -> None:
    """Draws log-mel spectrograms as a PNG: one row a sentence, its renderings side by side on one time axis.

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
    with _whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, which becomes `path` once written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise LlasaError(f"cannot write {path}: {error.strerror}") from error
    finally:
        # Gone already if all went well; never there if the folder is none.
        with suppress(OSError):
            temporary.unlink()

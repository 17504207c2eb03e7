"""What the verbs share: options, the bar on standard error, and what goes where.

Standard output is for audio and for what was asked to be listed; everything else goes to standard error. Nothing heavy
is imported here, so that `llasa --help` is quick.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Protocol

import typer

from llasa.errors import LlasaError, reason

Model = Annotated[
    str, typer.Option("--model", "-m", metavar="NAME", help="[bold]tiny[/], a model's folder, or a hub id.")
]
Device = Annotated[
    str | None, typer.Option(help="[bold]cpu[/], [bold]cuda[/], [bold]mps[/]; by default a GPU if CUDA finds one.")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE",
        help="Of the language model's weights: [bold]bfloat16[/], [bold]float16[/] or [bold]float32[/]; by default the "
        "fastest that the device computes well.",
    ),
]
DeviceMap = Annotated[
    str | None,
    typer.Option("--device-map", metavar="auto", help="[bold]auto[/] spreads a model larger than one GPU over all."),
]


class Advance(Protocol):
    """Moves the bar: how much is done and how much there is, in any unit, and the seconds of audio behind it."""

    def __call__(self, done: float, total: float, seconds: float, /) -> None: ...


@contextmanager
def bar(label: str) -> Iterator[Advance]:
    """A progress bar on standard error with the real-time factor, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=None, facts="")
        began = time.perf_counter()

        def advance(done: float, total: float, seconds: float) -> None:
            factor = (time.perf_counter() - began) / max(seconds, 1e-9)
            facts = f"{seconds:.1f} s of audio, real-time factor {factor:.2f}" if seconds else ""
            progress.update(task, completed=done, total=total, facts=facts)

        yield advance


@contextmanager
def waiting(label: str) -> Iterator[None]:
    """A spinner on standard error, if that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(label):
        yield


def tell(message: str) -> None:
    """One line on standard error."""
    print(message, file=sys.stderr)


def check_writable(path: Path) -> None:
    """Makes sure that a file can be written, before any work goes into it.

    Raises:
        LlasaError: the folder does not exist or cannot be written to, or the path is a folder.
    """
    import tempfile

    if path.is_dir():
        raise LlasaError(f"cannot write {path}: it is a folder")
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".llasa"):
            pass
    except OSError as error:
        raise LlasaError(f"cannot write {path}: {reason(error)}") from error

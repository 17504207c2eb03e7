"""What the verbs share: options, the progress bar, messages.

Standard output is for audio and for lists that the user asked for; everything else goes to standard error. No heavy
package is imported here, so that `llasa --help` is fast.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Protocol

import typer

from llasa.errors import LlasaError, printable, reason
from llasa.ffmpeg import SUFFIXES
from llasa.files import is_file

if TYPE_CHECKING:
    import numpy as np

    Reference = tuple[np.ndarray, str | None]  # samples (N,), 16 kHz, and their words, or None to recognise them

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
        help="Precision of the language model: [bold]bfloat16[/], [bold]float16[/], [bold]float32[/]; on a CPU also "
        "[bold]int8[/] and [bold]int4[/]. By default the fastest of the first three; with llama.cpp int8.",
    ),
]
DeviceMap = Annotated[
    str | None,
    typer.Option("--device-map", metavar="auto", help="[bold]auto[/] spreads a large model over all GPUs."),
]
Backend = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What computes the language model: [bold]torch[/], [bold]llamacpp[/] on the CPU, or [bold]vllm[/].",
    ),
]


class Advance(Protocol):
    """Moves the bar: the amount done and the total, in any unit, and the seconds of audio made."""

    def __call__(self, done: float, total: float, seconds: float, /) -> None: ...


@contextmanager
def bar(label: str) -> Iterator[Advance]:
    """A progress bar with the real-time factor on standard error, if that is a terminal."""
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


def read_reference(recording: Path, text: str | None) -> "Reference":
    """Reads a recording to clone from, and its words as the user gave them.

    Whatever shows without a model that it cannot be a reference is told here, before one is loaded.

    Raises:
        LlasaError: it cannot.
    """
    from llasa import audio
    from llasa.reference import READ, condition
    from llasa.voice import check_transcript

    samples = audio.load(recording, max_seconds=READ)
    condition(samples, 16000)
    return samples, None if text == "auto" else check_transcript(text)


def _is_recording(voice: str) -> bool:
    """Whether --voice names a recording to clone from, rather than a voice or a voice file."""
    path = Path(voice)
    if path.suffix.lower() == ".safetensors":
        return False
    return is_file(path) or os.sep in voice or path.suffix.lower() in SUFFIXES


def check_voice(voice: str | None, voice_text: str | None, model: str) -> "Reference | None":
    """Checks the options of a voice before the model is loaded, and reads the recording if there is one.

    Raises:
        LlasaError: there is no such voice, or the recording or its transcript cannot be used.
    """
    from llasa.models.hub import find_model
    from llasa.voice import list_voices, suggest

    known = list_voices(find_model(model))
    if voice is not None and voice not in known and _is_recording(voice):
        return read_reference(Path(voice), voice_text)
    if voice_text is not None:
        raise LlasaError("--voice-text is the transcript of a recording: pass the recording with --voice FILE")
    if voice is not None and voice not in known and Path(voice).suffix.lower() != ".safetensors":
        raise LlasaError(suggest(voice, known))
    return None


def tell(message: str) -> None:
    """Prints one line on standard error."""
    print(printable(message), file=sys.stderr)


def check_writable(path: Path) -> None:
    """Checks that a file can be written, before any work is done.

    Raises:
        LlasaError: the folder does not exist or cannot be written to, or the path is a folder or a read-only file.
    """
    from llasa.files import check_target

    check_target(path)


def check_stdout() -> None:
    """Refuses a standard output that the caller closed, before the model is loaded."""
    try:
        number = sys.stdout.fileno()
    except OSError:  # something in memory
        return
    try:
        os.write(number, b"")
    except OSError as error:
        raise LlasaError(f"cannot write to standard output ({reason(error)}): pass -o FILE") from error


def is_rewindable(stream: BinaryIO) -> bool:
    """Whether standard output is a new file, so that the WAV header can be completed at the end."""
    try:
        import fcntl

        appending = fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_APPEND
        return stream.seekable() and stream.tell() == 0 and not appending
    except (ImportError, OSError):  # not a Unix; not a real file
        return False

"""`llasa transcribe`: recordings to text, JSON or subtitles, single files or whole folders."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llasa.commands.codes import Force, make_each, pairs
from llasa.commands.common import Backend, Device, DeviceMap, Dtype, Model, bar, check_stdout, waiting
from llasa.errors import LlasaError
from llasa.ffmpeg import SUFFIXES as RECORDINGS
from llasa.files import is_folder, whole

if TYPE_CHECKING:
    from llasa.listen.listener import Listener


def transcribe(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="IN...", help="Recordings, or folders with recordings in them.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file for one recording, else a folder.")
    ] = None,
    format: Annotated[
        str, typer.Option(metavar="FORMAT", help="[bold]text[/], [bold]json[/], [bold]srt[/] or [bold]vtt[/].")
    ] = "text",
    model: Model = "tiny",
    force: Force = False,
    device: Device = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    backend: Backend = "torch",
) -> None:
    """Write down what is said in recordings.

    The language model that speaks also listens, if it was trained to. One recording
    is written to standard output, or to [bold]-o[/]; each of several to a file beside
    it, or in the folder [bold]-o[/]. Files that exist are skipped, so after an
    interruption the same command continues.

    [bold]Examples[/]

      llasa transcribe talk.mp3 --model my-model

      llasa transcribe recordings/ --format srt --model my-model
    """
    from llasa.listen.transcript import FORMATS, SUFFIXES

    if format not in FORMATS:
        raise LlasaError(f"unknown format {format}: use {', '.join(FORMATS)}")
    todo = pairs(inputs, output, RECORDINGS, (SUFFIXES[format],))
    load = partial(_load, model, device, dtype, device_map, backend)
    if len(inputs) == 1 and output is None and not is_folder(inputs[0]):
        check_stdout()
        listener = load()
        with bar("listening") as advance:
            heard = listener.transcribe(inputs[0], on_progress=lambda done, total: advance(done, total, done))
        sys.stdout.write(heard.written(format))
        return

    def write(listener: "Listener", source: Path, target: Path, done: Callable[[float], None]) -> float:
        heard = listener.transcribe(source, on_progress=lambda seconds, total: done(seconds / total))
        with whole(target) as temporary:
            temporary.write_text(heard.written(format), encoding="utf-8", newline="")
        return heard.seconds

    make_each(todo, force, "listening", load, write)


def _load(model: str, device: str | None, dtype: str | None, device_map: str | None, backend: str) -> "Listener":
    with waiting("loading the model"):
        from llasa.tts import Llasa

        return Llasa.load(model, device, dtype, device_map, backend).listener

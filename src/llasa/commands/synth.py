"""`llasa data synth`: lets a teacher read a text file into shards of audio."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llasa.commands.common import tell
from llasa.errors import LlasaError
from llasa.files import read_text

if TYPE_CHECKING:
    from llasa.data.synthesis import Progress
    from llasa.data.teachers import Teacher

VALIDATION = 30  # one in this many sentences, and of the hours, is held out


def synth(
    text: Annotated[Path, typer.Argument(help="A text file with a sentence on each line.")],
    out: Annotated[Path, typer.Argument(help="Folder for the shards; train/ and val/ are made in it.")],
    teacher: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Who reads: [bold]flite[/] (robotic; needs nothing else), [bold]kokoro[/] (neural, 54 voices) or "
            "[bold]piper[/] (neural, fast, one voice a model).",
        ),
    ] = "flite",
    hours: Annotated[
        float | None, typer.Option(help="Stop at about so many hours of speech; by default the whole text is read.")
    ] = None,
    voice: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SHARE",
            help="The share of the corpus that a voice reads, 0.2 for a fifth; repeatable. The invented voices read "
            "the rest. By default the teacher chooses.",
        ),
    ] = None,
    invented: Annotated[
        int | None,
        typer.Option(
            "--mixtures",
            "--speakers",
            min=0,
            max=100_000,
            help="Number of invented voices: mixtures of kokoro's (300 by default), or shifted ones of flite's (240).",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="FILE", help="kokoro's or piper's .onnx; by default that of the packages."),
    ] = None,
    voices: Annotated[
        Path | None,
        typer.Option("--voices", metavar="PATH", help="kokoro's voices: a folder of .bin files, or voices-v1.0.bin."),
    ] = None,
    held_out: Annotated[
        int | None,
        typer.Option(min=1, help="Number of sentences for validation, the file's first; by default a thirtieth."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Use only the file's first so many sentences.")] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format", metavar="NAME", help="Audio format: [bold]flac[/], or [bold]opus[/], a fifth of the bytes."
        ),
    ] = "flac",
    workers: Annotated[
        int, typer.Option(min=1, help="Number of processes; each needs a core and the teacher's memory.")
    ] = 2,
) -> None:
    """Let a teacher read a text file in many voices, into shards of audio.

    Finished shards are kept: after a stop the same command continues, and with
    more --hours it adds to them.

    Examples:

      llasa data synth sentences.txt runs/corpus

      llasa data synth sentences.txt runs/corpus --teacher kokoro --hours 15
      --voices package/voices --voice af_heart=0.3 --voice am_michael=0.2

      llasa data synth sentences.txt runs/corpus --teacher piper --hours 5
    """
    from llasa.data.synthesis import FORMATS, Part, record, sentences, synthesise
    from llasa.data.teachers import open_teacher
    from llasa.files import claimed

    if form not in FORMATS:
        raise LlasaError(f"there is no format {form}: choose one of {', '.join(FORMATS)}")
    if hours is not None and not hours > 0:
        raise LlasaError(f"--hours is {hours:g}: give a number above 0")
    found = sentences(_lines(text))[:limit]
    if not found:
        raise LlasaError(f"{text} has no sentence of 4 to 170 characters with a word in it: pass another text")
    kept = max(1, len(found) // VALIDATION) if held_out is None else held_out
    if not 0 < kept < len(found):
        raise LlasaError(f"{text} has {len(found)} usable sentences, too few to hold out {kept}: lower --held-out")
    who = open_teacher(teacher, model, voices, invented)
    shares = shares_of(voice or [], who)
    parts = [
        Part(out / "val", 0, found[:kept], hours / VALIDATION if hours and held_out is None else None),
        Part(out / "train", 1, found[kept:], hours),
    ]
    with claimed(out):
        record(out / f"{who.name}.json", who, shares, parts, form)
        for part in parts:
            show(part.folder.name, synthesise(part, who, shares, form, workers=workers), part.hours)


def _lines(text: Path) -> list[str]:
    return read_text(text).splitlines()


def shares_of(given: list[str], teacher: "Teacher") -> dict[str, float]:
    """Reads shares of a corpus, each `NAME=SHARE`.

    Raises:
        LlasaError: one is malformed, the teacher has no such voice, or their sum is above 1.
    """
    shares: dict[str, float] = {}
    names = {*teacher.voices, *teacher.invented}
    for item in given:
        name, _, number = item.partition("=")
        try:
            share = float(number)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise LlasaError(f"--voice {item} is not NAME=SHARE with a share above 0 and up to 1, such as af_heart=0.2")
        if name not in names:
            listed = ", ".join(teacher.voices)
            more = f"; and {teacher.invented[0]} to {teacher.invented[-1]}" if teacher.invented else ""
            raise LlasaError(f"{teacher.name} has no voice {name}: choose from {listed}{more}")
        if name in shares:
            raise LlasaError(f"--voice {name} is given twice: give it once")
        shares[name] = share
    if sum(shares.values()) > 1 + 1e-9:
        raise LlasaError(f"the sum of the voices' shares is {sum(shares.values()):g}: lower them to 1 in all")
    return shares


def show(name: str, steps: "Iterator[Progress]", hours: float | None) -> None:
    """Shows the progress of a part on standard error: a bar on a terminal, else a line for each new shard."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(name), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, shown, step = bar.add_task("", total=None), 0, None
        for step in steps:
            bar.update(task, completed=step.seconds + step.running, total=step.total, description=facts(step))
            if not console.is_terminal and step.utterances != shown:
                shown = step.utterances
                tell(f"{name}: {facts(step)}{left(step)}")
    if step is None:
        return
    if console.is_terminal:
        tell(f"{name}: {facts(step)}")
    if step.unread:
        tell(f"{name}: left out {step.unread} sentences that the teacher could not read")
    if hours and step.seconds < 3600 * hours:
        tell(f"{name}: the text ends before {hours:g} hours are reached")


def facts(step: "Progress") -> str:
    """How much there is, and the speed."""
    speed = f", {step.made / step.wall:.1f}x real time" if step.made else ""
    return f"{step.utterances} utterances, {step.seconds / 3600:.2f} hours{speed}"


def left(step: "Progress") -> str:
    """An estimate of the time left, at the speed so far."""
    rest = step.total - step.seconds - step.running
    if not step.made or rest <= 0:
        return ""
    minutes = rest * step.wall / step.made / 60
    return f", {minutes / 60:.1f} hours left" if minutes > 90 else f", {math.ceil(minutes)} min left"

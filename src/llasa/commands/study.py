"""`llasa study`: measures how much better speech gets with more compute."""

from pathlib import Path
from typing import Annotated

import typer

from llasa.commands.common import Model, bar, tell
from llasa.errors import LlasaError, need_extra
from llasa.files import is_file, read_text

app = typer.Typer(help="Measure what compute buys.", no_args_is_help=True, rich_markup_mode="rich")
SHORTEST, LONGEST = 30, 110  # characters in a sentence: enough for errors to occur, few enough for one chunk


@app.command()
def inference(
    sentences: Annotated[Path, typer.Option(help="A text file with a sentence on each line.")],
    out: Annotated[Path, typer.Option(help="Folder for results.csv, summary.csv, plot.png and report.html.")],
    voices: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES|FILE", help="Voices, separated by commas, or a file with one on each line; taken in turn."
        ),
    ] = None,
    model: Model = "tiny",
    verify: Annotated[str, typer.Option(metavar="WHO", help="Who chooses, as in llasa say.")] = "content",
    strategies: Annotated[
        str, typer.Option(metavar="HOW", help="Separated by commas: best-of, beam:4x4, mixed:4x4@2s+16.")
    ] = "best-of",
    most: Annotated[int, typer.Option(help="Candidates of the largest best-of-n; n is 1, 2, 4 and so on.")] = 64,
    listeners: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="By commas: pocketsphinx, whisper-tiny, resemblyzer, campplus, dnsmos, distillmos, distance; by "
            "default all that are not verifiers, without whisper-tiny, campplus and distillmos.",
        ),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Use only the first so many sentences.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed samples other candidates.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Number of processes that share the sentences.")] = 1,
) -> None:
    """Search sentences with more and more compute, and let independent listeners measure whether it helps.

    Finished sentences are kept: the same command continues where it was stopped.

    Example: llasa study inference --sentences held-out.txt --out study --strategies best-of,beam:4x4
    """
    need_extra("verify", "jiwer", "pocketsphinx", "librosa", "speechmos")
    need_extra("train", "matplotlib")
    texts = _sentences(sentences)[:count]
    from llasa.studies.inference.summary import write_report
    from llasa.studies.inference.sweep import SweepJob, make_settings, run

    wanted = _listed(listeners) if listeners is not None else None
    settings = make_settings(model, verify, _listed(strategies), most, wanted, seed)
    speakers: list[str | None] = [*_voices(voices, model)] or [None]
    jobs = [SweepJob(number, text, speakers[number % len(speakers)]) for number, text in enumerate(texts)]
    done = 0
    try:
        with bar("studying") as advance:
            for done in run(settings, jobs, out, processes):
                advance(done, len(jobs), 0)
    except KeyboardInterrupt:
        tell(f"interrupted: {done} of {len(jobs)} sentences are kept; the same command continues")
        raise typer.Exit(130) from None
    for line in write_report(settings, jobs, out):
        tell(line)
    tell(f"{out / 'report.html'}: {len(jobs)} sentences")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="The study's YAML file, such as recipes/tiny/study.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the study, instead of the recipe's.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Number of cells to train at once, each on one thread.")] = 1,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Train the cells on a Ray cluster: host:port, or auto.")
    ] = None,
) -> None:
    """Train models of several sizes on several amounts of speech, and fit how the loss depends on both.

    Finished cells are kept: the same command continues where it was stopped.

    Example: llasa study train recipes/tiny/study.yaml --processes 2
    """
    need_extra("train", "pyarrow", "yaml", "tensorboard", "accelerate", "matplotlib")
    need_extra("verify", "jiwer", "pocketsphinx")
    from llasa.studies.training.curves import write_report
    from llasa.studies.training.grid import GridSettings, grid, run
    from llasa.train.settings import read_settings

    settings = read_settings(GridSettings, recipe, {"out": str(out) if out else None})
    done, total = 0, 0
    try:
        with bar("training") as advance:
            for cells, last in run(settings, processes, ray):
                done, total = len(cells), len(grid(settings))
                advance(done, total, 0)
                if last:
                    tell(f"{last.name} is trained and measured: {done} of {total}")
    except KeyboardInterrupt:
        tell(f"interrupted: {done} of {total} cells are done; the same command continues")
        raise typer.Exit(130) from None
    for line in write_report(settings, grid(settings)):
        tell(line)
    tell(f"{Path(settings.out) / 'report.html'}: {total} cells")


def _listed(written: str) -> list[str]:
    return [part.strip() for part in written.split(",") if part.strip()]


def _lines(path: Path) -> list[str]:
    return [line for raw in read_text(path).splitlines() if (line := " ".join(raw.split()))]


def _sentences(path: Path) -> list[str]:
    from llasa.text.normalise import is_speakable
    from llasa.text.wording import words

    lines = _lines(path)
    fit = [line for line in lines if SHORTEST <= len(line) <= LONGEST and is_speakable(line) and words(line)]
    if not fit:
        raise LlasaError(
            f"{path} has no sentence of {SHORTEST} to {LONGEST} characters: pass a file with one on each line"
        )
    if left := len(lines) - len(fit):
        tell(
            f"note: left out {left} of {len(lines)} lines that are not sentences of {SHORTEST} to {LONGEST} characters"
        )
    return fit


def _voices(written: str | None, model: str) -> list[str]:
    """The voices in which sentences are said. All of them exist."""
    from llasa.models.hub import find_model
    from llasa.voice import list_voices, suggest

    if written is None:
        return []
    path = Path(written)
    found = _lines(path) if is_file(path) and path.suffix != ".safetensors" else _listed(written)
    if not found:
        raise LlasaError(f"{written or '--voices'} names no voice: pass names or voice files")
    known = list_voices(find_model(model))
    for name in found:
        if name not in known and not (Path(name).suffix == ".safetensors" and is_file(name)):
            raise LlasaError(suggest(name, known))
    return found

"""`llasa study`: how much better speech gets for more compute."""

from pathlib import Path
from typing import Annotated

import typer

from llasa.commands.common import Model, bar, tell
from llasa.errors import LlasaError, need_extra, reason

app = typer.Typer(help="Measure what compute buys.", no_args_is_help=True, rich_markup_mode="rich")
SHORTEST, LONGEST = 30, 110  # characters of a sentence: long enough to err in, short enough to be one chunk


@app.command()
def inference(
    sentences: Annotated[Path, typer.Option(help="A text file, a sentence a line.")],
    out: Annotated[Path, typer.Option(help="Folder for results.csv, summary.csv, plot.png and report.html.")],
    voices: Annotated[
        str | None,
        typer.Option(metavar="NAMES|FILE", help="Voices by commas, or a file with one a line; taken in turn."),
    ] = None,
    model: Model = "tiny",
    verify: Annotated[str, typer.Option(metavar="WHO", help="Who chooses, as in llasa say.")] = "content",
    strategies: Annotated[
        str, typer.Option(metavar="HOW", help="By commas: best-of, beam:4x4, mixed:4x4@2s+16.")
    ] = "best-of",
    most: Annotated[int, typer.Option(help="Candidates of the largest best-of-n; n is 1, 2, 4 and so on.")] = 64,
    judges: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="By commas: pocketsphinx, whisper-tiny, resemblyzer, campplus, dnsmos, distillmos, distance; "
            "by default all that do not choose, without whisper-tiny, campplus and distillmos.",
        ),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Use only so many sentences.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed samples other candidates.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Share the sentences among so many.")] = 1,
) -> None:
    """Search sentences with more and more compute, and have independent judges say whether it helps.

    What is finished is kept: the same command goes on where it was stopped.

    Example: llasa study inference --sentences held-out.txt --out study --strategies best-of,beam:4x4
    """
    need_extra("verify", "jiwer", "pocketsphinx", "librosa", "speechmos")
    need_extra("train", "matplotlib")
    texts = _sentences(sentences)[:count]
    from llasa.eval.inference_report import write_report
    from llasa.eval.inference_study import Job, make_settings, run

    wanted = _listed(judges) if judges is not None else None
    settings = make_settings(model, verify, _listed(strategies), most, wanted, seed)
    speakers: list[str | None] = [*_voices(voices, model)] or [None]
    jobs = [Job(number, text, speakers[number % len(speakers)]) for number, text in enumerate(texts)]
    done = 0
    try:
        with bar("studying") as advance:
            for done in run(settings, jobs, out, processes):
                advance(done, len(jobs), 0)
    except KeyboardInterrupt:
        tell(f"interrupted: {done} of {len(jobs)} sentences are kept, and the same command goes on")
        raise typer.Exit(130) from None
    for line in write_report(settings, jobs, out):
        tell(line)
    tell(f"{out / 'report.html'}: {len(jobs)} sentences")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="The study's YAML file, such as recipes/tiny/study.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the study, instead of the recipe's.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Train so many cells at once, each on one thread.")] = 1,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Train the cells on a Ray cluster: host:port, or auto.")
    ] = None,
) -> None:
    """Train models of several sizes on several amounts of speech, and fit what more of each is worth.

    What is finished is kept: the same command goes on where it was stopped.

    Example: llasa study train recipes/tiny/study.yaml --processes 2
    """
    need_extra("train", "pyarrow", "yaml", "tensorboard", "accelerate", "matplotlib")
    need_extra("verify", "jiwer", "pocketsphinx", "librosa")
    from llasa.eval.training_report import write_report
    from llasa.eval.training_study import Settings, grid, run
    from llasa.train.loop import read_settings

    settings = read_settings(Settings, recipe, out=str(out) if out else None)
    done, total = 0, 0
    try:
        with bar("training") as advance:
            for cells, last in run(settings, processes, ray):
                done, total = len(cells), len(grid(settings))
                advance(done, total, 0)
                if last:
                    tell(f"{last.name} is trained and measured: {done} of {total}")
    except KeyboardInterrupt:
        tell(f"interrupted: {done} of {total} cells are done, and the same command goes on")
        raise typer.Exit(130) from None
    for line in write_report(settings, grid(settings)):
        tell(line)
    tell(f"{Path(settings.out) / 'report.html'}: {total} cells")


def _listed(written: str) -> list[str]:
    return [part.strip() for part in written.split(",") if part.strip()]


def _lines(path: Path) -> list[str]:
    try:
        return [line for raw in path.read_text(encoding="utf-8-sig").splitlines() if (line := " ".join(raw.split()))]
    except OSError as error:
        raise LlasaError(f"cannot read {path}: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise LlasaError(f"{path} is not text in UTF-8: convert it first") from error


def _sentences(path: Path) -> list[str]:
    from llasa.text import is_speakable
    from llasa.verifiers.wording import words

    lines = _lines(path)
    fit = [line for line in lines if SHORTEST <= len(line) <= LONGEST and is_speakable(line) and words(line)]
    if not fit:
        raise LlasaError(f"{path} has no sentence of {SHORTEST} to {LONGEST} characters, a line each")
    if left := len(lines) - len(fit):
        tell(
            f"note: left out {left} of {len(lines)} lines that are not sentences of {SHORTEST} to {LONGEST} characters"
        )
    return fit


def _voices(written: str | None, model: str) -> list[str]:
    """The voices that sentences are said in, all of which are there."""
    from llasa.loading import find_model
    from llasa.voice import list_voices, suggest

    if written is None:
        return []
    path = Path(written)
    found = _lines(path) if path.is_file() and path.suffix != ".safetensors" else _listed(written)
    if not found:
        raise LlasaError(f"{written or '--voices'} names no voice: pass names or voice files")
    known = list_voices(find_model(model))
    for name in found:
        if name not in known and not (Path(name).suffix == ".safetensors" and Path(name).is_file()):
            raise LlasaError(suggest(name, known))
    return found

"""`llasa eval`: runs the paper's evaluations of a model."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from llasa.commands.common import Model, bar, tell
from llasa.errors import LlasaError, need_extra


class SuiteName(StrEnum):
    """The suites."""

    seed_tts = "seed-tts"
    librispeech = "librispeech-continuation"
    codec = "codec"
    asr = "asr"
    esd = "esd"
    text = "text"


def evaluate(
    suite: Annotated[SuiteName, typer.Argument(help="Which suite to run.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, summary.csv, results.csv and the sounds.")],
    data: Annotated[
        Path | None, typer.Option(help="The suite's folder or list; [bold]text[/] has its own.", show_default=False)
    ] = None,
    model: Model = "tiny",
    search: Annotated[
        list[str] | None,
        typer.Option(metavar="HOW", help="A row with a search, as in llasa say; may be repeated.", show_default=False),
    ] = None,
    verify: Annotated[
        list[str] | None,
        typer.Option(metavar="WHO", help="Who chooses: once for all, or for each --search.", show_default=False),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Add the searches of the paper's table, a row each.")] = False,
    judges: Annotated[
        str, typer.Option(metavar="NAMES", help="[bold]paper[/], [bold]offline[/], or names separated by commas.")
    ] = "paper",
    voice: Annotated[str | None, typer.Option(help="The voice of a suite that has no prompts.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Use only the first so many items of each part.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed samples other speech.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Number of processes that share the items.")] = 1,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Share the items on a Ray cluster: host:port, or auto.")
    ] = None,
) -> None:
    """Evaluate a model as the papers do, and show published figures beside its own.

    What is finished is kept: the same command continues where it was stopped.

    Example: llasa eval seed-tts --data seedtts_testset --model HKUSTAudio/Llasa-1B --out report
    """
    need_extra("verify", "jiwer", "zhon", "zhconv")
    from llasa.suites.evaluation import SUITES, EvalSettings, choose_judges, default_verifier, make_jobs, run
    from llasa.suites.lists import first
    from llasa.suites.showing import write_report
    from llasa.suites.table_rows import make_rows

    kind = SUITES[suite]
    if (search or table) and kind.rows != "said":
        raise LlasaError(f"{suite} has no searches: leave out --search and --table")
    rows = make_rows(search or [], verify or [], default_verifier(model), table, "speaker")
    if data is None and not kind.own_list:
        raise LlasaError(f"{suite} needs a list: pass its folder with --data")
    items = kind.read(data)
    if count is not None:
        items = first(items, count)
    names = choose_judges(suite, model, judges, data, rows, items)
    settings = EvalSettings(suite, model, seed, voice)
    jobs = make_jobs(suite, rows, items)
    done = 0
    try:
        with bar("evaluating") as advance:
            for done in run(settings, jobs, names, out, processes, ray):
                advance(done, len(jobs), 0)
    except KeyboardInterrupt:
        tell(f"interrupted: {done} of {len(jobs)} results are kept; the same command continues")
        raise typer.Exit(130) from None
    for line in write_report(settings, jobs, names, out):
        tell(line)
    tell(f"{out / 'report.html'}: {len(items)} items")

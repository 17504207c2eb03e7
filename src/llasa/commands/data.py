"""`llasa data`: makes corpora from texts and recordings, and converts from and to upstream's files."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llasa.errors import LlasaError, need_extra
from llasa.files import absolute, exists, is_folder, read_text

if TYPE_CHECKING:
    from llasa.vocabulary import Vocabulary

app = typer.Typer(help="Make a corpus: synthetic speech, recordings, a lexicon, codes.", no_args_is_help=True)


class LexiconSource(StrEnum):
    """Where a lexicon's pronunciations come from."""

    ESPEAK = "espeak"
    FLITE = "flite"


@app.callback()
def _installed() -> None:
    need_extra("train", "pyarrow")


@app.command()
def recordings(
    folder: Annotated[
        Path, typer.Argument(help="An LJSpeech-layout folder (with metadata.csv) or any folder of audio.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the shards; real/ and val-real/ are made in it.")],
    name: Annotated[str | None, typer.Option(help="Name of the collection; the folder's by default.")] = None,
) -> None:
    """Add real recordings to a corpus; every twelfth is held out for validation.

    Recordings that cannot be read are left out and counted.

    Example: llasa data recordings LJSpeech-1.1 runs/corpus
    """
    from llasa.data.real import ljspeech, make_shards, plain
    from llasa.data.report import Report

    if not is_folder(folder):
        raise LlasaError(f"no folder {folder}")
    read = exists(folder / "metadata.csv")
    items = ljspeech(folder) if read else plain(folder)
    if not items:
        raise LlasaError(f"no recordings in {folder}: pass a folder with WAV, FLAC, OGG, MP3 or AIFF files")
    parts = {"val-real": items[::12], "real": [item for i, item in enumerate(items) if i % 12]}
    report = Report()
    for part, chosen in parts.items():
        for count, seconds in make_shards(chosen, out / part, name or folder.name, report, "reader" if read else None):
            typer.echo(f"{part}: {count} recordings, {seconds / 60:.1f} minutes", err=True)
    if report.dropped:
        typer.echo(report.table(), err=True)


@app.command()
def lexicon(
    text: Annotated[Path, typer.Argument(help="A text file with the words to look up.")],
    out: Annotated[Path, typer.Argument(help="Folder for lexicon.txt.gz.")],
    words: Annotated[Path | None, typer.Option(help="A CMU-style dictionary with more words to look up.")] = None,
    source: Annotated[
        LexiconSource, typer.Option(help="Whose pronunciations: espeak, as Kokoro reads them, or flite.")
    ] = LexiconSource.ESPEAK,
) -> None:
    """Look up the pronunciation of every word, for a small model that reads text in phones.

    Example: llasa data lexicon sentences.txt runs
    """
    from llasa.data.lexicon_from_espeak import espeak_lexicon
    from llasa.data.lexicon_from_flite import flite_lexicon
    from llasa.data.words import word_list, words_of
    from llasa.text.lexicon import FILE, save_lexicon
    from llasa.text.normalise import normalise

    if exists(out / FILE):
        typer.echo(f"{out / FILE} exists", err=True)
        return
    sentences = read_text(text).splitlines()
    wanted = set(words_of(map(normalise, sentences)))
    if words:
        wanted |= set(word_list(words))
    out.mkdir(parents=True, exist_ok=True)
    found = flite_lexicon(wanted) if source is LexiconSource.FLITE else espeak_lexicon(wanted, sentences)
    save_lexicon(found, out)
    typer.echo(f"{len(found)} of {len(wanted)} words", err=True)


@app.command()
def encode(
    source: Annotated[
        str, typer.Argument(help="A folder or file of a known layout, or a hub id, owner/name[:subset].")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the codes shards, job.json and report.json.")],
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME", help="Whose codec: a model, a codec's folder, or a hub id.")
    ] = "tiny",
    layout: Annotated[
        str | None, typer.Option(help="Layout of the source, if it is not recognised; see docs/data.md.")
    ] = None,
    split: Annotated[str, typer.Option(help="The split of a data set on the hub.")] = "train",
    shard: Annotated[
        int, typer.Option(min=1, help="Utterances a shard, if the source is not in shards already.")
    ] = 1000,
    shortest: Annotated[float, typer.Option(help="Least seconds.")] = 0.5,
    longest: Annotated[float, typer.Option(help="Most seconds.")] = 30.0,
    quietest: Annotated[float, typer.Option(help="Least level of the speech, dBFS.")] = -45.0,
    voiced: Annotated[float, typer.Option(help="Least share of a clip with sound.")] = 0.3,
    slowest: Annotated[float, typer.Option(help="Least letters a second, if there is a text.")] = 4.0,
    fastest: Annotated[float, typer.Option(help="Most letters a second, if there is a text.")] = 28.0,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode ahead of the codec.")] = 2,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; by default a GPU if CUDA finds one.")] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on this Ray cluster; auto finds one on this machine.")
    ] = None,
) -> None:
    """Turn audio and its text into shards of codes, and report what was dropped and why.

    After a stop the same command continues; when all is done it does nothing.

    Example: llasa data encode LJSpeech-1.1 runs/codes --model HKUSTAudio/Llasa-1B
    """
    from llasa.data.cluster import run_on_ray
    from llasa.data.encode import EncodeJob, encode, encode_here
    from llasa.data.filters import Limits
    from llasa.data.sources import find_source

    limits = Limits(shortest, longest, quietest, voiced, slowest, fastest)
    found = find_source(source, layout, shard, split)
    if found.taken:
        typer.echo(f"{found.layout}; {found.taken}", err=True)
    with _bar(len(found.tasks), on_one_machine=ray is None) as (advance, facts):
        # Workers of a cluster run in other folders.
        place = str(absolute(model)) if exists(model) and model != "tiny" else model
        job = EncodeJob(absolute(out), place, device, limits, workers)
        run = encode_here if ray is None else partial(run_on_ray, ray)
        report = encode(found, job, advance, lambda line: typer.echo(line, err=True), run)
    typer.echo(report.table(), err=True)
    if facts[0]:
        typer.echo(facts[0], err=True)
    if not report.kept.utterances:
        raise LlasaError(f"nothing of {source} was kept: see the reasons in {out / 'report.json'}")


@contextmanager
def _bar(shards: int, on_one_machine: bool) -> Iterator[tuple[Callable[[int, float, float], None], list[str]]]:
    """A progress bar on standard error, if that is a terminal, and a list whose only element sums up the run."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("encoding"), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    facts = [""]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, began = bar.add_task("", total=shards), time.perf_counter()

        def advance(ready: int, seconds: float, forward: float) -> None:
            wall = time.perf_counter() - began
            if seconds:
                facts[0] = f"{seconds / 3600:.2f} hours encoded, {seconds / wall:.1f}x real time; {wall:.0f} s"
                facts[0] += f", {100 * forward / wall:.0f} % of it in the codec" if on_one_machine else ""
            bar.update(task, completed=ready, description=f"{ready} of {shards} shards  {facts[0]}")

        yield advance, facts


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="Folder of upstream's rows (.memmap) or code files (.npy).")],
    out: Annotated[Path, typer.Argument(help="Folder for the codes shards; train/ and val/ are made in it.")],
    model: Annotated[str, typer.Option(metavar="NAME", help="A model with the tokenizer and codec of the data.")],
    text: Annotated[
        Path | None,
        typer.Option(help="Transcripts of code files, id|text on each line; by default SOURCE/metadata.csv."),
    ] = None,
    speaker: Annotated[
        str, typer.Option(help="The one speaker of all; without it a model does not learn to clone.")
    ] = "",
) -> None:
    """Read the data of LLaSA_training or X-Codec-2.0 as codes shards.

    Of code files, every thirtieth is held out for validation.

    Example: llasa data import ljspeech_bin runs/codes --model HKUSTAudio/Llasa-1B
    """
    from llasa.data import official
    from llasa.files import claimed, whole

    if not is_folder(source):
        raise LlasaError(f"no folder {source}")
    vocabulary, rate, _ = _model(model)
    if official.has_rows(source):
        splits = [split for split in official.SPLITS if official.has_rows(source, split)]
        parts = {split: official.utterances(source, split, vocabulary, rate, speaker) for split in splits}
    else:
        files, silent = official.code_files(source, text or source / "metadata.csv")
        chosen = {"train": [file for i, file in enumerate(files, 1) if i % official.HELD_OUT]}
        chosen["val"] = files[official.HELD_OUT - 1 :: official.HELD_OUT]
        parts = {split: official.read_code_files(some, vocabulary, rate, speaker) for split, some in chosen.items()}
        if silent:
            typer.echo(f"left out without a transcript: {silent}", err=True)
    # All or nothing, because nobody could tell later which shards a killed run still had to make.
    with claimed(out), ExitStack() as finished:
        for left in out.glob(".*.tmp"):  # left by a run that was killed
            shutil.rmtree(left)
        for split in parts:
            if any((out / split).glob("*.parquet")):
                raise LlasaError(f"{out / split} has shards already: choose another folder, or delete them")
        for split, rows in parts.items():
            count = hours = 0.0
            if first := list(islice(rows, 1)):
                made = finished.enter_context(whole(out / split))
                made.mkdir()
                for utterances, seconds in official.write_shards(chain(first, rows), made, absolute(source).name):
                    count, hours = count + utterances, hours + seconds / 3600
            typer.echo(f"{split}: {count:.0f} utterances, {hours:.2f} hours", err=True)


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="Folder of codes shards, or one with train/ and val/ in it.")],
    out: Annotated[Path, typer.Argument(help="Folder for the rows, .memmap and _shape.npy.")],
    model: Annotated[str, typer.Option(metavar="NAME", help="The model to train on them.")],
) -> None:
    """Write codes shards as the rows that LLaSA_training reads, for one model's tokenizer.

    Example: llasa data export runs/codes ljspeech_bin --model HKUSTAudio/Llasa-1B
    """
    from llasa.data import official

    vocabulary, _, lexicon = _model(model)
    split_up = {split: source / split for split in official.SPLITS if is_folder(source / split)}
    for split, folder in (split_up or {"train": source}).items():
        count, cut = official.export_shards(folder, out, split, vocabulary, lexicon)
        typer.echo(f"{split}: {count} rows, {cut} of them cut to {official.WIDTH} tokens", err=True)


def _model(name: str) -> "tuple[Vocabulary, float, dict[str, str] | None]":
    """A model's vocabulary, codes a second, and lexicon if it has one."""
    from llasa.codec import convert
    from llasa.models.folder import find_base, load_tokenizer, tokenizer_folder
    from llasa.models.hub import find_model
    from llasa.text.lexicon import load_lexicon
    from llasa.vocabulary import read_vocabulary

    folder = find_model(name)
    vocabulary = read_vocabulary(load_tokenizer(tokenizer_folder(folder)))
    codec, _ = convert.read(convert.find(name))
    return vocabulary, codec.sampling_rate / codec.hop_length, load_lexicon(find_base(folder))

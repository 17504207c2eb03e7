"""`llasa data`: from texts and recordings to a corpus of codes, and from and to upstream's files."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llasa.errors import LlasaError, need_extra

if TYPE_CHECKING:
    from llasa.vocabulary import Vocabulary

app = typer.Typer(help="Make a corpus: synthetic speech, recordings, a lexicon, codes.", no_args_is_help=True)


class LexiconSource(StrEnum):
    """Whose pronunciations a lexicon holds."""

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

    What cannot be read is left out, and said.

    Example: llasa data recordings LJSpeech-1.1 runs/corpus
    """
    from llasa.data.real import ljspeech, make_shards, plain
    from llasa.data.report import Report

    if not folder.is_dir():
        raise LlasaError(f"no folder {folder}")
    read = (folder / "metadata.csv").exists()
    items = ljspeech(folder) if read else plain(folder)
    if not items:
        raise LlasaError(f"no recordings in {folder}: WAV, FLAC, OGG, MP3 or AIFF files are looked for")
    parts = {"val-real": items[::12], "real": [item for i, item in enumerate(items) if i % 12]}
    report = Report()
    for part, chosen in parts.items():
        for count, seconds in make_shards(chosen, out / part, name or folder.name, report, "reader" if read else None):
            typer.echo(f"{part}: {count} recordings, {seconds / 60:.1f} minutes", err=True)
    if report.dropped:
        typer.echo(report.table(), err=True)


@app.command()
def lexicon(
    text: Annotated[Path, typer.Argument(help="A text file whose words it must hold.")],
    out: Annotated[Path, typer.Argument(help="Folder for lexicon.txt.gz.")],
    words: Annotated[Path | None, typer.Option(help="A CMU-style dictionary whose words it holds as well.")] = None,
    source: Annotated[
        LexiconSource, typer.Option(help="Who says the words: espeak, as Kokoro reads them, or flite.")
    ] = LexiconSource.ESPEAK,
) -> None:
    """Ask the teacher's front end how it says every word. A small model's text goes in as these phones.

    Example: llasa data lexicon sentences.txt runs
    """
    from llasa.data.lexicon_from_espeak import espeak_lexicon
    from llasa.data.lexicon_from_flite import flite_lexicon
    from llasa.data.words import word_list, words_of
    from llasa.lexicon import FILE, save_lexicon
    from llasa.text import normalise

    if (out / FILE).exists():
        typer.echo(f"{out / FILE} exists", err=True)
        return
    if not text.is_file():
        raise LlasaError(f"no text file {text}")
    sentences = text.read_text(encoding="utf-8").splitlines()
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
        str | None, typer.Option(help="What the source is, if it does not look like it; see docs/data.md.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of a hub id: which split.")] = "train",
    shard: Annotated[int, typer.Option(min=1, help="Utterances a shard, if the source has no shards itself.")] = 1000,
    shortest: Annotated[float, typer.Option(help="Least seconds.")] = 0.5,
    longest: Annotated[float, typer.Option(help="Most seconds.")] = 30.0,
    quietest: Annotated[float, typer.Option(help="Least level of the speech, dBFS.")] = -45.0,
    voiced: Annotated[float, typer.Option(help="Least share with sound in it.")] = 0.3,
    slowest: Annotated[float, typer.Option(help="Least letters a second, where there is text.")] = 4.0,
    fastest: Annotated[float, typer.Option(help="Most letters a second, where there is text.")] = 28.0,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode ahead of the codec.")] = 2,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; by default a GPU if CUDA finds one.")] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on this Ray cluster; auto finds one on this machine.")
    ] = None,
) -> None:
    """Turn audio and its text into shards of codes, and say what was dropped and why.

    The same command goes on after a stop, and does nothing when all is done.

    Example: llasa data encode LJSpeech-1.1 runs/codes --model HKUSTAudio/Llasa-1B
    """
    from llasa.data.encode import Job, encode
    from llasa.data.filters import Limits
    from llasa.data.sources import find_source

    limits = Limits(shortest, longest, quietest, voiced, slowest, fastest)
    found = find_source(source, layout, shard, split)
    with _bar(len(found.tasks), on_one_machine=ray is None) as (advance, facts):
        # On a cluster, workers are in other folders.
        place = str(Path(model).resolve()) if Path(model).exists() and model != "tiny" else model
        job = Job(out.resolve(), place, device, limits, workers)
        report = encode(found, job, ray, advance, lambda line: typer.echo(line, err=True))
    typer.echo(report.table(), err=True)
    if facts[0]:
        typer.echo(facts[0], err=True)
    if not report.kept.utterances:
        raise LlasaError(f"nothing of {source} was kept: {out / 'report.json'} says why")


@contextmanager
def _bar(shards: int, on_one_machine: bool) -> Iterator[tuple[Callable[[int, float, float], None], list[str]]]:
    """A bar on standard error, if that is a terminal, to be advanced; and a list whose one element sums the run up."""
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
    model: Annotated[
        str, typer.Option(metavar="NAME", help="A model with the tokenizer and codec they were made with.")
    ],
    text: Annotated[
        Path | None, typer.Option(help="Transcripts of code files, id|text a line; SOURCE/metadata.csv by default.")
    ] = None,
    speaker: Annotated[str, typer.Option(help="Who speaks all of them; without, cloning is not learnt.")] = "",
) -> None:
    """Read the data of LLaSA_training or X-Codec-2.0 as codes shards.

    Of code files, every thirtieth is held out for validation.

    Example: llasa data import ljspeech_bin runs/codes --model HKUSTAudio/Llasa-1B
    """
    from llasa.data import upstream
    from llasa.locks import claimed
    from llasa.writing import whole

    if not source.is_dir():
        raise LlasaError(f"no folder {source}")
    vocabulary, rate, _ = _model(model)
    if upstream.has_rows(source):
        splits = [split for split in upstream.SPLITS if upstream.has_rows(source, split)]
        parts = {split: upstream.utterances(source, split, vocabulary, rate, speaker) for split in splits}
    else:
        files, silent = upstream.code_files(source, text or source / "metadata.csv")
        chosen = {"train": [file for i, file in enumerate(files, 1) if i % upstream.HELD_OUT]}
        chosen["val"] = files[upstream.HELD_OUT - 1 :: upstream.HELD_OUT]
        parts = {split: upstream.read_code_files(some, vocabulary, rate, speaker) for split, some in chosen.items()}
        if silent:
            typer.echo(f"left out for want of a transcript: {silent}", err=True)
    # All of it or nothing: which shards a killed run had left to make, nobody could tell later.
    with claimed(out), ExitStack() as finished:
        for left in out.glob(".*.tmp"):  # by a run that was killed
            shutil.rmtree(left)
        for split in parts:
            if any((out / split).glob("*.parquet")):
                raise LlasaError(f"{out / split} has shards already: choose another folder, or delete them")
        for split, rows in parts.items():
            count = hours = 0.0
            if first := list(islice(rows, 1)):
                made = finished.enter_context(whole(out / split))
                made.mkdir()
                for utterances, seconds in upstream.write_shards(chain(first, rows), made, source.resolve().name):
                    count, hours = count + utterances, hours + seconds / 3600
            typer.echo(f"{split}: {count:.0f} utterances, {hours:.2f} hours", err=True)


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="Folder of codes shards, or one with train/ and val/ in it.")],
    out: Annotated[Path, typer.Argument(help="Folder for the rows, .memmap and _shape.npy.")],
    model: Annotated[str, typer.Option(metavar="NAME", help="The model that is to be trained on them.")],
) -> None:
    """Write codes shards as the rows that LLaSA_training reads, for one model's tokenizer.

    Example: llasa data export runs/codes ljspeech_bin --model HKUSTAudio/Llasa-1B
    """
    from llasa.data import upstream

    vocabulary, _, lexicon = _model(model)
    split_up = {split: source / split for split in upstream.SPLITS if (source / split).is_dir()}
    for split, folder in (split_up or {"train": source}).items():
        count, cut = upstream.export_shards(folder, out, split, vocabulary, lexicon)
        typer.echo(f"{split}: {count} rows, {cut} of them cut to {upstream.WIDTH} tokens", err=True)


def _model(name: str) -> "tuple[Vocabulary, float, dict[str, str] | None]":
    """A model's vocabulary, codes a second, and lexicon if it has one."""
    from llasa.codec import convert
    from llasa.lexicon import load_lexicon
    from llasa.loading import find_base, find_model, load_tokenizer, tokenizer_folder
    from llasa.vocabulary import read_vocabulary

    folder = find_model(name)
    vocabulary = read_vocabulary(load_tokenizer(tokenizer_folder(folder)))
    codec, _ = convert.read(convert.find(name))
    return vocabulary, codec.sampling_rate / codec.hop_length, load_lexicon(find_base(folder))

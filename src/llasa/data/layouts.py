"""What a corpus on disk holds, by its layout: folders of audio files with their texts, as a list of utterances.

Knows where each layout keeps texts, speakers and languages; opens no audio. What lies in archives (tar, Parquet, the
hub) is read by `sources.py`. Texts stay as they are written, on one line.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llasa.errors import LlasaError, reason

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".au"}
# The columns of a table that are looked for, the first that is there being taken.
COLUMNS = {
    "id": ("id", "utt_id", "segment_id", "_id"),
    "audio": ("audio", "path", "audio_path", "audio_filepath", "file_name", "file", "wav"),
    "text": ("text", "normalized_text", "text_normalized", "transcript", "transcription", "sentence"),
    "speaker": ("speaker", "speaker_id", "client_id", "spk"),
    "language": ("language", "lang", "locale"),
}
MANIFESTS = ("metadata.jsonl", "metadata.csv", "manifest.jsonl", "manifest.csv")


@dataclass(frozen=True)
class Item:
    """One utterance of a source.

    Attributes:
        id: its name, which no other of the source has.
        audio: a file, or the bytes of one.
        where: how a report names it.
        phones, ends: when each phone ends, in seconds, where that is known.
        problem: why there is no audio, if there is none.
    """

    id: str
    audio: Path | bytes
    where: str
    text: str = ""
    speaker: str = ""
    language: str = ""
    phones: tuple[str, ...] = ()
    ends: tuple[float, ...] = ()
    problem: str = ""


def pick(row: dict[str, Any], what: str) -> str:
    """A row's value for one of COLUMNS, as text on one line; empty where there is none."""
    value = next((row[name] for name in COLUMNS[what] if row.get(name) is not None), "")
    return " ".join(str(value).split())


def facts(row: dict[str, Any]) -> tuple[str, str, str]:
    """A row's text, speaker and language."""
    return pick(row, "text"), pick(row, "speaker"), pick(row, "language")


def folder(source: Path) -> list[Item]:
    """Every audio file below a folder; its text is the .txt file beside it, its speaker the folder it lies in."""
    items = []
    for path in audio_files(source):
        place = path.relative_to(source)
        text, speaker = _sidecar(path.with_suffix(".txt")), place.parent.as_posix().removeprefix(".")
        items.append(Item(place.with_suffix("").as_posix(), path, place.as_posix(), text, speaker))
    if len({item.id for item in items}) < len(items):  # NAME.wav beside NAME.flac
        items = [replace(item, id=item.where) for item in items]
    return items


def ljspeech(source: Path) -> list[Item]:
    """`metadata.csv` of `name|text` or `name|raw text|text`, the recordings in `wavs/` or beside it; one reader.

    Raises:
        LlasaError: there is no metadata.csv, or a line lacks its text.
    """
    table = source / "metadata.csv"
    if not table.exists():
        raise LlasaError(f"{source} has no metadata.csv: is it an LJSpeech-layout folder?")
    items = []
    for number, line in enumerate(_text(table).splitlines(), 1):
        name, *texts = line.split("|")
        if not texts:
            raise LlasaError(f"{table}, line {number}: no text after {name!r}")
        wav = source / "wavs" / f"{name}.wav"
        places = [wav, source / name, *(source / f"{name}{suffix}" for suffix in SUFFIXES)]
        path = next((place for place in places if place.is_file()), wav)
        text = " ".join(texts[-1].split())
        place = path.relative_to(source) if path.is_relative_to(source) else path  # a table may name files elsewhere
        items.append(Item(name, path, place.as_posix(), text, source.resolve().name, "en"))
    return items


def librispeech(source: Path) -> list[Item]:
    """`SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt` of `id TEXT`, the FLAC files beside it."""
    items = []
    for table in sorted(source.rglob("*.trans.txt")):
        for line in _text(table).splitlines():
            name, _, text = line.partition(" ")
            path = table.with_name(f"{name}.flac")
            items.append(Item(name, path, path.relative_to(source).as_posix(), text.strip(), name.split("-")[0], "en"))
    return items


def libritts(source: Path) -> list[Item]:
    """`SPEAKER/CHAPTER/SPEAKER_CHAPTER_N_N.wav`, its text in `.normalized.txt` beside it."""
    items = []
    for path in audio_files(source):
        text = _sidecar(path.with_suffix(".normalized.txt"))
        place = path.relative_to(source).as_posix()
        items.append(Item(path.stem, path, place, text, path.stem.split("_")[0], "en"))
    return items


def commonvoice(source: Path) -> list[Item]:
    """A table of a Common Voice release, by default `validated.tsv` of its folder, with the recordings in `clips/`.

    Raises:
        LlasaError: there is no such table, or it has not Common Voice's columns.
    """
    table = source / "validated.tsv" if source.is_dir() else source
    if not table.is_file():
        raise LlasaError(f"{source} has no validated.tsv: name the table to use, such as {source / 'train.tsv'}")
    clips = table.parent / "clips"
    items = []
    for _, row in _table(table, delimiter="\t", quoting=csv.QUOTE_NONE):
        if not {"path", "sentence"} <= row.keys():
            raise LlasaError(f"{table} has not the columns of Common Voice, path and sentence")
        name = row["path"] or ""
        path = clips / (name if Path(name).suffix else f"{name}.mp3")
        items.append(Item(path.stem, path, f"clips/{path.name}", *facts(row)))
    return items


def manifest(source: Path) -> list[Item]:
    """A JSONL or CSV file with a row an utterance and the columns of COLUMNS; paths from the file's folder on.

    Raises:
        LlasaError: a line is not a row or lacks audio, two rows share an id, or none of the first hundred files exists.
    """
    source = source if source.is_file() else next(source / n for n in MANIFESTS if (source / n).is_file())
    items: list[Item] = []
    seen: dict[str, int] = {}
    for number, row in _rows(source):
        name = pick(row, "audio")
        if not name:
            wanted = ", ".join(COLUMNS["audio"])
            raise LlasaError(f"{source}, line {number}: no audio file (a column of one of the names {wanted})")
        key = pick(row, "id") or Path(name).with_suffix("").as_posix()
        if key in seen:
            raise LlasaError(f"{source}, line {number}: the id {key!r} is that of line {seen[key]} too")
        seen[key] = number
        items.append(Item(key, source.parent / name, name, *facts(row)))
    first = [Path(str(item.audio)) for item in items[:100]]
    if first and not any(path.is_file() for path in first):
        raise LlasaError(f"{source} names files that do not exist, such as {first[0]}: paths start from its folder")
    return items


def _rows(source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if source.suffix == ".csv":
        yield from _table(source)
        return
    for number, line in enumerate(_text(source).split("\n"), 1):  # a JSON string may hold other line ends
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LlasaError(f"{source}, line {number} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise LlasaError(f"{source}, line {number} is not a JSON object")
        yield number, row


def _table(source: Path, **form: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(_text(source), newline=""), **form)
    try:
        for row in reader:
            yield reader.line_num, {str(name).strip(): value for name, value in row.items()}
    except csv.Error as error:
        raise LlasaError(f"{source}, line {reader.line_num}: {error}") from error


def audio_files(source: Path) -> list[Path]:
    """Every recording below a folder, but for hidden files, such as macOS leaves beside the real ones."""
    found = (path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in found if not path.name.startswith("."))


def _sidecar(path: Path) -> str:
    return " ".join(_text(path).split()) if path.is_file() else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LlasaError(f"{path} is not UTF-8 text: save it as such") from error
    except OSError as error:
        raise LlasaError(f"cannot read {path}: {reason(error)}") from error

"""Lists the utterances of a corpus on disk: folders of audio files with their texts, in several layouts.

A layout says where texts, speakers and languages are kept. No audio is opened here. `listings.py` reads tables that
name recordings, `sources.py` archives (tar, Parquet, the hub). Texts are kept as they are written, on one line.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from llasa.errors import LlasaError
from llasa.ffmpeg import SUFFIXES
from llasa.files import is_file, listed, read_text

# The names of a table's columns; the first that exists is used.
COLUMNS = {
    "id": ("id", "utt_id", "segment_id", "_id"),
    "audio": ("audio", "path", "audio_path", "audio_filepath", "audio_file", "file_name", "file", "wav"),
    "text": ("text", "normalized_text", "text_normalized", "transcript", "transcription", "sentence"),
    "speaker": ("speaker", "speaker_id", "speaker_name", "client_id", "spk"),
    "language": ("language", "lang", "locale"),
}
SIDECARS = (".txt", ".lab", ".normalized.txt")  # of a recording's text beside it, in any case
TEXTUAL = {".txt", ".lab", ".csv", ".tsv", ".json", ".jsonl", ".list", ".textgrid", ".srt", ".vtt", ".trn"}


@dataclass(frozen=True)
class Item:
    """One utterance of a source.

    Attributes:
        id: its name, unique in the source.
        audio: a file, or the bytes of one.
        where: its name in reports.
        phones, ends: the phones and the second at which each ends, if known.
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

    def __post_init__(self) -> None:
        # Half of a surrogate pair, as JSON's \\ud800 or a file name that is not UTF-8 has it, fits into no file.
        for name in ("id", "where", "text", "speaker", "language", "problem"):
            object.__setattr__(self, name, getattr(self, name).encode("utf-8", "replace").decode())


class Listing(NamedTuple):
    """What a layout finds: the utterances, and a line that says where texts and speakers were taken from."""

    items: list[Item]
    taken: str


def pick(row: dict[str, Any], what: str) -> str:
    """A row's value for one of COLUMNS, as text on one line; empty if there is none."""
    value = next((row[name] for name in COLUMNS[what] if row.get(name) is not None), "")
    return " ".join(str(value).split())


def facts(row: dict[str, Any]) -> tuple[str, str, str]:
    """A row's text, speaker and language."""
    return pick(row, "text"), pick(row, "speaker"), pick(row, "language")


def folder(source: Path) -> Listing:
    """Every audio file below a folder. Its text is the .txt or .lab file beside it, its speaker the name of its folder.

    Raises:
        LlasaError: no recording has a text, but there are files that may hold their texts in another way; or a text is
            a list of phones and times.
    """
    paths = listed(source, SUFFIXES)
    others = {str(path).lower(): path for path in listed(source, TEXTUAL)}
    items, used = [], dict[str, int]()
    for path in paths:
        place = path.relative_to(source)
        stem = str(path.with_suffix("")).lower()
        beside = next((suffix for suffix in SIDECARS if stem + suffix in others), "")
        text = _sidecar(others[stem + beside]) if beside else ""
        used[beside] = used.get(beside, 0) + bool(text)
        items.append(
            Item(
                place.with_suffix("").as_posix(),
                path,
                place.as_posix(),
                text,
                place.parent.as_posix().removeprefix("."),
            )
        )
    if paths and others and not any(used.values()):
        shown = ", ".join(path.relative_to(source).as_posix() for path in sorted(others.values())[:3])
        raise LlasaError(
            f"no recording in {source} has its text in a .txt or .lab file of its name, and what {shown} says of them "
            "is not known: pass a table that names the recordings, or move away what is no text"
        )
    if len({item.id for item in items}) < len(items):  # NAME.wav beside NAME.flac
        items = [replace(item, id=item.where) for item in items]
    counts = [f"{count} from NAME{suffix}" for suffix, count in used.items() if count]
    texts = f"texts: {', '.join(counts)} beside the recordings" if counts else "no texts"
    without = len(items) - sum(used.values())
    return Listing(
        items, texts + (f", {without} recordings without" if counts and without else "") + "; speakers: folders"
    )


def librispeech(source: Path) -> Listing:
    """`SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt` of `id TEXT`, the FLAC files beside it."""
    items = []
    for table in sorted(source.rglob("*.trans.txt")):
        for line in filter(str.strip, read_text(table).splitlines()):
            name, _, text = line.partition(" ")
            path = table.with_name(f"{name}.flac")
            items.append(Item(name, path, path.relative_to(source).as_posix(), text.strip(), name.split("-")[0], "en"))
    return Listing(items, "texts: *.trans.txt; speakers: the first part of each name")


def libritts(source: Path) -> Listing:
    """`SPEAKER/CHAPTER/SPEAKER_CHAPTER_N_N.wav`, its text in `.normalized.txt` beside it."""
    items = []
    for path in listed(source, SUFFIXES):
        beside = path.with_suffix(".normalized.txt")
        text = _sidecar(beside) if is_file(beside) else ""
        place = path.relative_to(source).as_posix()
        items.append(Item(path.stem, path, place, text, path.stem.split("_")[0], "en"))
    return Listing(items, "texts: *.normalized.txt; speakers: the first part of each name")


def taken_from(table: Path, columns: Sequence[str], named: bool = True) -> str:
    """A line that says which of a table's columns are used, and for what.

    Args:
        columns: what they are called.
        named: whether the table calls them so; if not, they are numbered.
    """
    used = {what: next((name for name in names if name in columns), "") for what, names in COLUMNS.items()}
    shown = {name: repr(name) if named else f"column {place}" for place, name in enumerate(columns, 1)}
    parts = [f"{what} from {shown[name]}" for what, name in used.items() if name]
    unused = [shown[name] for name in columns if name not in used.values()]
    return f"{table.name}: {', '.join(parts)}" + (f"; not used: {', '.join(unused)[:100]}" if unused else "")


def _sidecar(path: Path) -> str:
    """The text in a file beside a recording.

    Raises:
        LlasaError: it is no text but a list of times, as speech recognition keeps phones in .lab files.
    """
    text = read_text(path)
    if re.match(r"\s*\d+(\.\d+)?\s+\d+(\.\d+)?\s+\S+\s*(\n|$)", text):
        raise LlasaError(f"{path} is a list of times, not a text: put the text into NAME.txt, and move this file away")
    return " ".join(text.split())

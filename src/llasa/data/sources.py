"""Divides a source of audio and text into tasks, always in the same way, and reads archives.

Each task can be read on its own and becomes one shard of codes: a number of files of a folder or table, one tar, one
Parquet file, or one file of a data set on the hub. Folders and tables are read by `layouts.py`.
"""

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llasa.data import layouts, listings
from llasa.data.layouts import Item, Listing, facts, pick
from llasa.errors import LlasaError, first_line
from llasa.ffmpeg import SUFFIXES
from llasa.files import MB, RECORDING_LIMIT, absolute, exists, is_file, is_folder, listed, parse_json, read_bytes

LISTED: dict[str, Callable[[Path], Listing]] = {
    "folder": layouts.folder,
    "manifest": listings.manifest,
    "ljspeech": listings.ljspeech,
    "librispeech": layouts.librispeech,
    "libritts": layouts.libritts,
    "commonvoice": listings.commonvoice,
}
LAYOUTS = (*LISTED, "emilia", "parquet", "hub")


@dataclass(frozen=True)
class Task:
    """The part of a source that becomes one shard. It can be sent to another process."""

    index: int
    read: Callable[[], Iterable[Item]]

    @property
    def shard(self) -> str:
        return f"{self.index:05d}.parquet"


@dataclass(frozen=True)
class Source:
    """A source in tasks, with a digest that changes when its content does.

    Attributes:
        shard: utterances a task, if the source is not in shards already.
        taken: where texts and speakers come from, as `Listing.taken`, or nothing if each recording says it.
    """

    layout: str
    tasks: list[Task]
    digest: str
    shard: int | None = None
    taken: str = ""


def find_source(name: str, layout: str | None = None, shard: int = 1000, split: str = "train") -> Source:
    """Lists the content of a source.

    Args:
        name: a folder, a file, or the id of a data set on the hub, `owner/name` or `owner/name:subset`.
        layout: one of LAYOUTS, by default recognised from the source.
        shard: utterances a shard, for layouts that are not in shards already.
        split: the split of a data set on the hub.

    Raises:
        LlasaError: there is no such source, no such layout, or nothing in it.
    """
    path = absolute(name)
    layout = layout or detect(name)
    if layout not in LAYOUTS:
        raise LlasaError(f"there is no layout {layout!r}: use one of {', '.join(LAYOUTS)}")
    if layout == "hub":
        return _hub(name, split)
    if not exists(path):
        raise LlasaError(f"there is no file or folder {name}")
    if layout in LISTED:
        items, taken = LISTED[layout](path)
        if not items:
            raise LlasaError(f"no recordings of the layout {layout} in {name}: pass another --layout")
        digest = _digest((i.id, i.where, i.text, i.speaker, i.language, *_stamp(i.audio)) for i in items)
        parts = [tuple(items[start : start + shard]) for start in range(0, len(items), shard)]
        return Source(layout, [Task(i, partial(iter, part)) for i, part in enumerate(parts)], digest, shard, taken)
    suffix, read = (".tar", read_tar) if layout == "emilia" else (".parquet", read_parquet)
    files = [path] if is_file(path) else listed(path, (suffix,))
    if not files:
        raise LlasaError(f"no {suffix} files in {name}")
    digest = _digest((file.name, file.stat().st_size) for file in files)
    return Source(layout, [Task(i, partial(read, file)) for i, file in enumerate(files)], digest)


def detect(name: str) -> str:
    """Recognises the layout of a source.

    Raises:
        LlasaError: it does not exist and is not a hub id, or has none of the layouts.
    """
    path = Path(name)
    if not exists(path):
        if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?", name):
            return "hub"
        raise LlasaError(f"there is no file or folder {name}, and it is not a hub id (owner/name)")
    if is_file(path):
        found = {".tar": "emilia", ".parquet": "parquet"}.get(path.suffix)
        if found is None and path.suffix.lower() not in listings.TABLES:
            raise LlasaError(
                f"{name} is not a source: pass a folder, a table (.jsonl, .json, .csv, .tsv, .txt), a .tar or .parquet "
                "file, or a hub id"
            )
        return found or _form(path)
    if usual := listings.usual_table(path):
        return _form(usual)
    if is_folder(path / "clips") and next(path.glob("*.tsv"), None):
        return "commonvoice"
    looks = {"*.parquet": "parquet", "*.tar": "emilia", "*.trans.txt": "librispeech", "*.normalized.txt": "libritts"}
    for pattern, layout in looks.items():
        if next(path.rglob(pattern), None):
            return layout
    if listings.find_tables(path):
        return _form(listings.the_table(path))
    if listed(path, SUFFIXES):
        return "folder"
    raise LlasaError(f"no audio in {name}: {', '.join(sorted(SUFFIXES))} files, .tar or .parquet are looked for")


def _form(table: Path) -> str:
    """The layout of a table."""
    if listings.has_bars(table):
        return "ljspeech"
    return "commonvoice" if table.suffix.lower() == ".tsv" and is_folder(table.parent / "clips") else "manifest"


def read_tar(path: Path) -> Iterator[Item]:
    """The utterances of a webdataset tar, where an audio file and a `.json` of the same name are neighbours.

    Emilia's `.json` has `id`, `text`, `speaker`, `language`. Of a damaged archive everything before the damage is read,
    and the last item reports it.
    """
    group: dict[str, bytes] = {}
    previous = ""
    try:
        compression = _compression(path)
        with tarfile.open(path, "r:" + compression) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is None:
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, suffix = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if key != previous:
                    yield from _sample(path, previous, group)
                    group, previous = {}, key
                if member.size + sum(map(len, group.values())) > RECORDING_LIMIT:  # sparse members cost nothing
                    problem = f"it has {member.size // MB} MB, more than the {RECORDING_LIMIT // MB} that are read"
                    yield Item(f"{path.stem}/{member.name}", b"", f"{path.name}: {member.name}", problem=problem)
                    continue
                group[f".{suffix.lower()}"] = file.read()
            # An archive ends with two blocks of zeros. A truncated header ends the loop without an error.
            if not compression and path.stat().st_size < archive.offset + tarfile.BLOCKSIZE:
                raise EOFError("it has no end")
        yield from _sample(path, previous, group)
    except Exception as error:  # tarfile and the decompressors raise many kinds of errors
        yield from _sample(path, previous, group)
        problem = f"{path.name} is damaged from here on ({first_line(error)})"
        yield Item(f"{path.stem}/after {previous}", b"", f"{path.name}, after {previous}", problem=problem)


def _compression(path: Path) -> Any:
    """How an archive is compressed, by its first bytes. Trying all, as tarfile does, reads gigabytes of zeros as xz."""
    with path.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"\x1f\x8b"):
        return "gz"
    return "bz2" if head.startswith(b"BZh") else "xz" if head.startswith(b"\xfd7zXZ") else ""


def _sample(path: Path, key: str, group: dict[str, bytes]) -> Iterator[Item]:
    """The utterance in the members of one name, if they include audio."""
    audio = next((data for suffix, data in group.items() if suffix in SUFFIXES), None)
    if audio is None:
        return
    where, problem = f"{path.name}: {key}", ""
    try:
        row = parse_json(group.get(".json", b"{}"))
    except ValueError:
        row = None
    if not isinstance(row, dict):
        row, problem = {}, "its .json is damaged"
    yield Item(f"{path.stem}/{key}", audio, where, *facts(row), problem=problem)


def read_parquet(path: Path) -> Iterator[Item]:
    """The utterances of a Parquet file with a column of audio: one of this package's shards, or of a data set."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            if "audio" not in file.schema_arrow.names:
                raise LlasaError(f"{path} has no column audio: pass shards of audio (`llasa data encode` makes codes)")
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    yield _row(row, "audio", f"{path.name}, row {number}", f"{path.stem}-{number:06d}", _read_here)
                    number += 1
    except (pa.ArrowException, OSError) as error:
        problem = f"{path.name} is damaged ({first_line(error)})"
        yield Item(f"{path.stem}/after {number}", b"", f"{path.name}, from row {number} on", problem=problem)


def _row(row: dict[str, Any], column: str, where: str, name: str, read: Callable[[str], bytes]) -> Item:
    """An item of a table's row whose audio is bytes, or bytes and a path as in the `datasets` library.

    Args:
        read: reads the file at a path, if there are no bytes.
    """
    sound, problem = row[column], ""
    if isinstance(sound, dict):
        path = sound.get("path") or ""
        sound = sound.get("bytes") or path
    if isinstance(sound, str):
        try:
            sound = read(sound) if sound else b""
        except LlasaError as error:
            sound, problem = b"", str(error)
    nested = row["json"] if isinstance(row.get("json"), dict) else {}  # a webdataset on the hub
    flat = nested | {key: value for key, value in row.items() if key != column}
    phones, ends = tuple(row.get("phones") or ()), tuple(row.get("ends") or ())
    return Item(pick(flat, "id") or name, sound or b"", where, *facts(flat), phones, ends, problem)


def _read_here(path: str) -> bytes:
    """The bytes of a file on this machine that a local table refers to. Nothing is fetched for it."""
    if "://" in path:
        raise LlasaError(f"its audio is at {path}, which is not fetched: put the bytes into the table")
    return read_bytes(path, RECORDING_LIMIT)


def _fetch(path: str) -> bytes:
    """The bytes of a file that a data set refers to, on this machine or on the hub."""
    import fsspec

    try:
        with fsspec.open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _hub(name: str, split: str) -> Source:
    name, _, subset = name.partition(":")
    data = _dataset(name, subset, split)
    read = [partial(_read_hub, name, subset, split, index) for index in range(data.num_shards)]
    digest = _digest([(name, subset, split, data.num_shards)])
    return Source("hub", [Task(index, part) for index, part in enumerate(read)], digest)


def _dataset(name: str, subset: str, split: str) -> Any:
    from datasets import load_dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        return load_dataset(name, subset or None, split=split, streaming=True)
    except Exception as error:  # the library raises the errors of its network, file and format layers
        found = f"there is no folder {name}, and the data set of that name cannot be read from the hub"
        raise LlasaError(f"{found} ({first_line(error)})") from error


def _read_hub(name: str, subset: str, split: str, index: int) -> Iterator[Item]:
    """The utterances of one file of a data set, streamed. The library does not decode the audio."""
    from datasets import Audio

    data = _dataset(name, subset, split)
    data = data.shard(num_shards=data.num_shards, index=index)
    features = data.features or {}
    column = next((key for key, feature in features.items() if isinstance(feature, Audio)), None)
    if column is None:
        raise LlasaError(f"the data set {name} has no column of audio")
    try:
        for number, row in enumerate(data.cast_column(column, Audio(decode=False))):
            yield _row(row, column, f"{name}, file {index}, row {number}", f"{index:05d}-{number:07d}", _fetch)
    except Exception as error:  # as above; finished shards stay
        raise LlasaError(f"reading {name} stopped ({first_line(error)}): run the same command again") from error


def _stamp(audio: Path | bytes) -> tuple[int, ...]:
    """Size and time of a recording, which change if it is replaced; empty if it does not exist."""
    try:
        found = Path(audio).stat() if isinstance(audio, Path) else None
    except (OSError, ValueError):
        found = None
    return (found.st_size, found.st_mtime_ns) if found else ()


def _digest(rows: Iterable[tuple[Any, ...]]) -> str:
    found = hashlib.sha256()
    for row in rows:
        found.update(f"{row!r}\n".encode())
    return found.hexdigest()[:16]

"""A source of audio and text as shard tasks: parts of it, always the same ones, each read on its own.

Knows which layout a source has and how archives are read. A part is what becomes one shard of codes: so many files of
a folder or table; one tar; one Parquet file; one file of a data set on the hub.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llasa.data import layouts
from llasa.data.layouts import MANIFESTS, SUFFIXES, Item, facts, pick
from llasa.errors import LlasaError
from llasa.loading import first_line

LISTED: dict[str, Callable[[Path], list[Item]]] = {
    "folder": layouts.folder,
    "manifest": layouts.manifest,
    "ljspeech": layouts.ljspeech,
    "librispeech": layouts.librispeech,
    "libritts": layouts.libritts,
    "commonvoice": layouts.commonvoice,
}
LAYOUTS = (*LISTED, "emilia", "parquet", "hub")


@dataclass(frozen=True)
class Task:
    """The part of a source that becomes the shard of this number. It can be sent to another process."""

    index: int
    read: Callable[[], Iterable[Item]]

    @property
    def shard(self) -> str:
        return f"{self.index:05d}.parquet"


@dataclass(frozen=True)
class Source:
    """A source in tasks, and a digest of what it holds that changes when it does.

    Attributes:
        shard: utterances a task, if the source does not come in shards.
    """

    layout: str
    tasks: list[Task]
    digest: str
    shard: int | None = None


def find_source(name: str, layout: str | None = None, shard: int = 1000, split: str = "train") -> Source:
    """Lists what a source holds.

    Args:
        name: a folder, a file, or the id of a data set on the hub, `owner/name` or `owner/name:subset`.
        layout: one of LAYOUTS, by default what the source looks like.
        shard: utterances a shard, of layouts that do not come in shards.
        split: of a data set on the hub.

    Raises:
        LlasaError: there is no such source, no such layout, or nothing in it.
    """
    path = Path(name).resolve()
    layout = layout or detect(name)
    if layout not in LAYOUTS:
        raise LlasaError(f"there is no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    if layout == "hub":
        return _hub(name, split)
    if not path.exists():
        raise LlasaError(f"there is no file or folder {name}")
    if layout == "manifest" and path.is_dir() and not any((path / n).is_file() for n in MANIFESTS):
        raise LlasaError(f"{name} has none of {', '.join(MANIFESTS)}: name the manifest itself")
    if layout in LISTED:
        items = LISTED[layout](path)
        if not items:
            raise LlasaError(f"no recordings of the layout {layout} in {name}: pass another --layout")
        digest = _digest((i.id, i.where, i.text, i.speaker, i.language, *_stamp(i.audio)) for i in items)
        parts = [tuple(items[start : start + shard]) for start in range(0, len(items), shard)]
        return Source(layout, [Task(i, partial(iter, part)) for i, part in enumerate(parts)], digest, shard)
    suffix, read = (".tar", read_tar) if layout == "emilia" else (".parquet", read_parquet)
    files = [path] if path.is_file() else _below(path, suffix)
    if not files:
        raise LlasaError(f"no {suffix} files in {name}")
    digest = _digest((file.name, file.stat().st_size) for file in files)
    return Source(layout, [Task(i, partial(read, file)) for i, file in enumerate(files)], digest)


def detect(name: str) -> str:
    """The layout that a source looks like.

    Raises:
        LlasaError: it does not exist and cannot be a hub id either, or looks like none of them.
    """
    path = Path(name)
    if not path.exists():
        if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?", name):
            return "hub"
        raise LlasaError(f"there is no file or folder {name}, and it is no hub id (owner/name)")
    if path.is_file():
        known = {".jsonl": "manifest", ".csv": "manifest", ".tsv": "commonvoice"}
        found = (known | {".tar": "emilia", ".parquet": "parquet"}).get(path.suffix)
        if found is None:
            raise LlasaError(f"{name} is no source: a folder, .jsonl, .csv, .tsv, .tar or .parquet is, or a hub id")
        return found
    table = path / "metadata.csv"
    if table.is_file() and "|" in table.open(encoding="utf-8", errors="replace").readline():
        return "ljspeech"
    if any((path / name).is_file() for name in MANIFESTS):
        return "manifest"
    if (path / "clips").is_dir() and next(path.glob("*.tsv"), None):
        return "commonvoice"
    looks = {"*.parquet": "parquet", "*.tar": "emilia", "*.trans.txt": "librispeech", "*.normalized.txt": "libritts"}
    for pattern, layout in looks.items():
        if next(path.rglob(pattern), None):
            return layout
    if any(file.suffix.lower() in SUFFIXES for file in path.rglob("*")):
        return "folder"
    raise LlasaError(f"no audio in {name}: {', '.join(sorted(SUFFIXES))} files, .tar or .parquet are looked for")


def read_tar(path: Path) -> Iterator[Item]:
    """The utterances of a webdataset tar: members of one name beside one another, an audio file and a `.json`.

    Emilia's `.json` has `id`, `text`, `speaker`, `language`. If the archive is damaged, what comes before is read and a
    last item says so.
    """
    group: dict[str, bytes] = {}
    previous = ""
    try:
        with tarfile.open(path) as archive:
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
                group[f".{suffix.lower()}"] = file.read()
            # Two blocks of zeros end an archive; a header that is cut off ends the loop without an error.
            if path.stat().st_size < archive.offset + tarfile.BLOCKSIZE:
                raise EOFError("it has no end")
        yield from _sample(path, previous, group)
    except (tarfile.TarError, EOFError, OSError) as error:
        yield from _sample(path, previous, group)
        problem = f"{path.name} is damaged from here on ({first_line(error)})"
        yield Item(f"{path.stem}/after {previous}", b"", f"{path.name}, after {previous}", problem=problem)


def _sample(path: Path, key: str, group: dict[str, bytes]) -> Iterator[Item]:
    """The utterance in the members of one name, if there is audio among them."""
    audio = next((data for suffix, data in group.items() if suffix in SUFFIXES), None)
    if audio is None:
        return
    where, problem = f"{path.name}: {key}", ""
    try:
        row = json.loads(group.get(".json", b"{}"))
    except ValueError:
        row = None
    if not isinstance(row, dict):
        row, problem = {}, "its .json is damaged"
    yield Item(f"{path.stem}/{key}", audio, where, *facts(row), problem=problem)


def read_parquet(path: Path) -> Iterator[Item]:
    """The utterances of a Parquet shard with a column of audio: this package's shards, or a data set's of the hub."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            if "audio" not in file.schema_arrow.names:
                raise LlasaError(f"{path} has no column audio: was it made by `llasa data encode` itself?")
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    yield _row(row, "audio", f"{path.name}, row {number}", f"{path.stem}-{number:06d}")
                    number += 1
    except (pa.ArrowException, OSError) as error:
        problem = f"{path.name} is damaged ({first_line(error)})"
        yield Item(f"{path.stem}/after {number}", b"", f"{path.name}, from row {number} on", problem=problem)


def _row(row: dict[str, Any], column: str, where: str, name: str) -> Item:
    """A row of a table whose audio is bytes, or bytes and a path as the `datasets` library has it."""
    sound = row[column]
    if isinstance(sound, dict):
        path = sound.get("path") or ""
        sound = sound.get("bytes") or path
    if isinstance(sound, str):
        sound = _fetch(sound) if sound else b""
    nested = row["json"] if isinstance(row.get("json"), dict) else {}  # a webdataset on the hub
    flat = nested | {key: value for key, value in row.items() if key != column}
    phones, ends = tuple(row.get("phones") or ()), tuple(row.get("ends") or ())
    return Item(pick(flat, "id") or name, sound or b"", where, *facts(flat), phones, ends)


def _fetch(path: str) -> bytes:
    """A file that a data set names instead of holding it: on this machine, or on the hub."""
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
    except Exception as error:  # the library raises what its network, file and format layers do
        found = f"there is no folder {name}, and the data set of that name cannot be read from the hub"
        raise LlasaError(f"{found} ({first_line(error)})") from error


def _read_hub(name: str, subset: str, split: str, index: int) -> Iterator[Item]:
    """The utterances of one of a data set's files, streamed; the audio is not decoded by the library."""
    from datasets import Audio

    data = _dataset(name, subset, split)
    data = data.shard(num_shards=data.num_shards, index=index)
    features = data.features or {}
    column = next((key for key, feature in features.items() if isinstance(feature, Audio)), None)
    if column is None:
        raise LlasaError(f"the data set {name} has no column of audio")
    try:
        for number, row in enumerate(data.cast_column(column, Audio(decode=False))):
            yield _row(row, column, f"{name}, file {index}, row {number}", f"{index:05d}-{number:07d}")
    except Exception as error:  # as above; what is finished stays
        raise LlasaError(f"reading {name} stopped ({first_line(error)}): run the same command again") from error


def _below(folder: Path, suffix: str) -> list[Path]:
    return sorted(path for path in folder.rglob(f"*{suffix}") if not path.name.startswith("."))


def _stamp(audio: Path | bytes) -> tuple[int, ...]:
    """Size and time of a recording, by which one that was replaced is told; nothing of one that is not there."""
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

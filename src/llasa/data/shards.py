"""Reads and writes Parquet shards, the form of a corpus on disk: with audio before encoding, with codes after it."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from llasa.errors import LlasaError, first_line
from llasa.files import whole

_COMMON = [("id", pa.string()), ("text", pa.string())]
_FACTS = [("speaker", pa.string()), ("language", pa.string()), ("seconds", pa.float32())]
_ALIGNMENT = [("phones", pa.list_(pa.string())), ("ends", pa.list_(pa.float32()))]

AUDIO_SCHEMA = pa.schema([*_COMMON, ("audio", pa.binary()), *_FACTS, *_ALIGNMENT])
CODES_SCHEMA = pa.schema([*_COMMON, ("codes", pa.list_(pa.uint16())), *_FACTS, *_ALIGNMENT])


def write_shard(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Writes rows as a shard, whole or not at all.

    Raises:
        LlasaError: it cannot be written, for instance because the disk is full.
    """
    try:
        # Here and below pyarrow gets open files: it takes no names that are not UTF-8.
        with whole(path) as temporary, temporary.open("wb") as file:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    except LlasaError as error:
        raise LlasaError(f"{error}; what is finished is kept, so run the same again") from error


def shard_files(folder: Path) -> list[Path]:
    """The shards of a corpus folder, in name order.

    Raises:
        LlasaError: there is none.
    """
    files = sorted(p for p in folder.glob("*.parquet") if not p.name.startswith("."))
    if not files:
        raise LlasaError(f"no .parquet shards in {folder}: make the corpus first, with `llasa data`")
    return files


def read_rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of one shard. `phones` and `ends` are empty if it has no such columns.

    Args:
        columns: the columns to read, as far as the shard has them; by default all.

    Raises:
        LlasaError: the file is not a whole Parquet shard.
    """
    try:
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            table = file.read([name for name in names if columns is None or name in columns])
    except (pa.ArrowInvalid, OSError) as error:
        raise LlasaError(f"{path} is not a whole Parquet shard ({error}): delete it and make it again") from error
    for batch in table.to_batches(max_chunksize=256):
        yield from ({"phones": [], "ends": []} | row for row in batch.to_pylist())


def read_codes(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one shard of codes.

    Raises:
        LlasaError: the file is not a whole Parquet shard, or holds audio.
    """
    for row in read_rows(path):
        if "codes" not in row:
            raise LlasaError(f"{path} holds audio, not codes: run `llasa data encode` on its folder first")
        yield row


def open_codes(files: list[Path]) -> Any:
    """The rows of one folder's shards of codes as a `datasets.Dataset` that is mapped from disk.

    The `datasets` library writes a copy into its cache (HF_DATASETS_CACHE) and maps that. Whoever opens the same shards
    next, in any process, uses the same copy.

    Raises:
        LlasaError: a shard is damaged or holds audio, the shards have different columns, or the copy cannot be written.
    """
    import datasets

    folder = files[0].parent
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train")
    except Exception as error:  # from the library, pyarrow or the system
        told = first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise LlasaError(
            f"cannot map the shards of {folder} ({told}): make room in {datasets.config.HF_DATASETS_CACHE}, or make "
            "them again if they are damaged"
        ) from error
    if "codes" not in found.column_names:
        raise LlasaError(f"{folder} holds audio, not codes: run `llasa data encode` on it first")
    return found


def row_audio(row: dict[str, Any]) -> np.ndarray:
    """The float32 mono samples of a row, at the corpus' rate of 16 kHz."""
    samples, _ = soundfile.read(io.BytesIO(row["audio"]), dtype="float32")
    return samples

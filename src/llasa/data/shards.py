"""Parquet shards: how a corpus lies on disk, with audio before tokenising and with codes after."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from llasa.errors import LlasaError
from llasa.writing import whole

_COMMON = [("id", pa.string()), ("text", pa.string())]
_FACTS = [("speaker", pa.string()), ("language", pa.string()), ("seconds", pa.float32())]
_ALIGNMENT = [("phones", pa.list_(pa.string())), ("ends", pa.list_(pa.float32()))]

AUDIO_SCHEMA = pa.schema([*_COMMON, ("audio", pa.binary()), *_FACTS, *_ALIGNMENT])
CODES_SCHEMA = pa.schema([*_COMMON, ("codes", pa.list_(pa.uint16())), *_FACTS, *_ALIGNMENT])


def write_shard(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Writes rows as a shard, whole or not at all.

    Raises:
        LlasaError: it cannot be written; a disk is full, say.
    """
    try:
        with whole(path) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)
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
    """The rows of one shard.

    Raises:
        LlasaError: the file is not a whole Parquet shard; the message names it.
    """
    try:
        table = pq.read_table(path, columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise LlasaError(f"{path} is not a whole Parquet shard ({error}): delete it and make it again") from error
    for batch in table.to_batches(max_chunksize=256):
        yield from batch.to_pylist()


def row_audio(row: dict[str, Any]) -> np.ndarray:
    """The float32 mono samples of a row, at the rate the corpus was written with (16 kHz)."""
    samples, _ = soundfile.read(io.BytesIO(row["audio"]), dtype="float32")
    return samples

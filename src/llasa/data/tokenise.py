"""Turns a corpus of audio shards into a corpus of codes shards, shard by shard; what exists is left alone."""

from collections.abc import Iterator
from pathlib import Path

from llasa.codec import Codec
from llasa.data.shards import CODES_SCHEMA, read_rows, row_audio, shard_files, write_shard

BATCH = 16  # utterances of about one length at once


def tokenise(source: Path, out: Path, codec: Codec, part: int = 0, parts: int = 1) -> Iterator[tuple[int, float]]:
    """Encodes every shard of `source` into `out` under the same name; yields (utterances, seconds) for each new one.

    Args:
        part, parts: take every `parts`-th shard from `part` on, to share the work among processes.
    """
    out.mkdir(parents=True, exist_ok=True)
    for file in shard_files(source)[part::parts]:
        if (out / file.name).exists():
            continue
        rows = sorted(read_rows(file), key=lambda row: row["seconds"])
        for start in range(0, len(rows), BATCH):
            group = rows[start : start + BATCH]
            found = codec.encode_batch([row_audio(row) for row in group])
            for row, codes in zip(group, found, strict=True):
                row["codes"] = codes
                del row["audio"]
        rows.sort(key=lambda row: row["id"])
        write_shard(out / file.name, rows, CODES_SCHEMA)
        yield len(rows), sum(row["seconds"] for row in rows)

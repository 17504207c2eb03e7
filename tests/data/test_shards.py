"""Reading shards: whatever columns they have, and only those that are asked for."""

from pathlib import Path

from llasa.data.shards import AUDIO_SCHEMA, read_rows, write_shard

ROW = {
    "id": "a", "text": "one", "audio": b"fLaC", "speaker": "me", "language": "en", "seconds": 1.0, "phones": ["w"],
    "ends": [0.5],
}  # fmt: skip


def test_only_the_columns_that_are_asked_for_are_decoded(tmp_path: Path):
    write_shard(tmp_path / "a.parquet", [ROW], AUDIO_SCHEMA)
    assert list(read_rows(tmp_path / "a.parquet")) == [ROW]
    found = list(read_rows(tmp_path / "a.parquet", ["id", "seconds", "codes"]))
    assert found == [{"id": "a", "seconds": 1.0, "phones": [], "ends": []}]

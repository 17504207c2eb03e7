"""Recordings into shards of audio: what cannot be read costs itself and is told."""

from pathlib import Path

import pytest
from data.corpora import folder

from llasa.cli import main
from llasa.data.shards import read_rows, shard_files


def test_a_corrupt_recording_costs_itself_and_a_hidden_file_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    corpus, out = folder(tmp_path / "mine"), tmp_path / "out"
    (corpus / "speaker0" / "b-broken.wav").write_bytes(b"RIFF")
    (corpus / "speaker0" / "._0.wav").write_bytes(b"macOS")
    with pytest.raises(SystemExit) as ended:
        main(["data", "recordings", str(corpus), str(out)])
    assert ended.value.code == 0
    kept = [row["id"] for part in ("real", "val-real") for file in shard_files(out / part) for row in read_rows(file)]
    assert sorted(kept) == ["0", "1", "2", "3", "4"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].split()[:2] == ["kept", "5"]
    assert lines[-1].startswith("cannot be read              1")
    assert "b-broken.wav" in lines[-1]

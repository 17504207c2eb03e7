"""`llasa data encode`, `llasa data import` and `llasa data export`."""

from pathlib import Path

import numpy as np
import pytest
from commands.runner import Run, fails
from data.corpora import TEXTS, folder

from llasa.data.shards import AUDIO_SCHEMA, read_rows, shard_files, write_shard


@pytest.fixture
def ljspeech(tmp_path: Path) -> Path:
    """What upstream's scripts leave of LJSpeech: transcripts beside a folder of code files."""
    folder = tmp_path / "LJSpeech-1.1"
    codes = folder / "codes" / "vq_codes"
    codes.mkdir(parents=True)
    for i in range(31):
        np.save(codes / f"LJ001-{i:04d}.wav.npy", np.arange(i + 1, dtype=np.int32))
    np.save(codes / "LJ002-0000.wav.npy", np.arange(3, dtype=np.int32))
    (folder / "metadata.csv").write_text("".join(f"LJ001-{i:04d}|it was number {i}.|spoken\n" for i in range(31)))
    return folder


def test_code_files_become_shards_become_rows_become_shards(run: Run, ljspeech: Path, lm_folder: Path, tmp_path: Path):
    model = ("--model", lm_folder)
    result = run("data", "import", ljspeech, tmp_path / "codes", *model, "--speaker", "lj")
    assert result.code == 0
    told = ["left out without a transcript: 1", "train: 30 utterances, 0.00 hours", "val: 1 utterances, 0.00 hours"]
    assert result.err.splitlines() == told
    result = run("data", "export", tmp_path / "codes", tmp_path / "bin", *model)
    assert result.err.splitlines() == [
        "train: 30 rows, 0 of them cut to 2048 tokens",
        "val: 1 rows, 0 of them cut to 2048 tokens",
    ]
    assert run("data", "import", tmp_path / "bin", tmp_path / "again", *model).code == 0
    for split in ("train", "val"):
        one, other = (
            [row for f in shard_files(tmp_path / at / split) for row in read_rows(f)] for at in ("codes", "again")
        )
        assert [row["codes"] for row in one] == [row["codes"] for row in other]
        assert {row["speaker"] for row in one} == {"lj"}
        assert {row["speaker"] for row in other} == {""}
        # The digits are none of this tokenizer's characters.
        assert other[0]["text"] == "it was number ."
    assert (tmp_path / "codes" / "train" / "LJSpeech-1.1-00000.parquet").exists()
    fails(run("data", "import", tmp_path / "bin", tmp_path / "again", *model), "again/train has shards already")


def test_what_cannot_be_imported_or_exported(run: Run, ljspeech: Path, lm_folder: Path, tmp_path: Path):
    model = ("--model", lm_folder)
    out = tmp_path / "out"
    fails(run("data", "import", tmp_path / "none", out, *model), "no folder")
    (tmp_path / "empty").mkdir()
    fails(run("data", "import", tmp_path / "empty", out, *model), "pass --text")
    fails(run("data", "import", tmp_path / "empty", out, *model, "--text", ljspeech / "metadata.csv"), "no .npy files")
    fails(run("data", "export", tmp_path / "empty", out, *model), "no .parquet shards")
    facts = {"speaker": "", "language": "", "seconds": 1.0, "phones": [], "ends": []}
    write_shard(tmp_path / "empty" / "a.parquet", [{"id": "a", "text": "a", "audio": b"", **facts}], AUDIO_SCHEMA)
    fails(run("data", "export", tmp_path / "empty", out, *model), "holds audio, not codes")
    (ljspeech / "codes" / "vq_codes" / "LJ001-0000.wav.npy").write_bytes(b"\x93NUMPY")
    (ljspeech / "codes" / "vq_codes" / "LJ002-0000.wav.npy").unlink()
    fails(run("data", "import", ljspeech, out, *model), "is damaged or not a .npy file")
    assert [path.name for path in out.rglob("*.*")] == [".lock"]


def test_a_folder_becomes_codes_and_a_report(run: Run, codec_folder: Path, tmp_path: Path):
    corpus, out = folder(tmp_path / "corpus"), tmp_path / "codes"
    (corpus / "broken.wav").write_bytes(b"RIFF")
    result = run("data", "encode", corpus, out, "--model", codec_folder)
    assert result.code == 0
    assert result.out == b""
    taken, *lines = result.err.splitlines()
    assert taken == "folder; texts: 5 from NAME.txt beside the recordings, 1 recordings without; speakers: folders"
    assert lines[1].split()[:2] == ["kept", "5"]
    assert lines[2].startswith("cannot be read              1")
    assert "broken.wav" in lines[2]
    assert "x real time" in lines[3]
    rows = [row for file in shard_files(out) for row in read_rows(file)]
    assert {row["text"]: row["speaker"] for row in rows} == {t: f"speaker{i % 2}" for i, t in enumerate(TEXTS)}
    again = run("data", "encode", corpus, out, "--model", codec_folder)
    assert (again.code, again.err.splitlines()) == (0, [taken, *lines[:3]])
    other = run("data", "encode", corpus, out, "--model", codec_folder, "--longest", 9)
    assert (other.code, other.out) == (1, b"")
    assert "begun with another filters" in other.err.splitlines()[1]


def test_what_cannot_be_encoded(run: Run, codec_folder: Path, tmp_path: Path):
    model = ("--model", codec_folder)
    corpus, out = folder(tmp_path / "corpus"), tmp_path / "codes"
    fails(run("data", "encode", tmp_path / "none", out, *model), "no file or folder")
    (tmp_path / "file").write_text("")
    for wrong, told in (
        ((out, "--model", tmp_path / "none"), "none"),
        ((tmp_path / "file", *model), "cannot write to "),
    ):
        result = run("data", "encode", corpus, *wrong)
        assert (result.code, result.out) == (1, b"")
        taken, error = result.err.splitlines()
        assert taken.startswith("folder; ")
        assert error.startswith("error: ")
        assert told in error
    result = run("data", "encode", corpus, out, *model, "--shortest", 5)
    assert result.code == 1
    assert "too short                   5" in result.err
    assert result.err.splitlines()[-1].startswith("error: nothing of ")

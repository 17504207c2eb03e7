"""`llasa data synth`: what it takes, what it tells, and one line for what is wrong."""

from pathlib import Path

import pytest

from llasa.cli import main
from llasa.commands.synth import shares_of
from llasa.data.shards import read_rows, shard_files
from llasa.data.teachers.flite import Flite
from llasa.errors import LlasaError

LINES = ["It was late.", "The lamp was low.", "Nobody spoke.", "A dog ran by.", "Rain fell on the roof."]


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["data", "synth", *map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES))
    return path


def test_a_corpus_is_made_and_then_there(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = [text, tmp_path / "out", "--held-out", "2", "--voice", "slt=1", "--format", "opus", "--workers", "1"]
    assert run(*wanted) == 0
    told = capsys.readouterr().err
    assert "val: 2 utterances, 0.00 hours, " in told
    assert "x real time" in told
    rows = {p: [r for f in shard_files(tmp_path / "out" / p) for r in read_rows(f)] for p in ("val", "train")}
    assert [[row["text"] for row in part] for part in rows.values()] == [LINES[:2], LINES[2:]]
    assert {row["speaker"] for part in rows.values() for row in part} == {"slt"}
    assert run(*wanted) == 0
    assert "real time" not in capsys.readouterr().err
    assert run(*wanted[:-4], "--workers", "1") == 1
    assert "was begun with another format" in capsys.readouterr().err


def test_a_text_that_is_over_before_the_hours_is_told(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(text, tmp_path / "out", "--held-out", "1", "--hours", "1", "--speakers", "0") == 0
    assert "train: the text ends before 1 hours are reached" in capsys.readouterr().err


def test_shares_are_read() -> None:
    assert shares_of(["rms=0.25", "slt-001=.5"], Flite(4)) == {"rms": 0.25, "slt-001": 0.5}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["rms"], "rms is not NAME=SHARE"),
        (["rms=much"], "rms=much is not NAME=SHARE"),
        (["rms=nan"], "rms=nan is not NAME=SHARE"),
        (["rms=1.5"], "a share above 0 and up to 1"),
        (["anna=0.5"], "flite has no voice anna: choose from rms, slt, awb, kal16; and rms-000 to kal16-003"),
        (["rms=0.5", "rms=0.2"], "rms is given twice"),
        (["rms=0.7", "slt=0.7"], "the sum of the voices' shares is 1.4"),
    ],
)
def test_shares_that_make_no_sense_are_refused(given: list[str], told: str) -> None:
    with pytest.raises(LlasaError, match=told):
        shares_of(given, Flite(4))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--teacher", "anna"], "there is no teacher anna: choose one of flite, kokoro, piper"),
        (["--model", "x.onnx"], "flite takes no model: that is for kokoro and piper"),
        (["--teacher", "piper", "--voices", "v"], "piper takes no file of voices: that is for kokoro"),
        (["--teacher", "piper", "--mixtures", "3"], "piper takes no number of invented voices"),
        (["--teacher", "kokoro", "--model", "none.onnx"], "there is no model file none.onnx"),
        (["--format", "mp3"], "there is no format mp3: choose one of flac, opus"),
        (["--hours", "0"], "--hours is 0: give a number above 0"),
        (["--held-out", "5"], "has 5 usable sentences, too few to hold out 5"),
    ],
)
def test_what_is_wrong_is_one_line(
    options: list[str], told: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "kokoro" in options:
        pytest.importorskip("kokoro_onnx", reason="kokoro-onnx is not installed: it wants a Python before 3.14")
    assert run(text, tmp_path / "out", *options) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not (tmp_path / "out").exists()


def test_a_file_without_a_sentence_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "numbers").write_text("...\n--\n")
    assert run(tmp_path / "numbers", tmp_path / "out") == 1
    assert "has no sentence of 4 to 170 characters" in capsys.readouterr().err
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfa")
    assert run(tmp_path / "bytes", tmp_path / "out") == 1
    assert "is not UTF-8 text" in capsys.readouterr().err
    assert run(tmp_path / "none", tmp_path / "out") == 1
    assert "there is no file" in capsys.readouterr().err

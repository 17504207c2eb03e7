"""`llasa transcribe`: files, folders, formats, and what cannot be done."""

import json
from pathlib import Path

import pytest
import soundfile
from commands.runner import Run, fails
from listening import PHRASES, RATE, recording


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talks" / "one.wav"
    path.parent.mkdir()
    soundfile.write(path, recording(["alma", "clara"]), RATE)
    return path


TEXT = f"{PHRASES['alma'][1]} {PHRASES['clara'][1]}"


def test_one_recording_is_written_to_standard_output(run: Run, talk: Path, listening_folder: Path) -> None:
    assert run("transcribe", talk, "--model", listening_folder).out.decode() == f"{TEXT}\n"
    done = run("transcribe", talk, "--model", listening_folder, "--format", "json")
    assert (done.code, json.loads(done.out)["text"]) == (0, TEXT)


def test_a_folder_becomes_files_and_goes_on_where_it_stopped(run: Run, talk: Path, listening_folder: Path) -> None:
    soundfile.write(talk.parent / "two.flac", recording(["edith"]), RATE)
    asked = ("transcribe", talk.parent, "--model", listening_folder, "--format", "srt")
    assert "2 files made" in run(*asked).err
    assert PHRASES["alma"][1] in (talk.parent / "one.srt").read_text()
    assert (talk.parent / "two.srt").read_text().startswith("1\n00:00:00,")
    (talk.parent / "one.srt").unlink()
    (talk.parent / "two.srt").write_text("mine")
    assert "1 files made" in (again := run(*asked)).err
    assert "1 existed already" in again.err
    assert (talk.parent / "two.srt").read_text() == "mine"


def test_a_bad_file_does_not_stop_the_others(run: Run, talk: Path, listening_folder: Path) -> None:
    (talk.parent / "bad.wav").write_bytes(b"no sound")
    done = run("transcribe", talk.parent, "-o", talk.parent / "out", "--model", listening_folder)
    assert done.code == 1
    assert "bad.wav cannot be read as audio" in done.err
    assert "1 of 2 files failed" in done.err
    assert (talk.parent / "out" / "one.txt").read_text() == f"{TEXT}\n"


def test_what_cannot_be_done_is_told_in_one_line(run: Run, talk: Path, lm_folder: Path, tmp_path: Path) -> None:
    fails(run("transcribe", talk, "--format", "pdf"), "unknown format pdf: use text, json, srt, vtt")
    fails(run("transcribe", tmp_path / "none.wav"), "there is no file")
    fails(run("transcribe", talk, "-o", tmp_path / "x.pdf"), "end its name in .txt")
    fails(run("transcribe", talk, "--model", lm_folder), "was not trained to recognise speech")

"""Ctrl-C and closed pipes: what is finished is kept, and nobody sees a traceback."""

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands.runner import Run, read_wav

from llasa import audio
from llasa.commands import say as verb
from llasa.speak import takes
from llasa.tts import Llasa

LONG = "This is a sentence of the long text that is spoken here. " * 30


def start(python: list[str], arguments: list[object], **files: object) -> subprocess.Popen:
    def restore() -> None:  # a shell without job control starts its background jobs with Ctrl-C ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [*python, "-m", "llasa", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=restore, **files)  # type: ignore[call-overload]


def test_ctrl_c_during_a_stream_leaves_a_whole_file(python: list[str], lm_folder: Path, tmp_path: Path):
    (tmp_path / "text.txt").write_text(LONG * 20)
    path = tmp_path / "out.wav"
    with path.open("wb") as file:
        process = start(python, ["say", "-f", tmp_path / "text.txt", "--stream", "--model", lm_folder], stdout=file)
        deadline = time.monotonic() + 100
        while path.stat().st_size < 100_000 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    assert "interrupted: kept what was spoken" in err
    assert "Traceback" not in err
    header = path.read_bytes()[:44]
    assert int.from_bytes(header[40:44], "little") == path.stat().st_size - 44
    assert len(read_wav(path.read_bytes())) > 40_000


def test_ctrl_c_saves_the_chunks_that_are_finished(
    say: Run, model: Llasa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    @contextmanager
    def impatient(label: str):
        def advance(done: float, total: float, seconds: float) -> None:
            if done > limit:
                raise KeyboardInterrupt

        yield advance

    monkeypatch.setattr(verb, "bar", impatient)
    monkeypatch.setattr(takes, "ROWS", 1)
    limit = 4.0
    result = say(LONG, "-o", tmp_path / "out.wav", "--seed", 1)
    assert result.code == 130
    assert "interrupted: kept the" in result.err
    assert len(audio.load(tmp_path / "out.wav")) / 16000 > 1
    limit = 0.0
    result = say(LONG, "-o", tmp_path / "none.wav", "--seed", 1)
    assert result.code == 130
    assert result.err == "interrupted: nothing was finished\n"
    assert os.listdir(tmp_path) == ["out.wav"]


def test_a_reader_that_goes_away_is_no_error(python: list[str], lm_folder: Path):
    process = start(python, ["say", LONG * 3, "--stream", "--model", lm_folder], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert len(process.stdout.read(1000)) == 1000
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read().decode()
    assert process.wait(timeout=60) == 1
    assert err == ""

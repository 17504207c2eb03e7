"""The command line in this process, its model loaded once."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands.runner import Result, Run

from llasa.cli import main
from llasa.tts import Llasa


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the command line in this process; standard output is no terminal."""
    monkeypatch.setenv("LLASA_HOME", str(tmp_path / "home"))

    def call(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, err = capsysbinary.readouterr()
        return Result(int(stop.value.code or 0), out, err.decode())

    return call


@pytest.fixture(scope="module")
def model(lm_folder: Path) -> Llasa:
    return Llasa.load(lm_folder)


@pytest.fixture
def say(run: Run, lm_folder: Path, model: Llasa, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`llasa say` with a model that is loaded once for all tests; no chunk lasts more than a second."""
    monkeypatch.setattr(Llasa, "load", lambda name, **options: model)

    def call(*arguments: object, stdin: bytes = b"") -> Result:
        return run("say", *arguments, "--model", lm_folder, "--max-seconds", 1, stdin=stdin)

    return call


@pytest.fixture
def reference(tmp_path: Path, voiced: np.ndarray) -> Path:
    path = tmp_path / "ref.wav"
    soundfile.write(path, voiced, 16000)
    return path

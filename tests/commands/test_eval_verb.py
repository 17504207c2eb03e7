"""`llasa eval`: what it refuses, in one line and before a model is loaded, and a whole run of recordings."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands.runner import Run, fails


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "data/a.wav", np.random.default_rng(0).normal(0, 0.1, 32000), 16000)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("suite", "options", "message"),
    [
        ("seed-tts", (), "seed-tts needs a list: pass its folder with --data"),
        ("seed-tts", ("--data", "nowhere"), "there is no file nowhere"),
        ("seed-tts", ("--verify", "content"), "add --search"),
        ("seed-tts", ("--search", "beam:4"), "unknown search 'beam:4'"),
        ("seed-tts", ("--search", "best-of:4", "--verify", "nobody"), "there is no verifier called nobody"),
        ("codec", ("--table",), "codec has no searches"),
        ("text", ("--judges", "nobody"), "there is no judge called nobody: choose from whisper, whisper-tiny"),
        ("text", ("--judges", " , "), "names nobody"),
        ("text", ("--judges", "stoi,stoi"), "names stoi twice"),
        ("text", ("--judges", "stoi:model"), "stoi:model is not a judge: write stoi"),
        ("text", ("--model", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    suite: str, options: tuple[str, ...], message: str, run: Run, tmp_path: Path
) -> None:
    fails(run("eval", suite, "--out", tmp_path / "out", *options), message)
    assert not (tmp_path / "out").exists()


def test_a_suite_is_run_and_told(run: Run, data: Path, tmp_path: Path) -> None:
    result = run("eval", "codec", "--data", data, "--out", tmp_path / "out", "--judges", "stoi")
    assert result.code == 0
    assert result.err.splitlines()[-1] == f"{tmp_path / 'out' / 'report.html'}: 1 items"
    assert "codes used" in result.err

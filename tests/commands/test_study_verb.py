"""`llasa study`: what it refuses, in one line and before a model is loaded."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from commands.runner import Run, fails
from studies.grids import make_corpus, small_study


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    path = tmp_path / "sentences.txt"
    path.write_text("Too short.\nThe lamp had burned low in the hall.\nNobody spoke for some time after that.\n")
    return path


def test_what_cannot_be_read_is_refused(run: Run, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    fails(run("study", "inference", "--sentences", tmp_path / "none.txt", *out), "there is no file")
    (tmp_path / "short.txt").write_text("Too short.\n\n")
    fails(run("study", "inference", "--sentences", tmp_path / "short.txt", *out), "no sentence of 30 to 110 characters")
    (tmp_path / "latin.txt").write_bytes("Das ist die längste Zeile, die es hier gibt.\n".encode("latin-1"))
    fails(run("study", "inference", "--sentences", tmp_path / "latin.txt", *out), "not UTF-8 text")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--verify", "speaker", "--listeners", "resemblyzer"), "resemblyzer is the verifier speaker"),
        (("--most", "1"), "--most 2 or more"),
        (("--strategies", "beam:4"), "unknown search 'beam:4'"),
        (("--voices", " , "), "names no voice"),
    ],
)
def test_settings_that_make_no_study_are_refused(
    options: tuple[str, ...], message: str, run: Run, sentences: Path, tmp_path: Path
) -> None:
    result = run("study", "inference", "--sentences", sentences, "--out", tmp_path / "out", *options)
    assert result.code == 1
    note, error = result.err.splitlines()
    assert note == "note: left out 1 of 3 lines that are not sentences of 30 to 110 characters"
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_a_voice_that_does_not_exist_is_refused(run: Run, sentences: Path, tmp_path: Path) -> None:
    for voices, message in (("alma,nobody", "no voice called nobody"), ("alma,not.safetensors", "no voice called not")):
        options = ("--voices", voices, "--most", "2")
        result = run("study", "inference", "--sentences", sentences, "--out", tmp_path / "out", *options)
        assert result.code == 1
        assert message in result.err.splitlines()[-1]
        assert not (tmp_path / "out").exists()


@pytest.fixture
def grid(tmp_path: Path, codec_folder: Path) -> dict[str, Any]:
    make_corpus(tmp_path / "corpus")
    return small_study(codec_folder, tmp_path / "corpus")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hours": [0.01]}, "two numbers of `hours` at least"),
        ({"size": 3}, "unknown key `size`"),
        ({"corpus": "nowhere"}, "there is no folder nowhere of codes shards"),
        ({"hours": [0.01, 5]}, "hours that can be trained on, fewer than 5"),
        ({"lm": {"codec": "nowhere"}}, "`data.validation` is missing"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(
    changes: dict[str, Any], message: str, run: Run, grid: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(grid | changes))
    fails(run("study", "train", tmp_path / "study.yaml", "--out", tmp_path / "out"), message)


def test_a_cluster_that_does_not_answer_is_told(run: Run, grid: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(grid))
    options = ("--out", tmp_path / "out", "--ray", "127.0.0.1:1")
    fails(run("study", "train", tmp_path / "study.yaml", *options), "no Ray cluster answers at 127.0.0.1:1")

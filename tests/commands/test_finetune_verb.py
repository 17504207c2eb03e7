"""`llasa finetune`: killed and started again; what the folder is good for; that what it learns is in tests/train."""

import itertools
import os
import subprocess
from pathlib import Path

from commands.runner import Run, fails
from small_models import make_lm_folder
from train.recordings import make_recordings
from warm import kill


def test_killed_it_goes_on_and_ends_with_a_voice(
    run: Run, python: list[str], codec_folder: Path, tmp_path: Path
) -> None:
    base = make_lm_folder(tmp_path / "base", codec_folder, initializer_range=0.02)
    data, out = make_recordings(tmp_path / "ann"), tmp_path / "ann-voice"
    command = ("finetune", "--data", data, "--model", base, "--out", out, "--steps", 40, "--threads", 1)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*python, "-m", "llasa", *map(str, command)], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        told = (line for line in process.stderr if line.startswith("finetune "))
        seen = list(itertools.islice(told, 2))
        kill(process)
    assert len(seen) == 2
    result = run(*command)
    assert (result.code, result.out) == (0, b"")
    assert "resuming from step" in result.err
    assert "the loss on held-out clips: " in result.err
    assert result.err.splitlines()[-1].endswith(f'a model, ready for llasa say --model {out} "Hello."')
    assert run(*command).err.splitlines() == result.err.splitlines()[-2:]  # all is done
    assert run("voices", "list", "--model", out).out.decode().split()[:2] == ["ann", "preset"]
    spoken = run("say", "a river ran slowly on", "--model", out, "--seed", 1, "--max-seconds", 1)
    assert spoken.out == run(
        "say", "a river ran slowly on", "--model", out, "--seed", 1, "--max-seconds", 1, "--voice", "ann"
    ).out  # fmt: skip
    assert len(spoken.out) > 1000
    assert "1 presets, 0 of your own" in run("info", "--model", out).out.decode()
    assert run("merge", out, tmp_path / "merged").code == 0
    merged = run("say", "a river ran slowly on", "--model", tmp_path / "merged", "--seed", 1, "--max-seconds", 1)
    assert merged.out == spoken.out
    fails(run(*command, "--full"), "was begun with other full: name another --out")


def test_what_cannot_be_learnt_is_one_line(run: Run, lm_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    few, nine, out = make_recordings(tmp_path / "few", 2), make_recordings(tmp_path / "nine"), tmp_path / "out"
    fails(run("finetune", "--data", few, "--model", lm_folder, "--out", out), "too few to learn a voice")
    fails(run("finetune", "--data", tmp_path / "empty", "--out", out), "no audio in")
    fails(run("finetune", "--data", nine, "--model", "tinny", "--out", out), "did you mean tiny?")
    assert not out.exists()
    assert run("finetune").code == 2

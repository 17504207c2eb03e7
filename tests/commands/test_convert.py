"""`llasa convert`: both ways, what it says, and what it refuses."""

import os
from pathlib import Path

import numpy as np
from commands.runner import Run, fails
from safetensors.torch import load_file


def test_there_and_back(run: Run, reference: Path, tmp_path: Path, lm_folder: Path):
    there = run("convert", lm_folder, tmp_path / "original", "--to", "original")
    assert (there.code, there.out) == (0, b"")
    count = len(load_file(tmp_path / "original" / "model.safetensors"))
    assert there.err == f"{tmp_path / 'original'}: {count} tensors in the original layout\n"
    assert run("convert", tmp_path / "original", tmp_path / "back").code == 0
    codec = lm_folder.parent / "codec"
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (codec / "model.safetensors").read_bytes()
    for name in ("original", "back"):
        assert run("encode", reference, "-o", tmp_path / f"{name}.npy", "--model", tmp_path / name).code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "original.npy"), np.load(tmp_path / "back.npy"))


def test_refusals_are_one_line(run: Run, tmp_path: Path, lm_folder: Path):
    (tmp_path / "x.ckpt").write_bytes(b"no checkpoint")
    fails(run("convert", tmp_path / "x.ckpt", tmp_path / "out"), "damaged or incomplete")
    fails(run("convert", tmp_path / "y.ckpt", tmp_path / "out"), "there is no file")
    fails(run("convert", lm_folder, tmp_path / "out"), "has the transformers layout already")
    fails(run("convert", lm_folder, tmp_path), "exists already")
    assert os.listdir(tmp_path) == ["x.ckpt"]
    assert run("convert", lm_folder, tmp_path / "out", "--to", "lightning").code == 2

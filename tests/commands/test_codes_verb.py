"""`llasa encode` and `llasa decode`: files, folders, resuming, and what cannot be done."""

import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands.runner import Run, fails
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llasa.codec
from llasa import audio

load_once = cache(llasa.codec.load_codec)


def test_files_become_codes_and_audio_again(run: Run, reference: Path, tmp_path: Path, lm_folder: Path):
    codec = lm_folder.parent / "codec"
    assert run("encode", reference, "--model", lm_folder).code == 0
    codes = np.load(tmp_path / "ref.npy")
    assert codes.dtype == np.uint16
    assert len(codes) == 48000 // 320 + 1
    assert run("encode", reference, "-o", tmp_path / "x.npy", "--model", codec).code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), codes)
    assert run("decode", tmp_path / "x.npy", "-o", tmp_path / "x.flac", "--model", codec).code == 0
    assert len(audio.load(tmp_path / "x.flac")) == 48000
    np.save(tmp_path / "y.npy", codes)  # which says nothing of samples, as upstream's files do
    assert run("decode", tmp_path / "y.npy", "-o", tmp_path / "y.flac", "--model", codec).code == 0
    assert len(audio.load(tmp_path / "y.flac")) == len(codes) * 320


@pytest.mark.parametrize("kind", ["xcodec2", "tiny"])
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True)
@given(length=st.integers(1, 4000) | st.sampled_from([319, 320, 321, 640, 16000]))
def test_a_recording_keeps_its_length(
    run: Run,
    tmp_path: Path,
    voiced: np.ndarray,
    codec_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    length: int,
):
    """However often it goes through the codec, which is loaded once."""
    monkeypatch.setattr(llasa.codec, "load_codec", load_once)
    model = ("--model", codec_folder if kind == "xcodec2" else kind, "--force")
    soundfile.write(tmp_path / "x.wav", voiced[:length], 16000)
    for _ in range(2):
        assert run("encode", tmp_path / "x.wav", *model).code == 0
        assert run("decode", tmp_path / "x.npy", *model).code == 0
        assert len(audio.load(tmp_path / "x.wav")) == length


def test_folders_keep_their_layout_and_go_on_where_they_stopped(
    run: Run, tmp_path: Path, voiced: np.ndarray, lm_folder: Path
):
    for name in ("a.wav", "deep/er/b.flac"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / name, voiced, 16000)
    (tmp_path / "in" / "notes.txt").touch()
    model = ("--model", lm_folder)
    first = run("encode", tmp_path / "in", "-o", tmp_path / "out", *model)
    assert "2 files made (6.0 s of audio)" in first.err
    made = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert made == ["a.npy", "deep/er/b.npy"]
    (tmp_path / "out" / "a.npy").unlink()
    np.save(tmp_path / "out" / "deep" / "er" / "b.npy", np.arange(5))
    again = run("encode", tmp_path / "in", "-o", tmp_path / "out", *model)
    assert "1 files made" in again.err
    assert "1 existed already" in again.err
    assert len(np.load(tmp_path / "out" / "deep" / "er" / "b.npy")) == 5
    assert "2 files made" in run("encode", tmp_path / "in", "-o", tmp_path / "out", "--force", *model).err
    assert len(np.load(tmp_path / "out" / "deep" / "er" / "b.npy")) == 151
    assert run("decode", tmp_path / "out", *model).code == 0
    assert (tmp_path / "out" / "deep" / "er" / "b.wav").exists()


def test_one_bad_file_does_not_stop_the_others(run: Run, tmp_path: Path, voiced: np.ndarray, lm_folder: Path):
    soundfile.write(tmp_path / "b.wav", voiced, 16000)
    (tmp_path / "a.wav").write_text("no audio")
    result = run("encode", tmp_path, "--model", lm_folder)
    assert result.code == 1
    lines = result.err.splitlines()
    assert "a.wav cannot be read as audio" in lines[0]
    assert lines[-1] == "error: 1 of 2 files failed: see the errors above"
    assert (tmp_path / "b.npy").exists()


def test_codes_that_cannot_be_decoded(run: Run, tmp_path: Path, lm_folder: Path):
    model = ("--model", lm_folder)
    for codes, message in (
        (np.array([1, 64, 3]), "code 64 is outside this codec's codebook of 64"),
        (np.array([-1]), "code -1 is outside"),
        (np.array([0.5]), "whole numbers"),
        (np.zeros((2, 2), int), "one row"),
        (np.array([], int), "no codes"),
    ):
        np.save(tmp_path / "x.npy", codes)
        fails(run("decode", tmp_path / "x.npy", *model), message)
    (tmp_path / "x.npy").write_bytes(b"nonsense")
    fails(run("decode", tmp_path / "x.npy", *model), "damaged")
    assert os.listdir(tmp_path) == ["x.npy"]


def test_inputs_and_outputs_that_make_no_sense(run: Run, tmp_path: Path, reference: Path, lm_folder: Path):
    model = ("--model", lm_folder)
    fails(run("encode", tmp_path / "gone.wav", *model), "there is no file")
    (tmp_path / "empty").mkdir()
    fails(run("encode", tmp_path / "empty", *model), "there are no .wav")
    fails(run("encode", reference, "-o", tmp_path / "x.txt", *model), "end its name in .npy")
    shutil.copy(reference, tmp_path / "ref.flac")
    fails(run("encode", reference, tmp_path / "ref.flac", *model), "would both become")
    fails(run("encode", reference, "-o", "/proc/x.npy", *model), "cannot write /proc/x.npy")
    fails(run("encode", reference, "-o", f"{reference}/x.npy", *model), "cannot make the folder")

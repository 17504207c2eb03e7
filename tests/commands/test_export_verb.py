"""`llasa export`."""

from pathlib import Path

import gguf
from commands.runner import Run, fails
from huggingface_hub import ModelCard


def test_export_writes_a_folder_with_its_card(run: Run, lm_folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    result = run("export", lm_folder, out, "--license", "mit", "--language", "en", "--base-model", "me/base")
    assert result.code == 0
    assert result.err == f"{out}: a model folder, ready for --model and for transformers\n"
    data = ModelCard.load(out / "README.md").data
    assert (data.license, data.language, data.base_model) == ("mit", ["en"], "me/base")
    assert run("info", "--model", out).code == 0


def test_what_is_wrong_is_said_before_anything_is_written(run: Run, lm_folder: Path, tmp_path: Path):
    fails(run("export", lm_folder, tmp_path / "out"), "pass --license")
    fails(run("export", lm_folder, tmp_path / "out", "--license", "mit", "--push", "voice"), "pass --push USER/voice")
    fails(run("export", "nobody", tmp_path / "out"), "there is no model called nobody")
    assert not (tmp_path / "out").exists()


def test_gguf_is_one_file(run: Run, lm_folder: Path, tmp_path: Path):
    out = tmp_path / "lm.gguf"
    result = run("export", lm_folder, out, "--gguf", "--quantize", "q8_0", "--license", "mit")
    assert (result.code, result.out) == (0, b"")
    assert result.err == f"{out}: the language model in GGUF, ready for programs built on llama.cpp\n"
    fields = gguf.GGUFReader(out).fields
    assert [fields[f"general.{name}"].contents() for name in ("architecture", "license")] == ["llama", "mit"]


def test_what_does_not_go_with_gguf(run: Run, lm_folder: Path, tmp_path: Path):
    out = tmp_path / "lm.gguf"
    fails(
        run("export", lm_folder, out, "--gguf", "--push", "me/voice"), "leave --language, --base-model and --push out"
    )
    fails(run("export", lm_folder, out, "--quantize", "q8_0"), "add --gguf")
    fails(run("export", lm_folder, out, "--gguf", "--quantize", "q9"), "unknown quantisation q9: use f32, f16, bf16")
    fails(run("export", lm_folder, tmp_path, "--gguf"), "it is a folder")
    assert not out.exists()

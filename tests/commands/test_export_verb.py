"""`llasa export`."""

from pathlib import Path

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

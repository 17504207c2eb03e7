"""`llasa merge`: what it writes and what it refuses; that the merged weights are right is in tests/test_lora.py."""

import os
from pathlib import Path

from commands.runner import Run, fails
from peft import LoraConfig, get_peft_model
from small_models import make_lm_folder
from transformers import AutoModelForCausalLM

from llasa.models.folder import read_config


def test_a_lora_becomes_a_model_folder(run: Run, tmp_path: Path, codec_folder: Path):
    base = make_lm_folder(tmp_path / "base", codec_folder)
    lora = tmp_path / "lora"
    get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    ).save_pretrained(lora)
    merged = tmp_path / "out" / "merged"
    result = run("merge", lora, merged)
    assert (result.code, result.out) == (0, b"")
    assert "merged: a model folder" in result.err.splitlines()[-1]
    assert os.listdir(tmp_path / "out") == ["merged"]  # and nothing half-written
    assert read_config(merged)["codec"] == str(codec_folder)
    spoken = run("say", "Hello.", "--model", merged, "--seed", 1, "--max-seconds", 1)
    assert spoken.out == run("say", "Hello.", "--model", lora, "--seed", 1, "--max-seconds", 1).out
    assert len(spoken.out) > 1000
    assert f"{base}\n" in run("info", "--model", lora).out.decode()
    fails(run("merge", lora, merged), "exists already: name a new folder")
    fails(run("merge", base, tmp_path / "again"), "holds no LoRA")
    fails(run("merge", lora, "/proc/merged"), "cannot write /proc/merged")
    fails(run("merge", "no-such-lora", tmp_path / "again"), "no model called no-such-lora")
    assert not (tmp_path / "again").exists()

"""`llasa info`."""

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands.runner import Result, Run

from llasa.commands import info


def test_info_tells_versions_and_sizes(run: Run, lm_folder: Path, codec_folder: Path):
    result = run("info", "--model", lm_folder)
    assert result.code == 0
    text = result.out.decode()
    total = sum(t.numel() for t in _weights(lm_folder))
    assert f"{total / 1e6:,.1f} million parameters, 2 layers of 64, context 512 tokens" in text
    assert "64 codes, 50 a second" in text
    assert "0 presets, 0 of your own" in text
    assert str(codec_folder) in text


def _weights(folder: Path) -> list:
    from safetensors.torch import load_file

    return list(load_file(folder / "model.safetensors").values())


def test_info_measures_this_machine(run: Run, lm_folder: Path, tmp_path: Path):
    copy = shutil.copytree(lm_folder, tmp_path / "lm")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"codec": str(lm_folder.parent / "codec")}))
    text = run("info", "--model", copy, "--benchmark").out.decode()
    for measured in ("codes a second", "real-time factor", "first audio of a stream"):
        assert measured in text


def test_info_compares_the_backends(run: Run, lm_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(info, "SECONDS", 0.1)
    monkeypatch.setenv("LLASA_HOME", str(tmp_path / "home"))
    text = run("info", "--model", lm_folder, "--speed").out.decode()
    assert len(re.findall(r"^torch, (?:b?float\d+|int8|int4) +[\d,]+, [\d,]+$", text, re.M)) == 3
    if find_spec("llama_cpp"):
        assert len(re.findall(r"^llamacpp, (?:float16|int8|int4) +[\d,]+, [\d,]+$", text, re.M)) == 3
    else:
        assert re.search(r"^llamacpp +llama_cpp is not installed, .*llasa\[llamacpp\]", text, re.M)
    if not find_spec("vllm"):
        assert re.search(r"^vllm +vllm is not installed, .*llasa\[vllm\]", text, re.M)


def refused(result: Result, message: str) -> None:
    """One line that says `message`; what `info` knows without the model is on standard output."""
    assert result.code == 1
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert message in result.err


def test_configs_of_wrong_kinds(run: Run, lm_folder: Path, tmp_path: Path):
    shutil.copytree(lm_folder.parent / "codec", tmp_path / "codec")
    copy = Path(shutil.copytree(lm_folder, tmp_path / "lm"))
    for path in (copy / "config.json", tmp_path / "codec" / "config.json"):
        usual = path.read_text()
        for value in ("[]", "7", "null", "{", '{"model_type": []}', '{"model_type": "llama", "hidden_size": []}'):
            path.write_text(value)
            refused(run("info", "--model", copy), str(path.parent))
        path.write_text(usual)
    usual = (copy / "config.json").read_text()
    for key, wrong in (("num_hidden_layers", -1), ("max_position_embeddings", "x"), ("codec", 7)):
        (copy / "config.json").write_text(json.dumps(json.loads(usual) | {key: wrong}))
        refused(run("info", "--model", copy), str(copy))

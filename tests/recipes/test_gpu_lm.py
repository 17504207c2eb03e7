"""The script that trains the language model by the clock, on what every machine has."""

import hashlib
import json
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from llasa.data.shards import read_rows
from llasa.text.lexicon import load_lexicon
from llasa.vocabulary import read_vocabulary

SCRIPT = Path(__file__).parents[2] / "recipes" / "tiny" / "gpu" / "lm.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = spec_from_file_location("gpu_lm", SCRIPT)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shards_are_read_as_the_training_reads_them(script: Any, recipe: dict[str, Any], tmp_path: Path) -> None:
    shard = next(Path(folder) for folder in recipe["corpus"]) / "0.parquet"
    for ours, row in zip(script.read(shard), read_rows(shard), strict=True):
        assert (ours["text"], ours["speaker"], ours["phones"]) == (row["text"], row["speaker"], row["phones"])
        assert ours["codes"].tolist() == row["codes"]
        assert ours["ends"].tolist() == pytest.approx(row["ends"])
    pq.write_table(pq.read_table(shard).drop_columns(["phones", "ends"]), tmp_path / "0.parquet")
    assert all(len(row["phones"]) == len(row["ends"]) == 0 for row in script.read(tmp_path / "0.parquet"))


def test_a_held_out_sentence_is_trained_on_from_nobody(script: Any, recipe: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(script, "HELD_OUT", 4)
    folders = {Path(folder): 3 for folder in recipe["corpus"]}
    train, unseen = (script.Utterances(folders, held_out) for held_out in (False, True))
    assert len(train.rows) + len(unseen.rows) == 40
    assert not {row["text"] for row in train.rows} & {row["text"] for row in unseen.rows}
    assert sorted(train.order) == sorted([*range(len(train.rows))] * 3)
    assert {name: [train.rows[i]["speaker"] for i in own] for name, own in train.speakers.items()} == {
        name: [name] * len(own) for name, own in train.speakers.items()
    }


def test_a_model_folder_comes_out(recipe: dict[str, Any], python: list[str], tmp_path: Path) -> None:
    (corpus,) = recipe["corpus"]
    command = [
        *python, SCRIPT, "--codes", f"{corpus}:2", recipe["validation"], "--codec", recipe["codec"],
        "--lexicon", recipe["lexicon"], "--out", tmp_path, "--minutes", "0.07", "--hidden", "32", "--layers", "2",
        "--heads", "2", "--pointing", "1.1", "--tokens", "512", "--longest", "200", "--workers", "1", "--validate", "2",
        "--save", "3", "--pieces",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(0 < row["speech"] < 10 and 0 < row["pointing"] < 10 for row in rows if "speech" in row)
    assert rows[-1]["step"] > 0
    model = LlamaForCausalLM.from_pretrained(tmp_path / "model")
    vocabulary = read_vocabulary(AutoTokenizer.from_pretrained(tmp_path / "model"))
    assert model.dtype == torch.float16
    assert model.config.tie_word_embeddings
    assert model.config.codec == recipe["codec"]
    assert model.config.eos_token_id == vocabulary.end
    assert load_lexicon(tmp_path / "model") == load_lexicon(Path(recipe["lexicon"]))
    whole = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert b"".join(part.read_bytes() for part in sorted((tmp_path / "pieces").glob("*.part-*"))) == whole
    assert hashlib.sha256(whole).hexdigest() in (tmp_path / "pieces" / "SHA256SUMS").read_text()
    with torch.no_grad():
        said = model.float()(torch.tensor([vocabulary.prompt("ðə KæT")])).logits[0, -1]
    assert np.isfinite(said.numpy()).all()

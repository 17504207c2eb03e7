"""A run of the recogniser that goes on with another recipe."""

from pathlib import Path

import pytest
import torch
from nested import recogniser_settings
from train.codec_recipes import make_corpus

from llasa.data.shards import shard_files
from llasa.errors import LlasaError
from llasa.train.checkpoint import CHECKPOINT
from llasa.train.recogniser.data import batches
from llasa.train.recogniser.run import train


def test_rates_may_change_on_the_way_and_sizes_may_not(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    recipe = {
        "corpus": [str(corpus / "train")], "validation": str(corpus / "val"), "out": str(tmp_path / "recogniser"),
        "layers": 2, "tap": 1, "heads": 2, "intermediate": 32, "batch_seconds": 4.0,
    }  # fmt: skip
    train(recogniser_settings(**recipe, hidden=32, steps=1))
    with pytest.raises(LlasaError, match="recogniser has the checkpoint of another recipe"):
        train(recogniser_settings(**recipe, hidden=48, steps=2))
    train(recogniser_settings(**recipe, hidden=32, steps=2, lr=1e-5))
    states = torch.load(tmp_path / "recogniser" / CHECKPOINT, weights_only=True)["optimisers"]
    assert {group["peak"] for state in states for group in state["param_groups"]} == {1e-5}


def test_a_corpus_without_an_utterance_of_the_right_length_is_one_line(tmp_path: Path) -> None:
    files = shard_files(make_corpus(tmp_path) / "train")
    with pytest.raises(LlasaError, match=r"lasts 0.5 to 0.1 s"):
        next(batches(files, seed=0, batch_seconds=4.0, longest=0.1))

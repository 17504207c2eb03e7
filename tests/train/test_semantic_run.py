"""A run of the semantic encoder that goes on with another recipe."""

from pathlib import Path

import pytest
import torch
from train.codec_recipes import make_corpus

from llasa.errors import LlasaError
from llasa.train import loop
from llasa.train.semantic import Settings, train


def test_rates_may_change_on_the_way_and_sizes_may_not(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    recipe = {
        "corpus": [str(corpus / "train")], "validation": str(corpus / "val"), "out": str(tmp_path / "semantic"),
        "layers": 2, "tap": 1, "heads": 2, "intermediate": 32, "batch_seconds": 4.0,
    }  # fmt: skip
    train(Settings(**recipe, hidden=32, steps=1))
    with pytest.raises(LlasaError, match="semantic has the checkpoint of another recipe"):
        train(Settings(**recipe, hidden=48, steps=2))
    train(Settings(**recipe, hidden=32, steps=2, lr=1e-5))
    states = torch.load(tmp_path / "semantic" / loop.CHECKPOINT, weights_only=False)["optimisers"]
    assert {group["peak"] for state in states for group in state["param_groups"]} == {1e-5}

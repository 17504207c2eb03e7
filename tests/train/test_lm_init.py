"""Training that starts from a pretrained folder: at step 0 it is the pretrained model."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import make_lm_folder
from torch import nn
from transformers import AutoTokenizer, LlamaForCausalLM

from llasa.data.shards import CODES_SCHEMA, write_shard
from llasa.errors import LlasaError
from llasa.lexicon import load_lexicon
from llasa.loading import find_model, read_json
from llasa.train.lm import Settings, Trainer, make_model, save_model
from llasa.train.lm_data import Corpus, Pack, Reader, packs, samples
from llasa.vocabulary import Vocabulary

TINY = find_model("tiny")


def settings(init: Path | str, codec: Path | str, **changes: Any) -> Settings:
    return Settings({}, "", str(codec), "", init=str(init), pointing_heads=[[1, 0]], **changes)


def packed(vocabulary: Vocabulary, folder: Path, lexicon: dict[str, str] | None) -> Pack:
    rows = [
        {
            "id": str(i), "text": text, "codes": np.random.default_rng(i).integers(0, vocabulary.size, 60),
            "speaker": "a", "language": "en", "seconds": 1.2, "phones": [], "ends": [],
        }
        for i, text in enumerate(["the quick brown fox", "it was late", "nobody spoke."])
    ]  # fmt: skip
    write_shard(folder / "0.parquet", rows, CODES_SCHEMA)
    stream = samples(Corpus({folder: 1}), Reader(vocabulary, lexicon, 50.0), 0, 300, 0.0, itertools.count())
    return next(packs(stream, 400, 50.0, pad=1))


def plain_loss(folder: Path, pack: Pack) -> float:
    """transformers' own loss of the samples, each alone."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for a, b in itertools.pairwise(pack.bounds):
            labels = pack.labels[a:b]
            logits = model(pack.ids[None, a:b]).logits[0]
            total += float(nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
            count += int((labels >= 0).sum())
    return total / count


def test_the_embedded_model_goes_on_from_its_own_loss(tmp_path: Path) -> None:
    wanted = settings("tiny", TINY / "../codec", lexicon=str(TINY))
    model, vocabulary = make_model(wanted)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    pack = packed(vocabulary, tmp_path, load_lexicon(TINY))
    with torch.no_grad():
        loss = float(Trainer(model, wanted).eval()(pack)["speech"])
    assert loss == pytest.approx(plain_loss(TINY, pack), abs=1e-5)
    save_model(model, vocabulary, wanted, tmp_path / "model")
    before = LlamaForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    after = LlamaForCausalLM.from_pretrained(tmp_path / "model")
    assert all(torch.equal(before.state_dict()[name], tensor) for name, tensor in after.state_dict().items())
    assert after.generation_config.to_diff_dict() == before.generation_config.to_diff_dict()
    assert AutoTokenizer.from_pretrained(tmp_path / "model").get_vocab() == vocabulary.tokenizer.get_vocab()
    assert load_lexicon(tmp_path / "model") == load_lexicon(TINY)
    assert "default_voice" not in read_json(tmp_path / "model/config.json")  # the voices are not there


def test_tied_embeddings_stay_one_table(tmp_path: Path, codec_folder: Path) -> None:
    init = make_lm_folder(tmp_path / "tied", codec_folder, tie_word_embeddings=True)
    wanted = settings(init, codec_folder)
    model, vocabulary = make_model(wanted)
    pack = packed(vocabulary, tmp_path, None)
    trainer = Trainer(model, wanted).train()
    trainer(pack)["speech"].backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
        loss = float(trainer.eval()(pack)["speech"])
    save_model(model, vocabulary, wanted, tmp_path / "model")
    assert loss == pytest.approx(plain_loss(tmp_path / "model", pack), abs=1e-5)
    assert loss < plain_loss(init, pack)


def test_another_codec_or_no_folder_is_one_line(tmp_path: Path, codec_folder: Path) -> None:
    with pytest.raises(LlasaError, match="4096 codes"):
        make_model(settings("tiny", codec_folder))
    with pytest.raises(LlasaError, match="no model called"):
        make_model(settings(tmp_path / "nowhere", codec_folder))

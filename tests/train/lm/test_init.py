"""Training that starts from a pretrained folder: at step 0 it is the pretrained model."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nested import lm_settings
from official import llama3_tokenizer
from small_models import make_lm, make_lm_folder
from torch import nn
from transformers import AutoTokenizer, LlamaForCausalLM

from llasa.data.shards import CODES_SCHEMA, write_shard
from llasa.errors import LlasaError
from llasa.models.folder import pointing_head, read_json
from llasa.models.hub import find_model
from llasa.text.lexicon import load_lexicon
from llasa.train.lm.data import Corpus, Pack, Reader, packs, samples
from llasa.train.lm.settings import LMSettings
from llasa.train.lm.stage import Trainer, make_model, save_model
from llasa.vocabulary import Vocabulary

TINY = find_model("tiny")


def settings(init: Path | str, codec: Path | str, **changes: Any) -> LMSettings:
    return lm_settings(codec=str(codec), init=str(init), pointing_heads=[[1, 0]], **changes)


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


def check_a_step(model: LlamaForCausalLM, vocabulary: Vocabulary, wanted: LMSettings, folder: Path) -> None:
    """After a step down the gradient the loss is lower, and that of the model as it is saved."""
    pack = packed(vocabulary, folder, None)
    trainer = Trainer(model, wanted).train()
    trainer(pack)["speech"].backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
        loss = float(trainer.eval()(pack)["speech"])
    save_model(model, vocabulary, wanted, folder / "model")
    assert loss == pytest.approx(plain_loss(folder / "model", pack), abs=1e-5)
    assert wanted.init
    assert loss < plain_loss(Path(wanted.init), pack)


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
    assert pointing_head(tmp_path / "model") == (1, 0)  # as the settings say, not (2, 0) any more


def test_tied_embeddings_stay_one_table(tmp_path: Path, codec_folder: Path) -> None:
    init = make_lm_folder(tmp_path / "tied", codec_folder, tie_word_embeddings=True)
    wanted = settings(init, codec_folder)
    model, vocabulary = make_model(wanted)
    check_a_step(model, vocabulary, wanted, tmp_path)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_outputs_in_groups_have_the_loss_of_the_table_they_are_saved_as(
    tied: bool, factored: bool, checkpointing: bool, tmp_path: Path, codec_folder: Path
) -> None:
    init = make_lm_folder(tmp_path / "init", codec_folder, tie_word_embeddings=tied)
    wanted = settings(init, codec_folder, factored=factored, output_groups=[2, 1], gradient_checkpointing=checkpointing)
    model, vocabulary = make_model(wanted)
    check_a_step(model, vocabulary, wanted, tmp_path)
    again, _ = make_model(settings(tmp_path / "model", codec_folder, factored=factored, output_groups=[2, 1]))
    assert torch.allclose(again.lm_head.weight, model.lm_head.weight, atol=1e-6)  # such a table is kept as it is


def test_groups_that_do_not_share_out_the_levels_are_refused(tmp_path: Path, codec_folder: Path) -> None:
    init = make_lm_folder(tmp_path / "init", codec_folder)
    for groups in ([2], [3, 0], [4]):
        with pytest.raises(LlasaError, match="add up to the codec's 3 levels, \\[4, 4, 4\\]"):
            make_model(settings(init, codec_folder, output_groups=groups))


def test_new_speech_tokens_start_alike_and_text_stays_as_it_was(tmp_path: Path, codec_folder: Path) -> None:
    """A model that knows a text by heart gets 64 speech tokens: it still knows it, and any of them may come first."""
    tokenizer = llama3_tokenizer(0)
    torch.manual_seed(0)
    model = make_lm(len(tokenizer), initializer_range=0.02, tie_word_embeddings=True)
    text = torch.tensor(tokenizer.encode("It was late and nobody spoke for some time.", add_special_tokens=False))[None]
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(80):
        loss = model(text, labels=text).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    with torch.no_grad():
        before = float(model(text, labels=text).loss)
        wanted = settings(tmp_path / "plain", codec_folder, factored=False)
        extended, vocabulary = make_model(wanted)
        after = float(extended(text, labels=text).loss)
        codes = torch.randint(64, (200,), generator=torch.Generator().manual_seed(1)) + vocabulary.first
        logits = extended(torch.cat([text[0], torch.tensor([vocabulary.start]), codes])[None]).logits[
            0, text.shape[1] : -1
        ]
    assert before < 0.2  # it has learnt something that could be lost
    assert after == pytest.approx(before, abs=0.02)
    spoken = [*range(vocabulary.first, vocabulary.first + 64), vocabulary.end]
    # Among what may follow there, as the engine samples it: all codes and the end alike.
    loss = nn.functional.cross_entropy(logits[:, spoken], codes - vocabulary.first)
    assert float(loss) == pytest.approx(float(np.log(65)), abs=0.01)
    rows = extended.get_input_embeddings().weight[vocabulary.first :]
    assert float(rows.std(0).max()) > 0  # alike, and not the same


def test_an_init_of_other_sizes_than_the_recipe_says_is_refused(tmp_path: Path, codec_folder: Path) -> None:
    init = make_lm_folder(tmp_path / "lm", codec_folder)
    make_model(settings(init, codec_folder, model={"hidden_size": 64}))
    with pytest.raises(LlasaError, match="hidden_size 64, not 2048"):
        make_model(settings(init, codec_folder, model={"hidden_size": 2048}))


def test_another_codec_or_no_folder_is_one_line(tmp_path: Path, codec_folder: Path) -> None:
    with pytest.raises(LlasaError, match="16384 speech tokens"):
        make_model(settings("tiny", codec_folder))
    with pytest.raises(LlasaError, match="no model called"):
        make_model(settings(tmp_path / "nowhere", codec_folder))

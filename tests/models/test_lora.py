"""LoRAs as peft writes them: loaded and merged, against peft's own unmerged model."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import ALPHABET, make_lm, make_lm_folder
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from llasa.engine.torch_engine import Engine
from llasa.errors import LlasaError
from llasa.models.lora import merge_lora, open_model, save_merged
from llasa.tts import Llasa
from llasa.vocabulary import character_tokenizer, extend_tokenizer, read_vocabulary

IDS = torch.tensor([[0, 3, 4, 5, 6, 7, 60, 61]])


def tune(base: Path, lora: Path, rows: int | None = None, **settings: Any) -> Any:
    """A LoRA whose weights are not at their neutral start, saved; the unmerged model is returned.

    Args:
        rows: resizes the base's vocabulary to this.
        settings: of `LoraConfig`.
    """
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    torch.manual_seed(3)
    chosen: dict = {
        "r": 4,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    } | settings
    tuned = get_peft_model(model, LoraConfig(**chosen))
    with torch.no_grad():
        for weight in tuned.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    tuned.save_pretrained(lora)
    return tuned.eval()


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits[0]


def same(found: Tensor, wanted: Tensor) -> bool:
    return float((found - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())


@pytest.fixture
def base(tmp_path: Path, codec_folder: Path) -> Path:
    """A model whose config names its codec from where it lies, with a preset voice and sampling settings."""
    shutil.copytree(codec_folder, tmp_path / "codec")
    folder = make_lm_folder(tmp_path / "base", "../codec")
    (folder / "voices").mkdir()
    (folder / "voices" / "anna.safetensors").write_bytes(b"...")
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.3, "default_voice": None}))
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target_modules": "all-linear", "use_rslora": True},
        {"use_dora": True},
        {"modules_to_save": ["lm_head", "embed_tokens"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
    ],
    ids=lambda settings: " ".join(settings) or "plain",
)
@pytest.mark.parametrize("tied", [False, True])
def test_merged_is_what_peft_computes_unmerged(tmp_path: Path, settings: dict, tied: bool):
    base = make_lm_folder(tmp_path / "base", "../codec", tie_word_embeddings=tied)
    tuned = tune(base, tmp_path / "lora", **settings)
    assert same(logits(merge_lora(tmp_path / "lora")), logits(tuned))
    assert not same(logits(AutoModelForCausalLM.from_pretrained(base)), logits(tuned))
    save_merged(tmp_path / "lora", tmp_path / "merged")
    assert same(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), logits(tuned))


def test_a_lora_speaks_like_its_merged_model(tmp_path: Path, base: Path):
    tune(base, tmp_path / "lora", target_modules="all-linear")
    save_merged(tmp_path / "lora", tmp_path / "merged")
    lora, merged = Llasa.load(tmp_path / "lora"), Llasa.load(tmp_path / "merged")
    assert lora.folder == base
    assert lora.defaults.temperature == merged.defaults.temperature == 0.3
    assert lora.codec_id == merged.codec_id
    assert set(merged.voices()) >= {"anna"}
    for model in (lora, merged):
        (model.folder / "voices" / "anna.safetensors").unlink()
    texts = [model.say("Hello there.", seed=1, max_seconds=1) for model in (lora, merged, Llasa.load(base))]
    codes = [speech.codes.tolist() for speech in texts]
    assert codes[0] == codes[1] != codes[2]


def test_a_lora_that_teaches_a_text_model_to_speak(tmp_path: Path, codec_folder: Path):
    """Its base has no speech tokens: the LoRA brings them, in its own tokenizer and in its embedding and head."""
    tokenizer = character_tokenizer(ALPHABET, 1, context=512)
    text_only = len(tokenizer) - 9  # without the speech tokens
    base, lora = tmp_path / "base", tmp_path / "lora"
    model = make_lm(text_only)
    model.config.codec = str(codec_folder)
    model.save_pretrained(base)
    extended = character_tokenizer(ALPHABET, 64, context=512)
    rows = extend_tokenizer(extended, 64)
    tuned = tune(base, lora, rows, modules_to_save=["embed_tokens", "lm_head"])
    extended.save_pretrained(lora)
    vocabulary = read_vocabulary(AutoTokenizer.from_pretrained(lora))
    engine = Engine(open_model(lora, "cpu", torch.float32), vocabulary.first, vocabulary.size, vocabulary.end, 512)
    assert engine.llama.embedding.shape[0] == rows == len(extended)
    wanted = tuned.base_model.model.model.embed_tokens.weight
    assert torch.equal(engine.llama.embedding, wanted)
    assert Llasa.load(lora).say("Hello there.", seed=1, max_seconds=1).samples.size
    save_merged(lora, tmp_path / "merged")
    assert same(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), logits(tuned))


def test_the_base_is_found_beside_the_lora(tmp_path: Path, base: Path):
    tune(base, tmp_path / "lora")
    config = tmp_path / "lora" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "../base"}))
    assert Llasa.load(tmp_path / "lora").folder == base


def test_loras_that_cannot_be_loaded(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch):
    lora = tmp_path / "lora"
    tune(base, lora)
    config, weights = lora / "adapter_config.json", lora / "adapter_model.safetensors"
    good, whole = json.loads(config.read_text()), weights.read_bytes()

    def refuses(message: str, data: bytes | None = whole, **changes: object) -> None:
        config.write_text(json.dumps(good | changes))
        weights.unlink(missing_ok=True)
        if data is not None:
            weights.write_bytes(data)
        with pytest.raises(LlasaError, match=message) as caught:
            Llasa.load(lora)
        assert "\n" not in str(caught.value)

    refuses("needs its base /no/such/base .*base_model_name_or_path", base_model_name_or_path="/no/such/base")
    refuses("does not name its base", base_model_name_or_path=None)
    refuses("has no adapter_model.safetensors: copy", None)
    refuses("cannot be merged into", whole[: len(whole) // 2])
    refuses("lacks weights that its adapter_config.json asks for", target_modules=["q_proj", "v_proj", "o_proj"])
    refuses("cannot be merged into", r=8)
    refuses("adapter of type IA3: pass a LoRA", peft_type="IA3")
    (base / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes()[:-50])
    refuses("base/model.safetensors cannot be read")
    monkeypatch.setitem(sys.modules, "peft", None)
    refuses(r"peft is not installed, which this needs: pip install 'llasa\[train\]'")

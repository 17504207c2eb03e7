"""What is written as GGUF, read with the `gguf` package. tests/engine/test_llamacpp.py has llama.cpp read it."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from official import ROPE, llama3_tokenizer, make_official_folder
from safetensors.torch import load_file
from small_models import ALPHABET, make_lm, make_lm_folder
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llasa.engine.llama import weights_of
from llasa.errors import LlasaError
from llasa.models.folder import load_tokenizer
from llasa.models.gguf import KINDS, write_model, write_speech


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, str]]:
    """A file's values, its tensors as float32, and the kind of each."""
    reader = gguf.GGUFReader(path)
    values = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    return values, tensors, {t.name: t.tensor_type.name.lower() for t in reader.tensors}


def test_all_weights_are_in_the_file(lm_folder: Path, tmp_path: Path) -> None:
    write_model(lm_folder, tmp_path / "lm.gguf", "f32")
    values, tensors, kinds = read(tmp_path / "lm.gguf")
    weights = {name: tensor.numpy() for name, tensor in load_file(lm_folder / "model.safetensors").items()}
    assert len(tensors) == len(weights)
    assert np.array_equal(tensors["token_embd.weight"], weights["model.embed_tokens.weight"])
    assert np.array_equal(tensors["output.weight"], weights["lm_head.weight"])
    assert np.array_equal(tensors["blk.1.ffn_down.weight"], weights["model.layers.1.mlp.down_proj.weight"])
    # Outputs that are rotated together, i and i + 8 of a head of 16, lie side by side.
    found, wanted = tensors["blk.0.attn_k.weight"], weights["model.layers.0.self_attn.k_proj.weight"]
    assert np.array_equal(found[16:][0:16:2], wanted[16:][:8])
    assert np.array_equal(found[16:][1:16:2], wanted[16:][8:16])
    assert set(kinds.values()) == {"f32"}
    sizes = ("embedding_length", "block_count", "attention.head_count", "attention.head_count_kv", "context_length")
    assert [values[f"llama.{name}"] for name in sizes] == [64, 2, 4, 2, 512]


@pytest.mark.parametrize(("kind", "most"), [("f16", 1e-3), ("bf16", 4e-3), ("q8_0", 0.01), ("q4_0", 0.1)])
def test_quantised_weights_are_close(lm_folder: Path, tmp_path: Path, kind: str, most: float) -> None:
    write_model(lm_folder, tmp_path / "lm.gguf", kind)
    values, tensors, kinds = read(tmp_path / "lm.gguf")
    weights = load_file(lm_folder / "model.safetensors")
    for name, source in (("blk.0.ffn_up", "model.layers.0.mlp.up_proj"), ("output", "lm_head")):
        wanted = weights[f"{source}.weight"].numpy()
        error = np.linalg.norm(tensors[f"{name}.weight"] - wanted) / np.linalg.norm(wanted)
        assert 0 < error < most
    assert kinds["blk.0.ffn_up.weight"] == kind
    assert kinds["output.weight"] == kinds["token_embd.weight"] == ("q8_0" if kind == "q4_0" else kind)
    assert kinds["output_norm.weight"] == "f32"
    assert values["general.file_type"] == KINDS[kind]


def test_rows_that_blocks_do_not_divide_stay_in_half_precision(tmp_path: Path) -> None:
    model = make_lm(150, hidden_size=48, num_attention_heads=2, intermediate_size=64)
    write_speech(weights_of(model), torch.arange(50, 150), tmp_path / "lm.gguf", "q8_0")
    kinds = read(tmp_path / "lm.gguf")[2]
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"], kinds["token_embd.weight"]) == (
        "q8_0", "f16", "f16",
    )  # fmt: skip


def test_a_tied_table_is_written_once(tmp_path: Path) -> None:
    write_model(make_official_folder(tmp_path / "lm"), tmp_path / "lm.gguf", "f16")
    assert "output.weight" not in read(tmp_path / "lm.gguf")[1]


def test_only_the_rows_of_legal_tokens(tmp_path: Path) -> None:
    model, legal = make_lm(150, attention_bias=True, mlp_bias=True), torch.tensor([*range(50, 140), 40])
    write_speech(weights_of(model), legal, tmp_path / "lm.gguf", "f32")
    values, tensors, _ = read(tmp_path / "lm.gguf")
    assert np.array_equal(tensors["token_embd.weight"], model.lm_head.weight[legal].detach().numpy())
    assert values["llama.vocab_size"] == 91
    assert {"blk.1.attn_v.bias", "blk.1.attn_output.bias", "blk.0.ffn_gate.bias"} <= tensors.keys()


def test_angles_are_divided_by_factors(tmp_path: Path) -> None:
    model = make_lm(150, rope_parameters=ROPE, max_position_embeddings=131072)
    write_speech(weights_of(model), torch.arange(150), tmp_path / "lm.gguf", "f32")
    values, tensors, _ = read(tmp_path / "lm.gguf")
    angles = values["llama.rope.freq_base"] ** (-np.arange(0, 16, 2) / 16) / tensors["rope_freqs.weight"]
    assert np.allclose(angles, LlamaRotaryEmbedding(model.config).inv_freq.numpy(), rtol=1e-6)
    assert values["llama.context_length"] == 2048


def test_tokens_keep_their_ids(tmp_path: Path) -> None:
    write_model(make_official_folder(tmp_path / "lm"), tmp_path / "lm.gguf", "f16", "cc-by-nc-4.0")
    values = read(tmp_path / "lm.gguf")[0]
    tokenizer = load_tokenizer(tmp_path / "lm")
    assert values["tokenizer.ggml.tokens"] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert values["tokenizer.ggml.pre"] == "llama-bpe"
    assert values["tokenizer.ggml.eos_token_id"] == tokenizer.convert_tokens_to_ids("<|SPEECH_GENERATION_END|>")
    assert values["tokenizer.ggml.bos_token_id"] == tokenizer.bos_token_id
    assert not values["tokenizer.ggml.add_bos_token"]
    assert values["tokenizer.chat_template"] == tokenizer.chat_template
    assert values["general.license"] == "cc-by-nc-4.0"
    types = dict(zip(values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"], strict=True))
    named = ("a", "<unused 1>", "<|eot_id|>", "<|SPEECH_GENERATION_START|>", "<|s_0|>", "<|s_63|>")
    assert [types[token] for token in named] == [1, 4, 3, 3, 4, 4]


def test_characters_become_their_bytes(tmp_path: Path) -> None:
    folder = make_lm_folder(tmp_path / "lm", "codec")
    tokenizer = load_tokenizer(folder)
    write_model(folder, tmp_path / "lm.gguf", "f16")
    values = read(tmp_path / "lm.gguf")[0]
    tokens = values["tokenizer.ggml.tokens"]
    for letter in ALPHABET:
        assert tokens[tokenizer.convert_tokens_to_ids(letter)] == ("Ġ" if letter == " " else letter)
    assert tokens[tokenizer.convert_tokens_to_ids("<|s_7|>")] == "<|s_7|>"


def test_what_llama_cpp_lacks_is_refused(lm_folder: Path, tmp_path: Path) -> None:
    def refused(message: str, kind: str = "f16", **changes: Any) -> None:
        weights = weights_of(make_lm(64, **changes))
        with pytest.raises(LlasaError, match=message):
            write_speech(weights, torch.arange(4), tmp_path / "no.gguf", kind)
        assert not (tmp_path / "no.gguf").exists()

    refused("unknown quantisation q9: use f32, f16", kind="q9")
    refused("activation is gelu", hidden_act="gelu")
    refused("rope type is yarn", rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0})
    tokenizer = llama3_tokenizer(64)
    tokenizer.backend_tokenizer.pre_tokenizer = None
    make_lm(len(tokenizer)).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(LlasaError, match=r"no tokenizer like that of .*: use a model with Llama 3's"):
        write_model(tmp_path / "other", tmp_path / "no.gguf", "f16")
    short = make_lm_folder(tmp_path / "short", "codec")
    make_lm(50).save_pretrained(short)
    with pytest.raises(LlasaError, match=r"tokens and the model 50: copy both from one model"):
        write_model(short, tmp_path / "no.gguf", "f16")

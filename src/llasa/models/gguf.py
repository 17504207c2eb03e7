"""Writes GGUF, the format of llama.cpp: a whole model with its tokenizer, or only what continues speech.

Tensors are read, quantised and written one at a time, so a model is never in memory twice. The quantisation is that of
the `gguf` package, which computes what llama.cpp does for these kinds. Matrices get the chosen kind, except that q4_0
keeps the tables of tokens in q8_0, for they decide which token comes; vectors stay float32.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llasa.errors import LlasaError, need_extra
from llasa.files import whole
from llasa.models.folder import context_length, load_tokenizer
from llasa.models.weights import EMBEDDING, HEAD, Weights, open_weights
from llasa.vocabulary import read_vocabulary

# What a matrix may be stored as; the numbers name a file's kind in its header (llama.cpp's `llama_ftype`).
KINDS = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2}
BLOCK = 32  # numbers that share a scale in the quantised kinds; a row must be a multiple
ROWS = 8192  # of a table that are float32 at a time
# Names in llama.cpp and in transformers, and whether `config.attention_bias` or `config.mlp_bias` gives it a bias.
MATRICES = {
    "attn_q": ("self_attn.q_proj", "attention_bias"), "attn_k": ("self_attn.k_proj", "attention_bias"),
    "attn_v": ("self_attn.v_proj", "attention_bias"), "attn_output": ("self_attn.o_proj", "attention_bias"),
    "ffn_gate": ("mlp.gate_proj", "mlp_bias"), "ffn_up": ("mlp.up_proj", "mlp_bias"),
    "ffn_down": ("mlp.down_proj", "mlp_bias"),
}  # fmt: skip
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # types of tokens
LLAMA_3 = "p{N}{1,3}"  # in the pattern by which Llama 3's tokenizer splits text, and not in that of GPT-2


def write_model(folder: Path, path: Path, kind: str, licence: str | None = None) -> None:
    """Writes a model with its tokenizer, for any program that is built on llama.cpp.

    Args:
        folder: a model's folder.
        path: the file, which appears whole or not at all.
        kind: one of `KINDS`.

    Raises:
        LlasaError: as `open_weights`; the package gguf is missing; or llama.cpp has no such Llama or tokenizer.
    """
    need_extra("llamacpp", "gguf")
    tokenizer = load_tokenizer(folder)
    weights = open_weights(folder, "cpu", torch.float32)
    tokens, types, merges, pre = _tokens(tokenizer, weights.config.vocab_size)
    speech = read_vocabulary(tokenizer)
    for id in speech.speech:
        types[id] = USER_DEFINED  # whose names a program prints, unlike those of control tokens

    def describe(writer: Any) -> None:
        writer.add_name(f"Llasa, {folder.name}")
        if licence:
            writer.add_license(licence)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges(merges)
        writer.add_eos_token_id(speech.end)
        writer.add_add_bos_token(tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id])
        for name in ("bos", "pad"):
            if (id := getattr(tokenizer, f"{name}_token_id")) is not None:
                getattr(writer, f"add_{name}_token_id")(id)
        if isinstance(tokenizer.chat_template, str):
            writer.add_chat_template(tokenizer.chat_template)

    embedding, head = weights.tensor(EMBEDDING), weights.tensor(HEAD)
    tables = {"token_embd.weight": embedding} | ({} if torch.equal(embedding, head) else {"output.weight": head})
    _write(path, weights, tables, kind, describe)


def write_speech(weights: Weights, legal: Tensor, path: Path, kind: str) -> None:
    """Writes what continues speech: the layers, and the rows of the output matrix for the tokens that may come.

    llama.cpp asks for a table of the same tokens at the input. This file has only one, for the output: whoever decodes
    with it passes embeddings instead of ids.

    Args:
        weights: the model's, whose embedding is not read.
        legal: ids of the tokens that may be sampled; the rows come in this order.
        path: the file, which appears whole or not at all.
        kind: one of `KINDS`.

    Raises:
        LlasaError: the package gguf is missing, or llama.cpp has no such Llama.
    """
    need_extra("llamacpp", "gguf")
    head = weights.tensor(HEAD)[legal]
    _write(path, weights, {"token_embd.weight": head}, kind, lambda writer: writer.add_tokenizer_model("none"))


def _write(path: Path, weights: Weights, tables: dict[str, Tensor], kind: str, describe: Callable[[Any], None]) -> None:
    import gguf
    import numpy as np

    if kind not in KINDS:
        raise LlasaError(f"unknown quantisation {kind}: use {', '.join(KINDS)}")
    config, types = weights.config, gguf.GGMLQuantizationType
    if config.hidden_act != "silu":
        raise LlasaError(f"the model's activation is {config.hidden_act}: use a Llama with silu")
    factors = _rope_factors(config)
    plan = [(name, tuple(table.shape), _kind(kind, table.shape, True)) for name, table in tables.items()]
    plan += [(name, shape, _kind(kind, shape, False)) for name, _, shape in _layers(config)]
    plan += [] if factors is None else [("rope_freqs.weight", tuple(factors.shape), "f32")]
    with whole(path) as made:
        writer = gguf.GGUFWriter(made, "llama")
        _add_sizes(writer, config, next(iter(tables.values())).shape[0])
        writer.add_file_type(KINDS[kind])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        describe(writer)
        for name, shape, stored in plan:
            number = types[stored.upper()]
            stride, size = gguf.GGML_QUANT_SIZES[number]
            count = torch.Size(shape).numel() // stride * size
            # The type of the numbers says nothing here, since the shape is given in numbers, not in bytes.
            writer.add_tensor_info(name, shape, np.dtype("float32"), count, number)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()

        def save(tensor: Tensor, stored: str) -> None:
            writer.write_tensor_data(_stored(tensor, types[stored.upper()]))

        kinds = {name: stored for name, _, stored in plan}
        for name, table in tables.items():
            save(table, kinds[name])
        for name, source, _ in _layers(config):
            save(_rotated(name, weights.tensor(source), config), kinds[name])
        if factors is not None:
            save(factors, "f32")
        writer.close()


def _layers(config: Any) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Name in llama.cpp, name in transformers and shape of every tensor but the tables and the factors of rotation."""
    wide, inner, size = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * size, config.num_key_value_heads * size
    shapes = {
        "attn_q": (queries, wide), "attn_k": (keys, wide), "attn_v": (keys, wide), "attn_output": (wide, queries),
        "ffn_gate": (inner, wide), "ffn_up": (inner, wide), "ffn_down": (wide, inner),
    }  # fmt: skip
    for index in range(config.num_hidden_layers):
        ours, theirs = f"blk.{index}", f"model.layers.{index}"
        for name, (source, bias) in MATRICES.items():
            yield f"{ours}.{name}.weight", f"{theirs}.{source}.weight", shapes[name]
            if getattr(config, bias):
                yield f"{ours}.{name}.bias", f"{theirs}.{source}.bias", shapes[name][:1]
        for name, source in NORMS.items():
            yield f"{ours}.{name}.weight", f"{theirs}.{source}.weight", (wide,)
    yield "output_norm.weight", "model.norm.weight", (wide,)


def _add_sizes(writer: Any, config: Any, vocabulary: int) -> None:
    writer.add_vocab_size(vocabulary)
    writer.add_context_length(context_length({"max_position_embeddings": config.max_position_embeddings}))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _kind(kind: str, shape: tuple[int, ...], table: bool) -> str:
    """What a tensor of this shape is stored as in a file of this kind."""
    if len(shape) == 1:
        return "f32"
    if kind in ("q8_0", "q4_0") and shape[-1] % BLOCK:
        return "f16"
    return "q8_0" if table and kind == "q4_0" else kind


def _stored(tensor: Tensor, type: Any) -> Any:
    """The tensor's bytes as a numpy array."""
    import gguf
    import numpy as np

    parts = [gguf.quants.quantize(part.float().numpy(), type) for part in tensor.split(ROWS)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _rope_factors(config: Any) -> Tensor | None:
    """What llama.cpp divides the angles by, (head_dim / 2,); None for plain rotary embeddings."""
    if config.rope_parameters["rope_type"] == "default":
        return None
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rotary = LlamaRotaryEmbedding(config)
    if rotary.rope_type in ("dynamic", "longrope") or rotary.attention_scaling != 1:
        raise LlasaError(f"the model's rope type is {rotary.rope_type}, which cannot be written as GGUF: use torch")
    places = torch.arange(0, config.head_dim, 2).double() / config.head_dim
    return (config.rope_parameters["rope_theta"] ** -places / rotary.inv_freq.double()).float()


def _rotated(name: str, tensor: Tensor, config: Any) -> Tensor:
    """The outputs of queries and keys in llama.cpp's order: those that are rotated together lie side by side."""
    if ".attn_q." not in name and ".attn_k." not in name:
        return tensor
    return tensor.unflatten(0, (-1, 2, config.head_dim // 2)).transpose(1, 2).flatten(0, 2)


def _tokens(tokenizer: Any, size: int) -> tuple[list[str], list[int], list[str], str]:
    """Tokens, their types, merges and the name of the way to split, as llama.cpp's byte-level BPE wants them.

    Our tokenizer of single characters becomes one whose only merges join the bytes of a character; bytes of other
    characters are dropped there as here.

    Args:
        tokenizer: a transformers tokenizer.
        size: of the model's vocabulary.

    Raises:
        LlasaError: llama.cpp has no such tokenizer.
    """
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    model, split = core["model"], json.dumps(core["pre_tokenizer"])
    if len(tokenizer) > size:
        raise LlasaError(f"the tokenizer has {len(tokenizer)} tokens and the model {size}: copy both from one model")
    tokens, types = [f"[unused {id}]" for id in range(size)], [UNUSED] * size
    by_bytes = "ByteLevel" in split
    if model.get("type") != "BPE" or not (LLAMA_3 in split if by_bytes else not model["merges"] and split == "null"):
        raise LlasaError(
            f"llama.cpp has no tokenizer like that of {tokenizer.name_or_path}: use a model with Llama 3's, or with "
            "ours of single characters"
        )
    encode = (lambda text: text) if by_bytes else _as_bytes
    for token, id in model["vocab"].items():
        tokens[id], types[id] = encode(token), NORMAL
    for token in core["added_tokens"]:
        tokens[token["id"]], types[token["id"]] = token["content"], CONTROL if token["special"] else USER_DEFINED
    if by_bytes:
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        return tokens, types, [" ".join(pair) for pair in pairs], "llama-bpe"
    letters = [tokens[id] for id in model["vocab"].values() if types[id] == NORMAL]
    merges = dict.fromkeys(f"{letter[:i]} {letter[i]}" for letter in letters for i in range(1, len(letter)))
    # llama.cpp wants at least one. This joins two control characters, which are then dropped as each would be.
    return tokens, types, list(merges) or ["Ā ā"], "gpt-2"


def _as_bytes(token: str) -> str:
    """A text as byte-level BPE writes it: every byte as one printable character."""
    from tokenizers.pre_tokenizers import ByteLevel

    return "".join(part for part, _ in ByteLevel(False, use_regex=False).pre_tokenize_str(token))

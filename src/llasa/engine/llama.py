"""Lays out a Llama's weights for fast decoding, and computes its forward pass.

This is a second implementation of transformers' `LlamaForCausalLM`, and the tests hold the two equal. The caller
provides attention, and with it the KV cache.

The weights come one matrix at a time: each is laid out and released before the next is fetched, so loading never holds
the model twice.

In the original, one step of a small model is mostly overhead. This one is faster: query, key and value are one matrix,
and so are gate and up; rotary embedding is one complex product in place; the output matrix holds only the rows that may
be sampled; and on a CPU the matrices are packed for oneDNN once. On a CPU everything but the matrices is float32, since
bfloat16 attention is many times slower there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llasa.errors import LlasaError
from llasa.models.defaults import INT4
from llasa.models.weights import Weights

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

TINY = torch.finfo(torch.float32).tiny
GROUP = 32  # neighbouring weights that share a scale in int4
Linear = Callable[[Tensor], Tensor]
# (index of the layer, rotated and scaled queries and keys, and values, (n, heads + 2 kv_heads, head_size))
# -> (n, heads * head_size)
Attention = Callable[[int, Tensor], Tensor]


def weights_of(model: "LlamaForCausalLM") -> Weights:
    """A transformers model as `Weights`: on its device, in its precision. The model does not change."""
    weights = model.state_dict()
    devices = (model.device,) * model.config.num_hidden_layers
    return Weights(model.config, lambda name: weights[name].clone(), model.dtype, devices)


@dataclass(frozen=True)
class Layer:
    device: torch.device
    attention_norm: Tensor
    qkv: Linear
    out: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True)
class Llama:
    """Weights and sizes.

    Attributes:
        embedding: (vocabulary, hidden), in the precision of the file.
        layers: the layers, in order.
        norm: the last norm's weight, (hidden,).
        head: the output matrix, reduced to the tokens that may be sampled: (n, hidden) -> (n, legal).
        output: makes such a head for the ids of other tokens.
        rotations: (context, 1, head_size / 2) complex64; row p turns a query or key at position p, and scales each by
            the fourth root of 1 / head_size: their product comes out scaled by the square root, as attention wants it.
        heads, kv_heads, head_size, eps: as in the configuration.
        weights: precision of the matrices; float32 if they are int8 or int4.
        dtype: precision of the activations between the matrices, and of the KV cache.
    """

    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Linear
    output: Callable[[Tensor], Linear]
    rotations: Tensor
    heads: int
    kv_heads: int
    head_size: int
    eps: float
    weights: torch.dtype
    dtype: torch.dtype


@torch.no_grad()
def read_llama(source: Weights, legal: Tensor, context: int) -> Llama:
    """Lays out weights for decoding.

    On a CPU the embedding is the tensor that `source` gave. If it is mapped from a file it stays there, and only the
    rows of tokens that occur are ever read.

    Args:
        source: where the weights come from.
        legal: ids of the tokens that may be sampled; the head's rows come in this order.
        context: number of positions.

    Raises:
        LlasaError: the Llama has an activation or a rope type that this implementation lacks, or int8 or int4 is asked
            for where it cannot be computed.
    """
    config, tensor = source.config, source.tensor
    quantised = source.dtype in (torch.int8, INT4)
    weights = torch.float32 if quantised else source.dtype
    if quantised and not all(
        device.type == "cpu" and torch.backends.mkldnn.is_available() for device in source.devices
    ):
        raise LlasaError("int8 and int4 are computed on a CPU with oneDNN: use --device cpu, or another --dtype")
    # In int4 the output matrix is int8: nothing evens out its errors before a token is chosen.
    lay, lay_head = {torch.int8: (_int8, _int8), INT4: (_int4, _int8)}.get(source.dtype, (_linear, _linear))
    if config.hidden_act != "silu":
        raise LlasaError(f"the model's activation is {config.hidden_act}: use a Llama with silu")
    first, last = source.devices[0], source.devices[-1]
    dtype = torch.float32 if any(device.type == "cpu" for device in source.devices) else weights
    rotations = _rotations(config, context)[:, None].to(first) * config.head_dim**-0.25

    def norm(name: str, device: torch.device) -> Tensor:
        return tensor(f"{name}.weight").to(device, dtype, copy=True)

    def linear(device: torch.device, biased: bool, *names: str, turned: int = 0) -> Linear:
        """The named matrices stacked into one; the outputs of the first `turned` are interleaved for rotation."""

        def stacked(kind: str) -> Tensor:
            parts = [tensor(f"{name}.{kind}").to(device, weights) for name in names]
            parts[:turned] = [_interleave(part, config.head_dim) for part in parts[:turned]]
            return torch.cat(parts)  # always a copy, because the parts may be views of a file

        return lay(stacked("weight"), stacked("bias") if biased else None)

    def layer(index: int, device: torch.device) -> Layer:
        name = f"model.layers.{index}"
        qkv = [f"{name}.self_attn.{part}_proj" for part in "qkv"]
        gate_up = [f"{name}.mlp.{part}_proj" for part in ("gate", "up")]
        return Layer(
            device,
            norm(f"{name}.input_layernorm", device),
            linear(device, config.attention_bias, *qkv, turned=2),
            linear(device, config.attention_bias, f"{name}.self_attn.o_proj"),
            norm(f"{name}.post_attention_layernorm", device),
            linear(device, config.mlp_bias, *gate_up),
            linear(device, config.mlp_bias, f"{name}.mlp.down_proj"),
        )

    # The largest first, while most memory is free: laying out the head copies it twice. The table that it is taken from
    # stays where it is, in its file if there is one.
    table = tensor("lm_head.weight")

    def output(chosen: Tensor) -> Linear:
        return lay_head(table[chosen].to(last, weights), None)

    head = output(legal)
    return Llama(
        embedding=tensor("model.embed_tokens.weight").to(first),
        layers=tuple(layer(index, device) for index, device in enumerate(source.devices)),
        norm=norm("model.norm", last),
        head=head,
        output=output,
        rotations=rotations,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=config.head_dim,
        eps=config.rms_norm_eps,
        weights=weights,
        dtype=dtype,
    )


def forward(llama: Llama, ids: Tensor, positions: Tensor, attend: Attention) -> Tensor:
    """The normed output of the last layer (n, hidden) for token ids (n,) at their positions (n,).

    The n tokens may be one sequence, or one token of each of n sequences: only `attend` treats the two differently.
    """
    size = (llama.embedding.shape[1],)
    rotations = llama.rotations[positions]
    x = F.embedding(ids, llama.embedding).to(llama.weights).to(llama.dtype)
    for index, layer in enumerate(llama.layers):
        if x.device != layer.device:
            x, rotations = x.to(layer.device), rotations.to(layer.device)
        qkv = _project(llama, layer, F.rms_norm(x, size, layer.attention_norm, llama.eps), rotations)
        x = x + layer.out(attend(index, qkv))
        gate, up = layer.gate_up(F.rms_norm(x, size, layer.mlp_norm, llama.eps)).chunk(2, -1)
        x = x + layer.down(F.silu(gate).mul_(up))
    return F.rms_norm(x, size, llama.norm, llama.eps)


def scores(llama: Llama, ids: Tensor, layer: int, head: int, attend: Attention) -> Tensor:
    """One head's causal attention logits (n, n) float32 over a sequence of token ids (n,).

    Only the layers below the head's are computed, and of its own layer only queries and keys.
    """
    positions, own = torch.arange(len(ids), device=ids.device), llama.layers[layer]
    below = replace(
        llama, layers=llama.layers[:layer], norm=own.attention_norm.to(llama.layers[max(0, layer - 1)].device)
    )
    x = forward(below, ids, positions, attend).to(own.device)
    qkv = _project(llama, own, x, llama.rotations[positions].to(own.device))
    query, key = qkv[:, head], qkv[:, llama.heads + head * llama.kv_heads // llama.heads]
    logits = query.float() @ key.float().T
    return logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -torch.inf)


def _project(llama: Llama, layer: Layer, x: Tensor, rotations: Tensor) -> Tensor:
    """A layer's queries and keys, rotated and scaled, and values, (n, heads + 2 kv_heads, head_size) of inputs x."""
    pairs = layer.qkv(x).float().view(x.shape[0], -1, llama.head_size // 2, 2)
    torch.view_as_complex(pairs.narrow(1, 0, llama.heads + llama.kv_heads)).mul_(rotations)
    return pairs.flatten(2).to(llama.dtype)


def turned(llama: Llama, keys: Tensor, places: int) -> Tensor:
    """Keys (..., head_size) as they would be so many places further on."""
    turn = (llama.rotations[places] / llama.rotations[0]).to(keys.device)
    pairs = torch.view_as_complex(keys.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn).flatten(-2).to(keys.dtype)


def _rotations(config: Any, context: int) -> Tensor:
    """(context, head_size / 2) complex64: how far each pair of numbers turns at each position.

    Raises:
        LlasaError: the turns depend on the sequence's length.
    """
    if config.rope_parameters["rope_type"] == "default":  # as most have it; importing transformers takes seconds
        speeds = 1 / (config.rope_parameters["rope_theta"] ** (torch.arange(0, config.head_dim, 2) / config.head_dim))
        angles = torch.outer(torch.arange(context), speeds)
        return torch.complex(angles.cos(), angles.sin())
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rotary = LlamaRotaryEmbedding(config)  # a fresh one: casting a model to bfloat16 rounds its frequencies too
    if rotary.rope_type in ("dynamic", "longrope"):
        raise LlasaError(
            f"the model's rope type is {rotary.rope_type}: use a model whose positions do not depend on the length"
        )
    cos, sin = rotary(torch.zeros(1), torch.arange(context)[None])
    half = config.head_dim // 2
    return torch.complex(cos[0, :, :half], sin[0, :, :half])


def _linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """A function x -> x W^T + b in the weight's precision, which keeps W.

    With packed weights, oneDNN sums every row in the same order whatever the number of rows, so a row's result does not
    depend on its batch. It is also faster than F.linear in all but the smallest float32 products.
    """
    if not _packs(weight):
        return lambda x: F.linear(x.to(weight.dtype), weight, bias)
    dtype, packed = weight.dtype, torch.ops.mkldnn._reorder_linear_weight(weight, None)
    apply = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: apply(x.to(dtype), packed, bias, "none", [], "")


def _int8(weight: Tensor, bias: Tensor | None) -> Linear:
    """A function x -> x W^T + b in int8: W and x are whole numbers, with a scale a row each. x is scaled as it comes.

    x has no sign, but a zero of 128: with a sign, oneDNN multiplies in plain loops where a CPU has no matrix units. The
    sums are exact, so a row's result depends neither on its batch nor on the threads. Without instructions for
    whole numbers (VNNI) a CPU adds two products in 16 bits, and W gets 7 bits so that they fit.
    """
    able = torch.cpu.get_capabilities()
    top = 127 if able.get("avx512_vnni") or able.get("avx_vnni") else 63
    scales = (weight.abs().amax(1) / top).clamp_min(TINY)
    packed = torch.ops.onednn.qlinear_prepack((weight / scales[:, None]).round_().to(torch.int8), None)
    offsets = torch.zeros(len(scales), dtype=torch.int64)
    apply = torch.ops.onednn.qlinear_pointwise.default

    def linear(x: Tensor) -> Tensor:
        size = x.abs().amax(-1, keepdim=True).clamp_min_(TINY).mul_(1 / 127)
        whole = (x / size).round_().add_(128).to(torch.uint8)
        out = apply(whole, 1.0, 128, packed, scales, offsets, None, 1.0, 0, torch.float32, "none", [], "").mul_(size)
        return out if bias is None else out.add_(bias)

    return linear


def _int4(weight: Tensor, bias: Tensor | None) -> Linear:
    """A function x -> x W^T + b, where W has 4 bits: whole numbers to 15, with a scale and a zero for each `GROUP`.

    x is rounded to bfloat16. Each row is summed alone, so its result does not depend on its batch.

    Raises:
        LlasaError: PyTorch's kernel does not take this shape.
    """
    rows, columns = weight.shape
    if rows % 16 or columns % GROUP:
        raise LlasaError(f"int4 does not take a matrix of {rows} x {columns}: use --dtype int8")
    groups = weight.view(rows, -1, GROUP)
    least = groups.amin(-1, keepdim=True)
    scales = ((groups.amax(-1, keepdim=True) - least) / 15).clamp_min_(TINY)
    whole = ((groups - least) / scales).round_().to(torch.int32).view(rows, columns)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(whole, 1)
    # The kernel counts from 8: W is (whole - 8) * scale + zero.
    tables = torch.cat([scales, least + 8 * scales], -1).transpose(0, 1).to(torch.bfloat16).contiguous()
    apply = torch.ops.aten._weight_int4pack_mm_for_cpu.default

    def linear(x: Tensor) -> Tensor:
        out = apply(x.to(torch.bfloat16), packed, GROUP, tables).float()
        return out if bias is None else out.add_(bias)

    return linear


def _packs(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _interleave(values: Tensor, head_size: int) -> Tensor:
    """Reorders each head's outputs so that the two that are rotated together lie side by side, like complex numbers.

    transformers pairs output i with i + head_size / 2. Attention scores do not change, because queries and keys are
    reordered in the same way.

    Args:
        values: a projection's weight (heads * head_size, hidden) or bias (heads * head_size,).
    """
    return values.unflatten(0, (-1, 2, head_size // 2)).transpose(1, 2).flatten(0, 2)

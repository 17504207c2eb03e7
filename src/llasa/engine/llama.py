"""A Llama's weights laid out for decoding, and its forward pass.

Knows the architecture of transformers' `LlamaForCausalLM`, whose second implementation this is (tested equal to the
first); how tokens attend to one another is the caller's. Knows nothing of caches, sampling or rows.

What makes it faster than the original, where one step of a small model is mostly overhead: query, key and value are
one matrix, so are gate and up; rotary embedding is one complex product in place; the output matrix holds only the rows
that may be sampled; and on a CPU the matrices are packed for oneDNN once. On a CPU everything but the matrices is
float32, since bfloat16 attention is many times slower there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llasa.errors import LlasaError

Linear = Callable[[Tensor], Tensor]
# (index of the layer, rotated and scaled queries and keys, and values, (n, heads + 2 kv_heads, head_size))
# -> (n, heads * head_size)
Attention = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Layer:
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
        embedding: (vocabulary, hidden).
        layers: the layers, in order.
        norm: the last norm's weight, (hidden,).
        head: the output matrix's legal rows, (n, hidden) -> (n, legal).
        rotations: (context, 1, head_size / 2) complex64; row p turns a query or key at position p, and scales each by
            the fourth root of 1 / head_size: their product comes out scaled by the square root, as attention wants it.
        heads, kv_heads, head_size, eps: as in the configuration.
        dtype: of what flows between the matrices, and of the KV cache.
    """

    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Linear
    rotations: Tensor
    heads: int
    kv_heads: int
    head_size: int
    eps: float
    dtype: torch.dtype


@torch.no_grad()
def read_llama(model: LlamaForCausalLM, legal: Tensor, context: int) -> Llama:
    """Copies what decoding needs out of a transformers model, which can be dropped afterwards.

    Args:
        model: on the device and in the precision in which to compute.
        legal: ids of the tokens that may be sampled; the head's rows come in this order.
        context: number of positions.

    Raises:
        LlasaError: a Llama with an activation or a position scaling that this implementation does not have.
    """
    config: Any = model.config
    body: Any = model.model
    if config.hidden_act != "silu":
        raise LlasaError(f"the model's activation is {config.hidden_act}: only Llamas with silu can be decoded")
    rotary = LlamaRotaryEmbedding(config)  # a fresh one: casting a model to bfloat16 rounds its frequencies too
    if rotary.rope_type in ("dynamic", "longrope"):
        raise LlasaError(
            f"the model's rope type is {rotary.rope_type}: positions that shift with length are unsupported"
        )
    device = model.device
    dtype = torch.float32 if device.type == "cpu" else model.dtype
    cos, sin = rotary(torch.zeros(1), torch.arange(context)[None])
    half = config.head_dim // 2
    rotations = torch.complex(cos[0, :, :half], sin[0, :, :half])[:, None].to(device) * config.head_dim**-0.25

    def norm(module: Any) -> Tensor:
        return module.weight.detach().to(dtype, copy=True)

    def layer(block: Any) -> Layer:
        attention, mlp = block.self_attn, block.mlp
        turned = [_interleave(t, config.head_dim) for t in (attention.q_proj, attention.k_proj)]
        return Layer(
            norm(block.input_layernorm),
            _linear(*_stack(*turned, (attention.v_proj.weight, attention.v_proj.bias))),
            _linear(*_stack((attention.o_proj.weight, attention.o_proj.bias))),
            norm(block.post_attention_layernorm),
            _linear(*_stack(*((m.weight, m.bias) for m in (mlp.gate_proj, mlp.up_proj)))),
            _linear(*_stack((mlp.down_proj.weight, mlp.down_proj.bias))),
        )

    return Llama(
        embedding=body.embed_tokens.weight.detach().clone(),
        layers=tuple(layer(block) for block in body.layers),
        norm=norm(body.norm),
        head=_linear(model.lm_head.weight[legal], None),
        rotations=rotations,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=config.head_dim,
        eps=config.rms_norm_eps,
        dtype=dtype,
    )


def forward(llama: Llama, ids: Tensor, positions: Tensor, attend: Attention) -> Tensor:
    """Token ids (n,) at their positions (n,) to the last layer's normed output (n, hidden).

    The n tokens may be one sequence or one token of n sequences: only `attend` makes a difference between them.
    """
    size = (llama.embedding.shape[1],)
    turning = llama.heads + llama.kv_heads
    rotations = llama.rotations[positions]
    x = F.embedding(ids, llama.embedding).to(llama.dtype)
    for index, layer in enumerate(llama.layers):
        pairs = layer.qkv(F.rms_norm(x, size, layer.attention_norm, llama.eps)).float()
        pairs = pairs.view(x.shape[0], -1, llama.head_size // 2, 2)
        torch.view_as_complex(pairs.narrow(1, 0, turning)).mul_(rotations)
        x = x + layer.out(attend(index, pairs.flatten(2).to(llama.dtype)))
        gate, up = layer.gate_up(F.rms_norm(x, size, layer.mlp_norm, llama.eps)).chunk(2, -1)
        x = x + layer.down(F.silu(gate).mul_(up))
    return F.rms_norm(x, size, llama.norm, llama.eps)


def _linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """x -> x W^T + b in the weight's precision; W is the function's own from here on.

    oneDNN with packed weights sums every row in the same order however many rows there are, so a row's result does not
    depend on its batch; it also beats F.linear in all but the smallest float32 products.
    """
    if not _packs(weight):
        return lambda x: F.linear(x.to(weight.dtype), weight, bias)
    dtype, packed = weight.dtype, torch.ops.mkldnn._reorder_linear_weight(weight, None)
    apply = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: apply(x.to(dtype), packed, bias, "none", [], "")


def _packs(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _stack(*parts: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """One matrix and bias of several, or of one: a copy in any case."""
    weights, biases = zip(*parts, strict=True)
    return torch.cat(weights), None if biases[0] is None else torch.cat(biases)


def _interleave(projection: nn.Linear, head_size: int) -> tuple[Tensor, Tensor | None]:
    """Reorders each head's outputs so that the two that are rotated together lie side by side, as complex numbers do.

    transformers pairs output i with i + head_size / 2. Scores do not change: queries and keys are reordered alike.
    """

    def reorder(values: Tensor) -> Tensor:
        return values.unflatten(0, (-1, 2, head_size // 2)).transpose(1, 2).flatten(0, 2)

    return reorder(projection.weight), None if projection.bias is None else reorder(projection.bias)

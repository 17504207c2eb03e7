"""A Llama's weights laid out for decoding, and its forward pass.

Knows the architecture of transformers' `LlamaForCausalLM`, whose second implementation this is (tested equal to the
first); how tokens attend to one another is the caller's. Knows nothing of caches, sampling or rows.

The weights come from a `Checkpoint`, one matrix at a time: each is laid out anew and let go before the next is fetched,
so that loading never holds the model twice.

What makes it faster than the original, where one step of a small model is mostly overhead: query, key and value are
one matrix, so are gate and up; rotary embedding is one complex product in place; the output matrix holds only the rows
that may be sampled; and on a CPU the matrices are packed for oneDNN once. On a CPU everything but the matrices is
float32, since bfloat16 attention is many times slower there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llasa.errors import LlasaError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Linear = Callable[[Tensor], Tensor]
# (index of the layer, rotated and scaled queries and keys, and values, (n, heads + 2 kv_heads, head_size))
# -> (n, heads * head_size)
Attention = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A Llama that is yet to be read.

    Attributes:
        config: transformers' `LlamaConfig`.
        tensor: a name, as in the state dict of transformers' `LlamaForCausalLM`, to its weights, wherever they lie and
            of whatever precision. Each name is asked for once; a tied `lm_head.weight` too.
        dtype: precision of the matrices in which to compute.
        devices: where each layer is to lie. Tokens come in at the first, and logits out at the last.
    """

    config: Any
    tensor: Callable[[str], Tensor]
    dtype: torch.dtype
    devices: tuple[torch.device, ...]


def checkpoint_of(model: "LlamaForCausalLM") -> Checkpoint:
    """A transformers model as a checkpoint: on its device, in its precision. The model is left as it is."""
    weights = model.state_dict()
    devices = (model.device,) * model.config.num_hidden_layers
    return Checkpoint(model.config, lambda name: weights[name].clone(), model.dtype, devices)


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
        head: the output matrix's legal rows, (n, hidden) -> (n, legal).
        rotations: (context, 1, head_size / 2) complex64; row p turns a query or key at position p, and scales each by
            the fourth root of 1 / head_size: their product comes out scaled by the square root, as attention wants it.
        heads, kv_heads, head_size, eps: as in the configuration.
        weights: precision of the matrices.
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
    weights: torch.dtype
    dtype: torch.dtype


@torch.no_grad()
def read_llama(checkpoint: Checkpoint, legal: Tensor, context: int) -> Llama:
    """Lays out a checkpoint's weights for decoding.

    On a CPU the embedding stays the tensor that the checkpoint gave: one that is mapped from a file stays there, and of
    its rows only those of the tokens that occur are ever read.

    Args:
        checkpoint: where the weights come from.
        legal: ids of the tokens that may be sampled; the head's rows come in this order.
        context: number of positions.

    Raises:
        LlasaError: a Llama with an activation or a position scaling that this implementation does not have.
    """
    config, tensor, weights = checkpoint.config, checkpoint.tensor, checkpoint.dtype
    if config.hidden_act != "silu":
        raise LlasaError(f"the model's activation is {config.hidden_act}: only Llamas with silu can be decoded")
    rotary = LlamaRotaryEmbedding(config)  # a fresh one: casting a model to bfloat16 rounds its frequencies too
    if rotary.rope_type in ("dynamic", "longrope"):
        raise LlasaError(
            f"the model's rope type is {rotary.rope_type}: positions that shift with length are unsupported"
        )
    first, last = checkpoint.devices[0], checkpoint.devices[-1]
    dtype = torch.float32 if any(device.type == "cpu" for device in checkpoint.devices) else weights
    cos, sin = rotary(torch.zeros(1), torch.arange(context)[None])
    half = config.head_dim // 2
    rotations = torch.complex(cos[0, :, :half], sin[0, :, :half])[:, None].to(first) * config.head_dim**-0.25

    def norm(name: str, device: torch.device) -> Tensor:
        return tensor(f"{name}.weight").to(device, dtype, copy=True)

    def linear(device: torch.device, biased: bool, *names: str, turned: int = 0) -> Linear:
        """The matrices under one another as one; the outputs of the first `turned` are interleaved for rotation."""

        def stacked(kind: str) -> Tensor:
            parts = [tensor(f"{name}.{kind}").to(device, weights) for name in names]
            parts[:turned] = [_interleave(part, config.head_dim) for part in parts[:turned]]
            return torch.cat(parts)  # a copy in any case: the parts may be views of a file

        return _linear(stacked("weight"), stacked("bias") if biased else None)

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

    # The largest first, while there is most room: the head is copied twice on its way.
    head = _linear(tensor("lm_head.weight")[legal].to(last, weights), None)
    return Llama(
        embedding=tensor("model.embed_tokens.weight").to(first),
        layers=tuple(layer(index, device) for index, device in enumerate(checkpoint.devices)),
        norm=norm("model.norm", last),
        head=head,
        rotations=rotations,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=config.head_dim,
        eps=config.rms_norm_eps,
        weights=weights,
        dtype=dtype,
    )


def forward(llama: Llama, ids: Tensor, positions: Tensor, attend: Attention) -> Tensor:
    """Token ids (n,) at their positions (n,) to the last layer's normed output (n, hidden).

    The n tokens may be one sequence or one token of n sequences: only `attend` makes a difference between them.
    """
    size = (llama.embedding.shape[1],)
    turning = llama.heads + llama.kv_heads
    rotations = llama.rotations[positions]
    x = F.embedding(ids, llama.embedding).to(llama.weights).to(llama.dtype)
    for index, layer in enumerate(llama.layers):
        if x.device != layer.device:
            x, rotations = x.to(layer.device), rotations.to(layer.device)
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


def _interleave(values: Tensor, head_size: int) -> Tensor:
    """Reorders each head's outputs so that the two that are rotated together lie side by side, as complex numbers do.

    transformers pairs output i with i + head_size / 2. Scores do not change: queries and keys are reordered alike.

    Args:
        values: a projection's weight (heads * head_size, hidden) or bias (heads * head_size,).
    """
    return values.unflatten(0, (-1, 2, head_size // 2)).transpose(1, 2).flatten(0, 2)

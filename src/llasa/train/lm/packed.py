"""Computes attention inside each sample of a packed row, and registers it with transformers as ATTENTION."""

import functools
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_flash_attn_2_available

ATTENTION = "packed"  # its name in transformers


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    bounds: list[int],
    starts: torch.Tensor,
    scaling: float | None = None,
    **ignored: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each sample of a packed row: from (1, heads, T, D) to (1, T, heads, D).

    A GPU computes all samples in one call, a CPU one after another.

    Args:
        bounds, starts: as in a `Pack`.
    """
    longest = max(b - a for a, b in itertools.pairwise(bounds))
    if query.is_cuda and value.dtype is torch.bfloat16:
        if is_flash_attn_2_available():
            return flash_attention(query, key, value, starts, longest, scaling), None
        if has_varlen_attention(query.device):
            return varlen_attention(query, key, value, starts, longest, scaling), None
    grouped = query.shape[1] != key.shape[1]
    parts = [
        F.scaled_dot_product_attention(
            query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], is_causal=True, scale=scaling, enable_gqa=grouped
        )
        for a, b in itertools.pairwise(bounds)
    ]
    return torch.cat(parts, 2).transpose(1, 2), None


def flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scaling: float | None,
) -> torch.Tensor:
    """`packed_attention` by flash-attn's kernel for samples of various lengths (Dao 2023)."""
    from flash_attn import flash_attn_varlen_func

    # Rotary embedding returns queries and keys in float32.
    rows = [tensor[0].transpose(0, 1).to(value.dtype) for tensor in (query, key, value)]
    return flash_attn_varlen_func(*rows, starts, starts, longest, longest, softmax_scale=scaling, causal=True)[None]


def varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scaling: float | None,
) -> torch.Tensor:
    """`packed_attention` by torch's own version of the same kernel."""
    from torch.nn.attention import varlen

    shared = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(shared, 1) if shared > 1 else tensor for tensor in (key, value))
    rows = [tensor[0].transpose(0, 1).to(value.dtype) for tensor in (query, key, value)]
    attend: Any = varlen.varlen_attn
    return attend(*rows, starts, starts, longest, longest, scale=scaling, window_size=(-1, 0))[None]


@functools.cache
def has_varlen_attention(device: torch.device) -> bool:
    """Whether torch's own kernel works here, tested on two small samples. It needs torch 2.11 and a suitable GPU."""
    query, key, value = (torch.randn(1, 2, 40, 64, device=device, dtype=torch.bfloat16) for _ in range(3))
    starts = torch.tensor([0, 24, 40], dtype=torch.int32, device=device)
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        try:
            found = varlen_attention(query.requires_grad_(), key, value, starts, 24, 0.1)
            found.float().sum().backward()
        except (AttributeError, ImportError, TypeError, RuntimeError):
            return False
        parts = [[tensor[:, :, a:b] for tensor in (query, key, value)] for a, b in ((0, 24), (24, 40))]
        wanted = [F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.1) for q, k, v in parts]
    return torch.allclose(found, torch.cat(wanted, 2).transpose(1, 2), atol=0.05)


ALL_ATTENTION_FUNCTIONS[ATTENTION] = packed_attention

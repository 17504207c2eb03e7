"""Checks the sizes of a language model before anything of these sizes is made."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llasa.errors import LlasaError, first_line

if TYPE_CHECKING:
    from transformers import LlamaConfig

# The most that a size may be: far beyond any model, and small enough to compute with.
MOST = {
    "vocab_size": 10**8, "hidden_size": 10**6, "intermediate_size": 10**7, "num_hidden_layers": 1000,
    "num_attention_heads": 10**4, "num_key_value_heads": 10**4, "head_dim": 10**5, "max_position_embeddings": 10**9,
}  # fmt: skip
PLAIN_ROPE = {"rope_type": str, "rope_theta": float}


@dataclass(frozen=True)
class LlamaSizes:
    """What decoding needs of a Llama's configuration: some of the fields of transformers' `LlamaConfig`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    hidden_act: str
    rms_norm_eps: float
    attention_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool
    rope_parameters: dict[str, Any]


def plain_sizes(values: dict[str, Any]) -> LlamaSizes | None:
    """The sizes of a Llama with plain rotary positions, read without transformers, whose import takes seconds.

    None where transformers must look: positions are scaled, or a value is missing or of another type.

    Raises:
        LlasaError: as `llama_config`.
    """
    rope = values.get("rope_parameters")
    if not isinstance(rope, dict) or {name: type(value) for name, value in rope.items()} != PLAIN_ROPE:
        return None
    known: dict[str, Any] = {name: values.get(name) for name in LlamaSizes.__annotations__}
    if rope["rope_type"] != "default" or any(
        type(known[name]) is not kind for name, kind in LlamaSizes.__annotations__.items() if name != "rope_parameters"
    ):
        return None
    _check_numbers(values)
    sizes = LlamaSizes(**known)
    _check_heads(sizes, values)
    return sizes


def llama_config(values: dict[str, Any]) -> "LlamaConfig":
    """The configuration that `values` describe.

    Raises:
        LlasaError: a size is no whole number above 0, is absurd, does not fit the others, or another value is
            impossible; the message names the key.
    """
    from transformers import LlamaConfig

    _check_numbers(values)
    try:
        config = LlamaConfig.from_dict(values)
    except Exception as error:  # transformers' validation raises various errors, of several lines
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise LlasaError(f"it does not describe a Llama ({(lines or [first_line(error)])[-1][:160]})") from error
    _check_heads(config, values)
    return config


def _check_numbers(values: dict[str, Any]) -> None:
    for key, most in MOST.items():
        value = values.get(key)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and 0 < value <= most):
            raise LlasaError(f"`{key}` is {str(value)[:40]!r}: it must be a whole number from 1 to {most:,}")


def _check_heads(config: Any, values: dict[str, Any]) -> None:
    width, heads, groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads or 1
    if not values.get("head_dim") and width % heads:
        raise LlasaError(f"`hidden_size` is {width}: it must be a multiple of `num_attention_heads`, {heads}")
    if heads % groups:
        raise LlasaError(f"`num_attention_heads` is {heads}: it must be a multiple of `num_key_value_heads`, {groups}")
    if (config.head_dim or 0) % 2:
        raise LlasaError(f"a head is {config.head_dim} wide: it must be even, for rotary positions")

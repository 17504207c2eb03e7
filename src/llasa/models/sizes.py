"""Checks the sizes of a language model before anything of these sizes is made."""

from typing import Any

from transformers import LlamaConfig

from llasa.errors import LlasaError, first_line

# The most that a size may be: far beyond any model, and small enough to compute with.
MOST = {
    "vocab_size": 10**8, "hidden_size": 10**6, "intermediate_size": 10**7, "num_hidden_layers": 1000,
    "num_attention_heads": 10**4, "num_key_value_heads": 10**4, "head_dim": 10**5, "max_position_embeddings": 10**9,
}  # fmt: skip


def llama_config(values: dict[str, Any]) -> LlamaConfig:
    """The configuration that `values` describe.

    Raises:
        LlasaError: a size is no whole number above 0, is absurd, does not fit the others, or another value is
            impossible; the message names the key.
    """
    for key, most in MOST.items():
        value = values.get(key)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and 0 < value <= most):
            raise LlasaError(f"`{key}` is {str(value)[:40]!r}: it must be a whole number from 1 to {most:,}")
    try:
        config = LlamaConfig.from_dict(values)
    except Exception as error:  # transformers' validation raises various errors, of several lines
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise LlasaError(f"it does not describe a Llama ({(lines or [first_line(error)])[-1][:160]})") from error
    width, heads, groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads or 1
    if not values.get("head_dim") and width % heads:
        raise LlasaError(f"`hidden_size` is {width}: it must be a multiple of `num_attention_heads`, {heads}")
    if heads % groups:
        raise LlasaError(f"`num_attention_heads` is {heads}: it must be a multiple of `num_key_value_heads`, {groups}")
    if (config.head_dim or 0) % 2:
        raise LlasaError(f"a head is {config.head_dim} wide: it must be even, for rotary positions")
    return config

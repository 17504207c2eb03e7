"""How a model wants to be computed and sampled from, where the user says nothing: precision and sampling settings."""

from pathlib import Path
from typing import Any

import torch

from llasa.engine import Sampling
from llasa.errors import LlasaError
from llasa.loading import first_line, read_json

SETTINGS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
# What the chat models that the official ones were made from left behind in generation_config.json, and what upstream's
# snippet puts in its place; top_k is the default of transformers' `generate` there.
CHAT = {"temperature": 0.6, "top_p": 0.9}
UPSTREAM = {"temperature": 0.8, "top_p": 1.0, "top_k": 50}


def dtype_of(name: str | None, device: str) -> torch.dtype:
    """The precision of that name; without one the fastest that the device computes well.

    Raises:
        LlasaError: there is no such precision.
    """
    if name is None:
        # Half the bytes to read for a token; but a CPU without bfloat16 instructions imitates them slowly.
        fast = torch.cpu.get_capabilities().get("avx512_bf16", False) if device == "cpu" else True
        return torch.bfloat16 if fast else torch.float32
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in dtypes:
        raise LlasaError(f"there is no dtype {name}: use {', '.join(dtypes)}")
    return dtypes[name]


def sampling_of(folder: Path, config: dict[str, Any]) -> tuple[Sampling, str | None]:
    """Sampling settings and the default voice's name, from generation_config.json where the folder has one.

    A folder that names no codec is not this package's: it is sampled from as upstream's snippet does.

    Raises:
        LlasaError: a setting in the file is out of range.
    """
    path = folder / "generation_config.json"
    values = read_json(path) if path.exists() else {}
    given = {name: values[name] for name in SETTINGS if values.get(name) is not None}
    if "codec" not in config and given in ({}, CHAT):
        given = UPSTREAM
    try:
        sampling = Sampling(**given)
    except (LlasaError, TypeError) as error:
        raise LlasaError(f"{path}: {first_line(error)}") from error
    return sampling, values.get("default_voice", config.get("default_voice"))

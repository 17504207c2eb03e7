"""Chooses defaults: a model's precision, device and sampling settings."""

from pathlib import Path
from typing import Any

import torch

from llasa.errors import LlasaError, first_line
from llasa.files import exists
from llasa.models.folder import read_json

SETTINGS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
# The official models' generation_config.json is still that of the chat models they were made from (CHAT). Upstream's
# snippet samples with UPSTREAM instead; its top_k is the default of transformers' `generate`.
CHAT = {"temperature": 0.6, "top_p": 0.9}
UPSTREAM = {"temperature": 0.8, "top_p": 1.0, "top_k": 50}
INT4: torch.dtype = torch.int4  # type: ignore[attr-defined]
DTYPES = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8, "int4": INT4,
}  # fmt: skip


def dtype_of(name: str | None, device: str, backend: str = "torch") -> torch.dtype:
    """The precision of that name; without a name, the fastest that costs no words (benchmarks/precision.py).

    Raises:
        LlasaError: there is no such precision.
    """
    if name is None and backend == "llamacpp":
        return torch.int8
    if name is None:
        # bfloat16 halves the bytes to read for a token, but a CPU without its instructions emulates them slowly.
        fast = torch.cpu.get_capabilities().get("avx512_bf16", False) if device == "cpu" else True
        return torch.bfloat16 if fast else torch.float32
    if name not in DTYPES:
        raise LlasaError(f"unknown dtype {name}: use {', '.join(DTYPES)}")
    return DTYPES[name]


def is_half(device: str) -> bool:
    """Whether training on a torch device multiplies matrices in bfloat16: where that is faster than float32."""
    return dtype_of(None, device) == torch.bfloat16


def half_precision(device: str) -> torch.autocast:
    """A context in which a torch device multiplies matrices in bfloat16, if `is_half`."""
    return torch.autocast(device, torch.bfloat16, enabled=is_half(device))


def sampling_of(folder: Path, config: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Sampling settings and the name of the default voice, from generation_config.json if the folder has one.

    A folder whose config names no codec was not made by this package; it gets the settings of upstream's snippet.
    """
    path = folder / "generation_config.json"
    values = read_json(path) if exists(path) else {}
    given = {name: values[name] for name in SETTINGS if values.get(name) is not None}
    if "codec" not in config and given in ({}, CHAT):
        given = UPSTREAM
    voice = values.get("default_voice", config.get("default_voice"))
    if not isinstance(voice, str | None) or voice == "":
        raise LlasaError(f"{path}: `default_voice` is {voice!r:.40}: it must be a voice's name in quotes")
    return given, voice


def check_device(device: str | None) -> str:
    """A device by its torch name, or by default a GPU if there is one, else the CPU.

    Raises:
        LlasaError: this machine has no such device.
    """
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.partition(":")[0] not in ("cpu", "cuda", "mps"):  # torch knows others, some of which hold no numbers
        raise LlasaError(f"cannot use the device {device}: use cpu, cuda or mps")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch built without CUDA
        raise LlasaError(f"cannot use the device {device} ({first_line(error)}): use cpu, cuda or mps") from error
    return device

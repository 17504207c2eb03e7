"""A language model's folder to what the engine reads: its tensors, fetched from safetensors one at a time.

Knows which file holds which tensor, whether they fit the config, and on which device each layer goes; knows nothing of
what is computed with them. A tensor is mapped from its file when it is asked for and unmapped when it is let go, so a
model never lies in memory twice, and what is not touched is never read. A LoRA is merged into its base first.
"""

import gc
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from llasa.engine import Checkpoint
from llasa.errors import LlasaError, need_extra
from llasa.loading import first_line, is_lora, read_config, weight_files

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def open_checkpoint(folder: Path, device: str, dtype: torch.dtype, spread: bool = False) -> Checkpoint:
    """The language model of a folder, its weights yet to be read.

    Args:
        folder: a model's folder, or a LoRA's.
        device: where the layers are to lie.
        dtype: precision in which to compute.
        spread: over all devices there are, as far as they have room, instead of on `device`.

    Raises:
        LlasaError: its files are missing, damaged or cut short, do not fit one another, or hold another architecture;
            a package is missing; or the model is larger than all devices together.
    """
    if is_lora(folder):
        from llasa.lora import merge_lora

        model = merge_lora(folder)
        config, weights = model.config, model.state_dict()
        devices = place_layers(config, dtype) if spread else _all_on(config, device)
        del model
        gc.collect()
        # Popped: nothing else holds a tensor that the engine has read.
        return Checkpoint(config, weights.pop, dtype, devices)
    config = _read_llama_config(folder)
    stored = _find_tensors(folder, config)

    def tensor(name: str) -> Tensor:
        # Opened anew for each: as long as one tensor of a file lives, all of the file stays mapped.
        path, key = stored[name]
        with safetensors.safe_open(path, framework="pt") as file:
            return file.get_tensor(key)

    return Checkpoint(config, tensor, dtype, place_layers(config, dtype) if spread else _all_on(config, device))


def place_layers(
    config: Any, dtype: torch.dtype, memory: dict[int | str, int] | None = None
) -> tuple[torch.device, ...]:
    """A device for each layer, GPUs first and as evenly as they have room, then the CPU.

    Args:
        config: of the model.
        dtype: of its weights.
        memory: bytes that may be used of each device, by GPU number or "cpu"; by default what is free.

    Raises:
        LlasaError: accelerate is missing, or the model is larger than all devices together.
    """
    need_extra("train", "accelerate")
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    model = _on_meta(config)
    model.tie_weights()
    whole = {"no_split_module_classes": ["LlamaDecoderLayer"], "dtype": dtype}
    room = memory or get_balanced_memory(model, **whole)
    placed = infer_auto_device_map(model, max_memory=room, **whole)

    def device(layer: str) -> torch.device:
        place = next(place for name, place in placed.items() if f"{layer}.".startswith(f"{name}." if name else ""))
        if place == "disk":
            raise LlasaError(
                "the model is larger than the memory of all devices together: use a smaller one or --dtype"
            )
        return torch.device(f"cuda:{place}" if isinstance(place, int) else place)

    return tuple(device(f"model.layers.{index}") for index in range(config.num_hidden_layers))


def _all_on(config: Any, device: str) -> tuple[torch.device, ...]:
    # Resolved to the current GPU, as tensors' devices are: "cuda" and "cuda:0" do not compare equal.
    return (torch.empty(0, device=device).device,) * config.num_hidden_layers


def _read_llama_config(folder: Path) -> LlamaConfig:
    values = read_config(folder)
    if "quantization_config" in values:
        raise LlasaError(
            f"the weights in {folder} are quantised, which is unsupported: pass the model it was made from"
        )
    try:
        return LlamaConfig.from_dict(values)
    except Exception as error:  # whatever transformers' validation makes of a value
        raise LlasaError(f"{folder / 'config.json'} does not describe a Llama ({first_line(error)})") from error


def _on_meta(config: Any) -> LlamaForCausalLM:
    """The model's modules without their weights."""
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def _find_tensors(folder: Path, config: Any) -> dict[str, tuple[Path, str]]:
    """For each tensor of the model, its file and its name there. Reads the headers of the files alone."""
    found: dict[str, tuple[Path, str]] = {}
    shapes: dict[str, list[int]] = {}
    for path in weight_files(folder):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - not a dict
                    found[key], shapes[key] = (path, key), file.get_slice(key).get_shape()
        except (OSError, safetensors.SafetensorError) as error:
            raise LlasaError(
                f"{path} cannot be read ({first_line(error)}): damaged or half-downloaded, download or copy it again"
            ) from error
    if config.tie_word_embeddings:
        # As transformers does it: whichever there is stands for both, and if there are two they are two.
        for name, other in ((HEAD, EMBEDDING), (EMBEDDING, HEAD)):
            if name not in found and other in found:
                found[name], shapes[name] = found[other], shapes[other]
    wanted = {name: list(weight.shape) for name, weight in _on_meta(config).state_dict().items()}
    if missing := sorted(wanted.keys() - found.keys()):
        raise LlasaError(f"the weights in {folder} lack {missing[0]} ({len(missing)} missing in all): copy it again")
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise LlasaError(
                f"the model in {folder} cannot be loaded: {name} has the shape {shapes[name]} where its config.json "
                f"asks for {shape}: copy both from one model"
            )
    return found

"""Reads a language model's tensors from safetensors, one at a time, for the engine.

This module finds the file of each tensor, checks that the tensors fit the config, and chooses a device for each layer;
the engine computes with them. A tensor is mapped from its file when it is asked for and unmapped when it is released,
so a model is never in memory twice, and unused tensors are never read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from torch import Tensor

from llasa.errors import LlasaError, first_line, need_extra
from llasa.models.folder import read_config, weight_files
from llasa.models.sizes import llama_config, plain_sizes

if TYPE_CHECKING:
    from transformers import LlamaConfig

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@dataclass(frozen=True)
class Weights:
    """The weights of a Llama, not read yet.

    Attributes:
        config: transformers' `LlamaConfig`, or `LlamaSizes`.
        tensor: reads a tensor by its name in the state dict of transformers' `LlamaForCausalLM`, on any device and in
            any precision. Each name may be asked for once, a tied `lm_head.weight` included.
        dtype: precision to compute in.
        devices: device of each layer. Tokens enter at the first, and logits leave at the last.
    """

    config: Any
    tensor: Callable[[str], Tensor]
    dtype: torch.dtype
    devices: tuple[torch.device, ...]


def open_weights(folder: Path, device: str, dtype: torch.dtype, spread: bool = False) -> Weights:
    """Opens the language model of a folder without reading its weights yet.

    Args:
        folder: a model's folder; for that of a LoRA see `llasa.models.lora.open_model`.
        device: device of all layers.
        dtype: precision to compute in.
        spread: spread the layers over all devices, as far as they have room, instead of using `device`.

    Raises:
        LlasaError: files are missing, damaged or cut short, do not fit together, or hold another architecture; a
            package is missing; or the model does not fit on all devices together.
    """
    config = _described(folder, lambda values: plain_sizes(values) or llama_config(values))
    if config.hidden_act != "silu":
        raise LlasaError(
            f"{folder / 'config.json'}: the activation is {config.hidden_act!r:.40}: use a Llama with silu"
        )
    stored = _find_tensors(folder, config)

    def tensor(name: str) -> Tensor:
        # Opened again for each tensor: a file stays mapped as long as any of its tensors is alive.
        path, key = stored[name]
        with safetensors.safe_open(path, framework="pt") as file:
            return file.get_tensor(key)

    return Weights(
        config, tensor, dtype, place_layers(read_llama_config(folder), dtype) if spread else all_on(config, device)
    )


def place_layers(
    config: Any, dtype: torch.dtype, memory: dict[int | str, int] | None = None
) -> tuple[torch.device, ...]:
    """Chooses a device for each layer: GPUs first, as evenly as they have room, then the CPU.

    Args:
        config: the model's config.
        dtype: precision of its weights.
        memory: bytes that may be used on each device, by GPU number or "cpu"; by default the free memory.

    Raises:
        LlasaError: accelerate is missing, or the model does not fit on all devices together.
    """
    need_extra("train", "accelerate")
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.tie_weights()
    whole = {"no_split_module_classes": ["LlamaDecoderLayer"], "dtype": dtype}
    room = memory or get_balanced_memory(model, **whole)
    placed = infer_auto_device_map(model, max_memory=room, **whole)

    def device(layer: str) -> torch.device:
        place = next(place for name, place in placed.items() if f"{layer}.".startswith(f"{name}." if name else ""))
        if place == "disk":
            raise LlasaError(
                "the model does not fit into the memory of all devices together: use a smaller one, or --dtype"
            )
        return torch.device(f"cuda:{place}" if isinstance(place, int) else place)

    return tuple(device(f"model.layers.{index}") for index in range(config.num_hidden_layers))


def all_on(config: Any, device: str) -> tuple[torch.device, ...]:
    """Every layer on one device."""
    # Resolved to the current GPU, as the devices of tensors are: "cuda" and "cuda:0" do not compare equal.
    return (torch.empty(0, device=device).device,) * config.num_hidden_layers


def read_llama_config(folder: Path) -> "LlamaConfig":
    """The configuration of a language model's folder.

    Raises:
        LlasaError: it is missing or damaged, or is not that of a Llama that can be loaded.
    """
    return _described(folder, llama_config)


def _described(folder: Path, read: Callable[[dict[str, Any]], Any]) -> Any:
    values = read_config(folder)
    if "quantization_config" in values:
        raise LlasaError(
            f"the weights in {folder} are quantised, which is not supported: pass the model that they were made from"
        )
    try:
        return read(values)
    except LlasaError as error:
        raise LlasaError(f"{folder / 'config.json'}: {error}: copy the model folder again") from error


def tensor_shapes(config: Any) -> dict[str, list[int]]:
    """The names and shapes in the state dict of transformers' `LlamaForCausalLM`."""
    wide, inner, size = config.hidden_size, config.intermediate_size, config.head_dim
    heads, kv_heads = config.num_attention_heads * size, config.num_key_value_heads * size
    shapes = {EMBEDDING: [config.vocab_size, wide], "model.norm.weight": [wide], HEAD: [config.vocab_size, wide]}
    for index in range(config.num_hidden_layers):
        layer = f"model.layers.{index}"
        shapes |= {f"{layer}.{norm}_layernorm.weight": [wide] for norm in ("input", "post_attention")}
        for part, biased, products in (
            (
                "self_attn",
                config.attention_bias,
                {"q": (heads, wide), "k": (kv_heads, wide), "v": (kv_heads, wide), "o": (wide, heads)},
            ),
            ("mlp", config.mlp_bias, {"gate": (inner, wide), "up": (inner, wide), "down": (wide, inner)}),
        ):
            for name, shape in products.items():
                shapes[f"{layer}.{part}.{name}_proj.weight"] = [*shape]
                if biased:
                    shapes[f"{layer}.{part}.{name}_proj.bias"] = [shape[0]]
    return shapes


def _find_tensors(folder: Path, config: Any) -> dict[str, tuple[Path, str]]:
    """For each tensor of the model, its file and its name there. Reads only the files' headers."""
    found: dict[str, tuple[Path, str]] = {}
    shapes: dict[str, list[int]] = {}
    for path in weight_files(folder):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - not a dict
                    found[key], shapes[key] = (path, key), file.get_slice(key).get_shape()
        except (OSError, safetensors.SafetensorError) as error:
            raise LlasaError(
                f"{path} cannot be read ({first_line(error)}), it is damaged or incomplete: download or copy it again"
            ) from error
    if config.tie_word_embeddings:
        # As in transformers: if only one of the two is there it stands for both, and if both are there they differ.
        for name, other in ((HEAD, EMBEDDING), (EMBEDDING, HEAD)):
            if name not in found and other in found:
                found[name], shapes[name] = found[other], shapes[other]
    wanted = tensor_shapes(config)
    if missing := sorted(wanted.keys() - found.keys()):
        raise LlasaError(f"the weights in {folder} lack {missing[0]} ({len(missing)} missing in all): copy it again")
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise LlasaError(
                f"the model in {folder} cannot be loaded: {name} has the shape {shapes[name]} where its config.json "
                f"asks for {shape}: copy both from one model"
            )
    return found

"""Merges LoRA folders, as peft writes them, into their base models."""

import gc
import shutil
import warnings
from pathlib import Path
from typing import Any

import safetensors
import torch

from llasa.errors import LlasaError, first_line, need_extra
from llasa.files import absolute, exists, is_folder, whole
from llasa.models.folder import (
    find_base,
    fingerprint,
    hush_transformers,
    is_lora,
    load_tokenizer,
    read_json,
    tokenizer_folder,
)
from llasa.models.weights import Weights, all_on, open_weights, place_layers

# Files that a model's folder may hold besides config, weights and tokenizer.
COMPANIONS = ("generation_config.json", "lexicon.txt.gz", "voices")
BASE = "base.json"  # in a LoRA made by this package: the fingerprint of its base


def open_model(folder: Path, device: str, dtype: torch.dtype, spread: bool = False) -> Weights:
    """Opens the language model of a folder without reading its weights yet. A LoRA is merged into its base first.

    Args:
        folder: the folder of a model or of a LoRA.
        device: device of all layers.
        dtype: precision to compute in.
        spread: spread the layers over all devices, as far as they have room, instead of using `device`.

    Raises:
        LlasaError: as `llasa.models.weights.open_weights`, or as `merge_lora`.
    """
    if not is_lora(folder):
        return open_weights(folder, device, dtype, spread)
    model = merge_lora(folder)
    config, weights = model.config, model.state_dict()
    devices = place_layers(config, dtype) if spread else all_on(config, device)
    del model
    gc.collect()
    # Popped, so that nothing else holds a tensor that the engine has read.
    return Weights(config, weights.pop, dtype, devices)


def merge_lora(folder: Path) -> Any:
    """Merges a LoRA into its base model: a `LlamaForCausalLM` on the CPU, in the base's precision.

    Raises:
        LlasaError: peft is missing; the base is missing or damaged; or the LoRA is damaged, is another kind of adapter,
            or belongs to another base.
    """
    need_extra("train", "peft")
    from peft import PeftConfig, PeftModel
    from transformers import LlamaForCausalLM

    hush_transformers()
    base = find_base(folder)
    if exists(folder / BASE) and read_json(folder / BASE).get("fingerprint") != fingerprint(base):
        raise LlasaError(f"the LoRA in {folder} was trained on other weights than {base} holds now: train it again")
    weights = folder / "adapter_model.safetensors"
    if not exists(weights):
        old = exists(folder / "adapter_model.bin")
        raise LlasaError(
            f"{folder} has no adapter_model.safetensors: "
            + ("save the old adapter_model.bin again with peft" if old else "copy the LoRA's folder again")
        )
    kind = read_json(folder / "adapter_config.json").get("peft_type")
    if kind != "LORA":
        raise LlasaError(f"{folder} holds an adapter of type {kind}: pass a LoRA, the only type that can be merged")
    open_weights(base, "cpu", torch.float32)  # only checks: transformers would fill missing weights at random
    try:
        config: Any = PeftConfig.from_pretrained(str(folder))
        model: Any = LlamaForCausalLM.from_pretrained(base, dtype="auto")
        if (rows := _vocabulary(weights)) and rows != model.config.vocab_size:
            model.resize_token_embeddings(rows, mean_resizing=False)
        if model.config.tie_word_embeddings and not (config.ensure_weight_tying or config.trainable_token_indices):
            # A LoRA trained with its own embedding or head changes only one of two tables that were tied.
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            merged: Any = PeftModel.from_pretrained(model, str(folder)).merge_and_unload(safe_merge=True)
    except Exception as error:  # torch, safetensors, transformers and peft raise various errors for a damaged file
        raise LlasaError(
            f"the LoRA in {folder} cannot be merged into {base} ({first_line(error)}): copy both again"
        ) from error
    # peft only warns about weights that it does not find, and leaves them at their neutral value.
    if any("missing adapter keys" in str(warning.message) for warning in caught):
        raise LlasaError(f"the LoRA in {folder} lacks weights that its adapter_config.json asks for: copy it again")
    head, embedding = merged.lm_head.weight, merged.model.embed_tokens.weight
    if merged.config.tie_word_embeddings:
        if torch.equal(head, embedding):
            merged.lm_head.weight = embedding
        else:
            merged.config.tie_word_embeddings = False
    return merged.eval()


def save_merged(folder: Path, output: Path) -> None:
    """Writes a LoRA and its base as one model folder, which appears whole or not at all.

    Raises:
        LlasaError: as `merge_lora`; or `folder` holds no LoRA, `output` exists, or it cannot be written.
    """
    if not is_lora(folder):
        raise LlasaError(f"{folder} holds no LoRA to merge (no adapter_config.json): pass a LoRA's folder")
    if exists(output) and (not is_folder(output) or any(output.iterdir())):
        raise LlasaError(f"{output} exists already: name a new folder")
    base = find_base(folder)
    tokenizer = load_tokenizer(tokenizer_folder(folder))
    model = merge_lora(folder)
    named = getattr(model.config, "codec", None)
    if named and is_folder(base / named):  # relative to the base's folder
        model.config.codec = str(absolute(base / named))
    with whole(output) as made:
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        for path in [place / name for place in (base, folder) for name in COMPANIONS]:  # the LoRA's files win
            if is_folder(path):
                shutil.copytree(path, made / path.name, dirs_exist_ok=True)
            elif exists(path):
                shutil.copy(path, made / path.name)


def _vocabulary(weights: Path) -> int | None:
    """Number of rows of the embedding that a LoRA brings, or None."""
    with safetensors.safe_open(weights, framework="numpy") as file:
        for key in file.keys():  # noqa: SIM118 - not a dict
            if key.endswith(("embed_tokens.weight", "lm_head.weight")):
                return int(file.get_slice(key).get_shape()[0])
    return None

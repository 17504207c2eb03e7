"""LoRA folders, as peft writes them: merged into the base model they are for.

Knows peft's files and what merging does to the embedding and the head; knows nothing of the engine.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any

import safetensors
import torch
from transformers import LlamaForCausalLM

from llasa.checkpoint import open_checkpoint
from llasa.errors import LlasaError, need_extra
from llasa.loading import (
    find_base,
    fingerprint,
    first_line,
    hush_transformers,
    is_lora,
    load_tokenizer,
    read_json,
    tokenizer_folder,
)  # fmt: skip
from llasa.writing import whole

# What a model's folder may hold besides config, weights and tokenizer.
COMPANIONS = ("generation_config.json", "lexicon.txt.gz", "voices")
BASE = "base.json"  # in a LoRA of our own: the fingerprint of the base that it was trained on


def merge_lora(folder: Path) -> Any:
    """The base model with a LoRA merged into its weights: a `LlamaForCausalLM` on the CPU, in the base's precision.

    Raises:
        LlasaError: peft is missing; the base is missing or damaged; or the LoRA is damaged, of another kind, or for
            another base.
    """
    need_extra("train", "peft")
    from peft import PeftConfig, PeftModel

    hush_transformers()
    base = find_base(folder)
    if (folder / BASE).exists() and read_json(folder / BASE).get("fingerprint") != fingerprint(base):
        raise LlasaError(f"the LoRA in {folder} was trained on other weights than lie in {base} now: train it again")
    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        old = (folder / "adapter_model.bin").exists()
        raise LlasaError(
            f"{folder} has no adapter_model.safetensors: "
            + ("save the old adapter_model.bin again with peft" if old else "copy the LoRA's folder again")
        )
    kind = read_json(folder / "adapter_config.json").get("peft_type")
    if kind != "LORA":
        raise LlasaError(f"{folder} is an adapter of type {kind}: only LoRAs can be merged")
    open_checkpoint(base, "cpu", torch.float32)  # which reads nothing yet; transformers would fill gaps at random
    try:
        config: Any = PeftConfig.from_pretrained(str(folder))
        model: Any = LlamaForCausalLM.from_pretrained(base, dtype="auto")
        if (rows := _vocabulary(weights)) and rows != model.config.vocab_size:
            model.resize_token_embeddings(rows, mean_resizing=False)
        if model.config.tie_word_embeddings and not (config.ensure_weight_tying or config.trainable_token_indices):
            # Trained with its own embedding or head, a LoRA changes one of the two that were the same.
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            merged: Any = PeftModel.from_pretrained(model, str(folder)).merge_and_unload(safe_merge=True)
    except Exception as error:  # whatever a damaged file makes torch, safetensors, transformers or peft raise
        raise LlasaError(
            f"the LoRA in {folder} cannot be merged into {base} ({first_line(error)}): copy both again"
        ) from error
    # peft leaves what it does not find at its neutral value, with a warning.
    if any("missing adapter keys" in str(warning.message) for warning in told):
        raise LlasaError(f"the LoRA in {folder} lacks weights that its adapter_config.json asks for: copy it again")
    head, embedding = merged.lm_head.weight, merged.model.embed_tokens.weight
    if merged.config.tie_word_embeddings:
        if torch.equal(head, embedding):
            merged.lm_head.weight = embedding
        else:
            merged.config.tie_word_embeddings = False
    return merged.eval()


def save_merged(folder: Path, output: Path) -> None:
    """Writes a LoRA and its base as one model folder, whole or not at all.

    Raises:
        LlasaError: as `merge_lora`; or `folder` holds none, there is something at `output`, or it cannot be written.
    """
    if not is_lora(folder):
        raise LlasaError(f"{folder} holds no LoRA (no adapter_config.json): there is nothing to merge")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise LlasaError(f"{output} exists already: name a new folder")
    base = find_base(folder)
    tokenizer = load_tokenizer(tokenizer_folder(folder))
    model = merge_lora(folder)
    named = getattr(model.config, "codec", None)
    if named and (base / named).is_dir():  # said from where the base lies
        model.config.codec = str((base / named).resolve())
    with whole(output) as made:
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        for path in [place / name for place in (base, folder) for name in COMPANIONS]:  # the LoRA's own win
            if path.is_dir():
                shutil.copytree(path, made / path.name, dirs_exist_ok=True)
            elif path.exists():
                shutil.copy(path, made / path.name)


def _vocabulary(weights: Path) -> int | None:
    """Rows of the embedding that a LoRA brings, if it brings one."""
    with safetensors.safe_open(weights, framework="numpy") as file:
        for key in file.keys():  # noqa: SIM118 - not a dict
            if key.endswith(("embed_tokens.weight", "lm_head.weight")):
                return int(file.get_slice(key).get_shape()[0])
    return None

"""Writes the folder of a model that was trained on from a base: a LoRA as peft has it, or a whole model."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from llasa.data.report import write_json
from llasa.files import exists, is_folder, whole
from llasa.models.folder import fingerprint, read_json
from llasa.models.hub import HUB_ID
from llasa.models.lora import BASE
from llasa.text.lexicon import save_lexicon
from llasa.train.checkpoint import saving
from llasa.train.voice.data import Base


def with_lora(model: Any, rank: int) -> Any:
    """Adds a LoRA to every matrix of the layers, in place, and freezes all other weights. Returns peft's model.

    It is scaled by alpha / rank = 1 (Schulman et al., "LoRA Without Regret", 2025).
    """
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, lora)


def write_weights(out: Path, model: Any, adapted: Any, base: Base) -> None:
    """Writes the weights that have learnt: the LoRA's if `adapted` has one, else all, in the base's precision."""
    if adapted is None:
        stored = base.config.get("dtype") or base.config.get("torch_dtype") or "float32"
        tied = model.config.tie_word_embeddings
        tensors = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight" or not tied}
        tensors = {name: tensor.to("cpu", getattr(torch, stored)) for name, tensor in tensors.items()}
    else:
        from peft import get_peft_model_state_dict

        tensors = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    with whole(out / ("adapter_model.safetensors" if adapted else "model.safetensors")) as path:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path, {"format": "pt"})


def describe(out: Path, adapted: Any, base: Base, voice: str | None = None) -> None:
    """Writes all of the folder but the weights.

    Args:
        voice: the new default voice, which the caller writes; None keeps the base's voices and its default.
    """
    if adapted is None:
        _describe_whole(out, base, voice)
    else:
        config = adapted.peft_config["default"]
        config.base_model_name_or_path, config.inference_mode = base.name, True
        write_json(out / BASE, {"fingerprint": fingerprint(base.folder)})
        with saving(out):
            config.save_pretrained(str(out))
    path = base.folder / "generation_config.json"
    settings = read_json(path) if exists(path) else {}
    with whole(out / "generation_config.json") as path:
        path.write_text(json.dumps(settings | ({"default_voice": voice} if voice else {}), indent=2) + "\n", "utf-8")


def _describe_whole(out: Path, base: Base, voice: str | None) -> None:
    config = dict(base.config)
    if voice:
        config.pop("default_voice", None)
    named = config.get("codec")
    if named and is_folder(base.folder / named):  # a path relative to the base's folder
        config["codec"] = str(base.codec)
    if HUB_ID.fullmatch(base.name):
        config["base_model"] = base.name  # `llasa export` derives the licence from it
    with saving(out):
        base.vocabulary.tokenizer.save_pretrained(out)
        if voice is None and is_folder(base.folder / "voices"):
            shutil.copytree(base.folder / "voices", out / "voices")
    if base.lexicon:
        save_lexicon(base.lexicon, out)
    write_json(out / "config.json", config)

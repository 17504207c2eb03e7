"""Weights that verifiers fetch: a folder, or a repository on the hub, and transformers models out of them.

Knows folders and the hub; knows nothing of sound.
"""

from pathlib import Path
from typing import Any

from llasa.errors import LlasaError
from llasa.loading import HUB_ID, fetch, first_line, hush_transformers, read_json


def find_weights(name: str, files: list[str]) -> Path:
    """The folder of a model: a folder, or a hub id, of which `files` (patterns) are downloaded on first use.

    Raises:
        LlasaError: there is nothing of that name, or the hub cannot be reached.
    """
    if Path(name).is_dir():
        return Path(name)
    if not HUB_ID.fullmatch(name):
        raise LlasaError(f"there is no folder {name}: pass a model's folder, or a hub id like openai/whisper-base")
    return fetch(name, files)


def load_pretrained(name: str, kind: str, model_class: str) -> tuple[Path, Any]:
    """A transformers model, ready to judge with on the CPU, and the folder it came from.

    Args:
        name: a folder or hub id. Weights in `pytorch_model.bin` are read, without code, where there are no safetensors.
        kind: the `model_type` that its config must have.
        model_class: a class of transformers that it holds the weights of.

    Raises:
        LlasaError: there is no such model, it is of another kind, or weights are missing.
    """
    import torch
    import transformers

    folder = find_weights(name, ["*.json", "*.txt", "*.safetensors"])
    if not any(folder.glob("*.safetensors")) and not Path(name).is_dir():
        folder = find_weights(name, ["pytorch_model*"])
    found = read_json(folder / "config.json").get("model_type")
    if found != kind:
        raise LlasaError(f"{name} holds a model of type {found!r}, where one of type {kind!r} is needed")
    hush_transformers()
    try:
        model, report = getattr(transformers, model_class).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # damaged files: transformers raises what its libraries raise
        raise LlasaError(f"the model {name} cannot be loaded ({first_line(error)}): fetch or copy it again") from error
    if missing := sorted(report["missing_keys"]):
        raise LlasaError(f"{name} lacks weights of {model_class} ({missing[0]}): it was trained for something else")
    return folder, model.eval()

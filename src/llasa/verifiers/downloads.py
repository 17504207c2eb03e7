"""Finds the weights of verifiers, in a folder or on the hub, and loads transformers models from them."""

from pathlib import Path
from typing import Any

from llasa.errors import LlasaError, first_line
from llasa.files import is_folder
from llasa.models.folder import hush_transformers, read_json
from llasa.models.hub import HUB_ID, fetch


def find_weights(name: str, files: list[str]) -> Path:
    """The folder of a model.

    Args:
        name: a folder, or a hub id that is downloaded on first use.
        files: patterns of the files to download.

    Raises:
        LlasaError: there is no folder or hub id of that name, or the hub cannot be reached.
    """
    if is_folder(name):
        return Path(name)
    if not HUB_ID.fullmatch(name):
        raise LlasaError(f"there is no folder {name}: pass a model's folder, or a hub id like openai/whisper-base")
    return fetch(name, files)


def load_pretrained(name: str, kind: str, model_class: str) -> tuple[Path, Any]:
    """Loads a transformers model on the CPU, for inference.

    Args:
        name: a folder or hub id. If there are no safetensors, weights in `pytorch_model.bin` are read, without code.
        kind: the `model_type` that its config must have.
        model_class: the class of transformers whose weights it must hold.

    Returns:
        The folder and the model.

    Raises:
        LlasaError: there is no such model, it is of another kind, or weights are missing.
    """
    import torch
    import transformers

    folder = find_weights(name, ["*.json", "*.txt", "*.safetensors"])
    if not any(folder.glob("*.safetensors")) and not is_folder(name):
        folder = find_weights(name, ["pytorch_model*"])
    found = read_json(folder / "config.json").get("model_type")
    if found != kind:
        raise LlasaError(f"{name} holds a model of type {found!r}: pass one of type {kind!r}")
    hush_transformers()
    try:
        model, report = getattr(transformers, model_class).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # damaged files: transformers raises what its libraries raise
        raise LlasaError(f"the model {name} cannot be loaded ({first_line(error)}): fetch or copy it again") from error
    if missing := sorted(report["missing_keys"]):
        raise LlasaError(f"{name} lacks weights of {model_class} ({missing[0]}): pass a model trained for this task")
    return folder, model.eval()

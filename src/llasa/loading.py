"""From a model's name to what lies in its folder: config, weights, tokenizer, codec; every defect one clear line.

Knows folders and the hub; knows nothing of speaking. A model is a folder in the transformers layout whose
`config.json` may name its codec under the key `codec`; `tiny` is the one inside this package.
"""

import hashlib
import json
import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from llasa.errors import LlasaError

EMBEDDED = {"tiny": Path(__file__).parent / "assets" / "tiny" / "lm"}
DEFAULT_CODEC = "HKUSTAudio/xcodec2-hf"
# Llama 3.2's config promises 131,072 positions; Llasa was trained on rows of 2,048 (arXiv 2502.04128, section 3).
TRAINED_CONTEXT = 2048
NOTICE = "note: the weights of {} are licensed CC BY-NC 4.0: no commercial use"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.txt.gz", "voices/*.safetensors"]
_told: set[str] = set()


def find_model(name: str | Path) -> Path:
    """The folder of a model or codec: an embedded name, a folder, or a hub id, which is downloaded on first use.

    Raises:
        LlasaError: there is nothing of that name, or the hub cannot be reached.
    """
    text = str(name)
    if text in EMBEDDED:
        return EMBEDDED[text]
    if Path(text).is_dir():
        return Path(text)
    if Path(text).is_file():
        raise LlasaError(f"{text} is a file: pass the model's folder")
    if _HUB_ID.fullmatch(text):
        return _from_hub(text)
    close = get_close_matches(text, EMBEDDED, cutoff=0.5)
    guess = f"did you mean {close[0]}? Or" if close else f"pass {', '.join(EMBEDDED)}, or"
    raise LlasaError(f"there is no model called {text}: {guess} a folder, or a hub id like HKUSTAudio/Llasa-1B")


def _from_hub(name: str) -> Path:
    import huggingface_hub

    if name.startswith("HKUSTAudio/") and name not in _told:
        _told.add(name)
        print(NOTICE.format(name), file=sys.stderr)
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub client raises its own errors, its HTTP library's and OSError
        raise LlasaError(
            f"{name} is not a folder here and could not be fetched from the hub ({first_line(error)}): "
            "check its name and the network, or pass a folder"
        ) from error


def first_line(error: BaseException) -> str:
    """An exception's message, cut to what fits into a one-line error."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder.

    Raises:
        LlasaError: the file is missing, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LlasaError(f"{path.parent} has no {path.name}: is it a model folder, and was it copied whole?") from error
    except (OSError, ValueError) as error:
        raise LlasaError(f"{path} cannot be read ({first_line(error)}): copy the model folder again") from error
    if not isinstance(value, dict):
        raise LlasaError(f"{path} is not a JSON object: copy the model folder again")
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a language model's folder.

    Raises:
        LlasaError: missing, damaged, or not a Llama's.
    """
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind != "llama":
        raise LlasaError(f"{folder} holds a model of type {kind!r}, not 'llama': pass a Llasa model's folder")
    return config


def context_length(config: dict[str, Any]) -> int:
    """Longest sequence, in tokens, that a model was trained for."""
    return min(int(config.get("max_position_embeddings", TRAINED_CONTEXT)), TRAINED_CONTEXT)


def find_codec(folder: Path) -> Path:
    """The codec's folder: `folder` itself if it holds a codec, else what its config's `codec` key names.

    Raises:
        LlasaError: it is missing or could not be fetched.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") == "xcodec2":
        return folder
    named = str(config.get("codec", DEFAULT_CODEC))
    if (folder / named).is_dir():  # an absolute path stands for itself here
        return (folder / named).resolve()
    if named.startswith((".", "/")):
        raise LlasaError(f"the codec of {folder} is missing: there is no folder {folder / named}")
    return find_model(named)


def load_lm(folder: Path, device: str, dtype: Any) -> Any:
    """The `LlamaForCausalLM` of a model folder, on a device, ready for inference.

    Raises:
        LlasaError: its files are missing or damaged, or do not fit one another.
    """
    from transformers import LlamaForCausalLM

    read_config(folder)
    check_weights(folder)
    hush_transformers()
    try:
        loaded: Any = LlamaForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except Exception as error:  # whatever a damaged file makes torch, safetensors or transformers raise
        raise LlasaError(f"the model in {folder} cannot be loaded ({first_line(error)}): copy it again") from error
    # transformers fills missing weights with random numbers and a warning; such a model only makes noise.
    model, report = loaded
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise LlasaError(f"the weights in {folder} lack {missing[0]} ({len(missing)} missing in all): copy it again")
    return model.to(device).eval()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder.

    Raises:
        LlasaError: it is missing or damaged.
    """
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").exists():
        raise LlasaError(f"{folder} has no tokenizer.json: copy the model folder again")
    hush_transformers()
    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # tokenizers raises bare Exception on a damaged file
        raise LlasaError(f"the tokenizer in {folder} cannot be loaded ({first_line(error)}): copy it again") from error


def check_weights(folder: Path) -> None:
    """Asserts that a folder has safetensors weights.

    Raises:
        LlasaError: it has not.
    """
    if not any((folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json")):
        raise LlasaError(f"{folder} has no model.safetensors: the weights are missing, copy the model folder again")


def check_device(device: str | None) -> str:
    """A device by its torch name, or the best there is.

    Raises:
        LlasaError: there is no such device here.
    """
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch built without CUDA
        raise LlasaError(f"cannot use the device {device} ({first_line(error)})") from error
    return device


def hush_transformers() -> None:
    """Keeps transformers' progress bars and warnings off the terminal: what matters is raised as LlasaError."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def fingerprint(folder: Path) -> str:
    """A codec's identity, 16 hex digits: codes made by one codec mean nothing to another.

    Covers the config's sizes and, of each weights file, its size and 32 blocks spread over it: training changes every
    weight, so a sample of gigabytes tells as much as all of them.
    """
    config = read_json(folder / "config.json")
    digest = hashlib.sha256()
    for key in ("quantization_levels", "downsampling_ratios", "hidden_size", "num_hidden_layers"):
        digest.update(f"{key}={config.get(key)};".encode())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            for block in range(32):
                file.seek(size * block // 32)
                digest.update(file.read(4096))
    return digest.hexdigest()[:16]

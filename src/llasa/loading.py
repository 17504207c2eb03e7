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
OFFICIAL = "HKUSTAudio/"
NOTICE = "note: the weights of {} are licensed CC BY-NC 4.0: no commercial use"

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NON_COMMERCIAL = re.compile(r"\A---\n(?:.*\n)*?license: *[\"']?cc-by-nc-4\.0\b", re.IGNORECASE)
_HUB_FILES = ["README.md", "*.json", "*.safetensors", "*.jinja", "*.txt", "*.txt.gz", "voices/*.safetensors"]
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
        if is_non_commercial(Path(text)):
            _tell_licence(text)
        return Path(text)
    if Path(text).is_file():
        raise LlasaError(f"{text} is a file: pass the model's folder")
    if HUB_ID.fullmatch(text):
        return _from_hub(text)
    close = get_close_matches(text, EMBEDDED, cutoff=0.5)
    guess = f"did you mean {close[0]}? Or" if close else f"pass {', '.join(EMBEDDED)}, or"
    raise LlasaError(f"there is no model called {text}: {guess} a folder, or a hub id like HKUSTAudio/Llasa-1B")


def _from_hub(name: str) -> Path:
    if name.startswith(OFFICIAL):
        _tell_licence(name)
    folder = fetch(name, _HUB_FILES)
    if is_non_commercial(folder):
        _tell_licence(name)
    if not any(folder.glob("*.safetensors")) and _has_old_weights(name):
        raise LlasaError(f"{name} has its weights in the old pytorch_model.bin only: {_convert(name, 'FOLDER')}")
    return folder


def fetch(name: str, files: list[str]) -> Path:
    """The local copy of a repository on the hub, downloaded on first use.

    Args:
        files: patterns of the files to fetch, as for a shell.

    Raises:
        LlasaError: there is no such repository, it is closed to this account, or the hub cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub import errors

    log_in = "log in with `hf auth login` or set HF_TOKEN"
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=files))
    except errors.GatedRepoError as error:
        raise LlasaError(
            f"{name} is gated: accept its terms on its page on the hub with your account, then {log_in}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise LlasaError(f"there is no {name} on the hub: check the spelling; if it is private, {log_in}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise LlasaError(
            f"{name} is not on this machine yet, and the hub cannot be reached: check the network (and that "
            "HF_HUB_OFFLINE is not set), or pass a folder"
        ) from error
    except Exception as error:  # the hub client raises its own errors, its HTTP library's and OSError
        raise LlasaError(
            f"{name} could not be fetched from the hub ({first_line(error)}): try again, it goes on where it stopped; "
            "or pass a folder"
        ) from error


def _has_old_weights(name: str) -> bool:
    import huggingface_hub

    try:
        return any(file.endswith(".bin") for file in huggingface_hub.list_repo_files(name))
    except Exception:  # no network now; that there are no weights is said when they are looked for
        return False


def _convert(name: str | Path, target: str | Path) -> str:
    """How to make safetensors of old weights; in words that fit into one line."""
    return (
        'convert them once with python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
        f"[K.from_pretrained('{name}').save_pretrained('{target}') for K in (M, T)]\""
    )


def is_non_commercial(folder: Path) -> bool:
    """Whether a folder's card says that its weights are, or its config that they were tuned from the official ones."""
    try:
        if _NON_COMMERCIAL.match((folder / "README.md").read_text(encoding="utf-8", errors="replace")):
            return True
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # whatever is wrong with the folder is said when it is loaded
        return False
    return isinstance(config, dict) and str(config.get("_name_or_path", "")).startswith(OFFICIAL)


def _tell_licence(name: str) -> None:
    """Prints the licence of non-commercial weights, once for each name."""
    if name not in _told:
        _told.add(name)
        print(NOTICE.format(name), file=sys.stderr)


def is_lora(folder: Path) -> bool:
    """Whether a folder holds a LoRA, which is nothing without its base."""
    return (folder / "adapter_config.json").exists()


def find_base(folder: Path) -> Path:
    """The folder of the model that a LoRA is for, or `folder` itself if it holds no LoRA.

    Raises:
        LlasaError: the LoRA names no base, or the base is missing or could not be fetched.
    """
    if not is_lora(folder):
        return folder
    named = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if not named:
        raise LlasaError(
            f"the LoRA in {folder} does not name its base: put base_model_name_or_path into its adapter_config.json"
        )
    if (folder / str(named)).is_dir():  # beside the LoRA; an absolute path stands for itself here
        return (folder / str(named)).resolve()
    try:
        return find_model(str(named))
    except LlasaError as error:
        raise LlasaError(
            f"the LoRA in {folder} needs its base {named} ({error}): "
            "name it by base_model_name_or_path in its adapter_config.json"
        ) from error


def tokenizer_folder(folder: Path) -> Path:
    """Where a model's tokenizer lies: a LoRA may bring its own."""
    return _holder(folder, "tokenizer.json")


def sampling_folder(folder: Path) -> Path:
    """Where a model's sampling settings and its default voice are said: a LoRA may bring its own."""
    return _holder(folder, "generation_config.json")


def _holder(folder: Path, name: str) -> Path:
    return folder if (folder / name).exists() else find_base(folder)


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
    """The codec's folder: `folder` itself if it holds a codec, else what the `codec` key of the model's config names.

    Raises:
        LlasaError: it is missing or could not be fetched.
    """
    folder = find_base(folder)
    config = read_json(folder / "config.json")
    if config.get("model_type") in ("xcodec2", "llasa_codec"):
        return folder
    named = str(config.get("codec", DEFAULT_CODEC))
    if (folder / named).is_dir():  # an absolute path stands for itself here
        return find_model((folder / named).resolve())  # which tells its licence
    if named.startswith((".", "/")):
        raise LlasaError(f"the codec of {folder} is missing: there is no folder {folder / named}")
    return find_model(named)


def codec_sizes(name: str | Path) -> tuple[list[int], float]:
    """A codec's quantisation levels and codes a second; of its code and its weights nothing is loaded.

    Raises:
        LlasaError: there is no such codec, or its config does not tell.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    folder = find_model(name)
    found = read_json(folder / "config.json")
    if found.get("model_type") in CONFIG_MAPPING:  # it knows what the file leaves out
        config = AutoConfig.from_pretrained(folder)
        found = {key: getattr(config, key, None) for key in ("quantization_levels", "sampling_rate", "hop_length")}
    if not (levels := found.get("quantization_levels")):
        raise LlasaError(f"{folder} is no codec: its config.json has no quantization_levels")
    # Those of X-codec2, where a codec of another kind does not say.
    return [int(level) for level in levels], found.get("sampling_rate", 16000) / found.get("hop_length", 320)


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
        LlasaError: it has not; where there are old ones the message says how to convert them.
    """
    if any((folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json")):
        return
    if any(folder.glob("pytorch_model*.bin*")):
        raise LlasaError(f"{folder} has its weights in the old pytorch_model.bin only: {_convert(folder, folder)}")
    raise LlasaError(
        f"{folder} has no model.safetensors: the weights are missing, download or copy the model folder again"
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a folder's weights; one file counts before shards, as in transformers.

    Raises:
        LlasaError: as `check_weights`; or the index of the shards is damaged, or one of them is missing.
    """
    check_weights(folder)
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return [single]
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise LlasaError(f"{index} names no files: copy the model folder again")
    paths = [folder / name for name in sorted(set(map(str, names.values())))]
    if gone := [path for path in paths if not path.exists()]:
        raise LlasaError(
            f"{folder} lacks {gone[0].name} ({len(gone)} of {len(paths)} files of its weights are missing): "
            "download or copy it again"
        )
    return paths


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

"""Finds a model's folder by name: embedded, on disk or on the hub. Prints the licence of non-commercial weights."""

import re
import sys
from difflib import get_close_matches
from pathlib import Path

from llasa.errors import LlasaError, first_line
from llasa.files import is_file, is_folder, parse_json, read_bytes

EMBEDDED = {"tiny": Path(__file__).parents[1] / "assets" / "tiny" / "lm"}
DEFAULT_CODEC = "HKUSTAudio/xcodec2-hf"
OFFICIAL = "HKUSTAudio/"
NOTICE = "note: the weights of {} are licensed CC BY-NC 4.0: no commercial use"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NON_COMMERCIAL = re.compile(r"\A---\n(?:.*\n)*?license: *[\"']?cc-by-nc-4\.0\b", re.IGNORECASE)
_HUB_FILES = ["README.md", "*.json", "*.safetensors", "*.jinja", "*.txt", "*.txt.gz", "voices/*.safetensors"]
_printed: set[str] = set()


def find_model(name: str | Path) -> Path:
    """The folder of a model or codec, by an embedded name, a folder, or a hub id, which is downloaded on first use.

    Raises:
        LlasaError: there is nothing of that name, or the hub cannot be reached.
    """
    text = str(name)
    if text in EMBEDDED:
        return EMBEDDED[text]
    if is_folder(text):
        if is_non_commercial(Path(text)):
            _print_licence(text)
        return Path(text)
    if is_file(text):
        raise LlasaError(f"{text} is a file: pass the model's folder")
    if HUB_ID.fullmatch(text):
        return _from_hub(text)
    close = get_close_matches(text, EMBEDDED, cutoff=0.5)
    guess = f"did you mean {close[0]}? Or" if close else f"pass {', '.join(EMBEDDED)}, or"
    raise LlasaError(f"there is no model called {text}: {guess} a folder, or a hub id like HKUSTAudio/Llasa-1B")


def _from_hub(name: str) -> Path:
    if name.startswith(OFFICIAL):
        _print_licence(name)
    folder = fetch(name, _HUB_FILES)
    if is_non_commercial(folder):
        _print_licence(name)
    if not any(folder.glob("*.safetensors")) and _has_old_weights(name):
        raise LlasaError(f"{name} has its weights only in the old pytorch_model.bin: {how_to_convert(name, 'FOLDER')}")
    return folder


def fetch(name: str, files: list[str]) -> Path:
    """The local copy of a repository on the hub, downloaded on first use.

    Args:
        files: shell patterns of the files to fetch.

    Raises:
        LlasaError: there is no such repository, this account has no access to it, or the hub cannot be reached.
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
    except Exception as error:  # the hub client raises its own errors, those of its HTTP library, and OSError
        raise LlasaError(
            f"{name} could not be fetched from the hub ({first_line(error)}): try again, which continues the download, "
            "or pass a folder"
        ) from error


def _has_old_weights(name: str) -> bool:
    import huggingface_hub

    try:
        return any(file.endswith(".bin") for file in huggingface_hub.list_repo_files(name))
    except Exception:  # no network now: the missing weights are reported when they are loaded
        return False


def how_to_convert(name: str | Path, target: str | Path) -> str:
    """The command that converts old weights to safetensors, as part of a one-line message."""
    return (
        'convert them once with python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
        f"[K.from_pretrained('{name}').save_pretrained('{target}') for K in (M, T)]\""
    )


def is_non_commercial(folder: Path) -> bool:
    """Whether a folder's weights may not be used commercially.

    This is so if its card says it, or if its config says that the weights were tuned from the official ones.
    """
    try:
        if _NON_COMMERCIAL.match(read_bytes(folder / "README.md").decode("utf-8", "replace")):
            return True
        config = parse_json(read_bytes(folder / "config.json"))
    except (LlasaError, ValueError):  # problems with the folder are reported when it is loaded
        return False
    return isinstance(config, dict) and str(config.get("_name_or_path", "")).startswith(OFFICIAL)


def _print_licence(name: str) -> None:
    """Prints the licence of non-commercial weights, once for each name."""
    if name not in _printed:
        _printed.add(name)
        print(NOTICE.format(name), file=sys.stderr)

"""Reads model folders: config, weight files, tokenizer, codec. Errors are reported in one line.

A model is a folder in the transformers layout whose `config.json` may name its codec under the key `codec`. `tiny` is
the one inside this package. `hub.py` finds folders by name; `weights.py` reads tensors.
"""

import hashlib
from pathlib import Path
from typing import Any

from llasa.errors import LlasaError, first_line, shown
from llasa.files import MB, absolute, exists, is_file, is_folder, parse_json, read_bytes
from llasa.models.hub import DEFAULT_CODEC, find_model, how_to_convert

# Llama 3.2's config promises 131,072 positions; Llasa was trained on rows of 2,048 (arXiv 2502.04128, section 3).
TRAINED_CONTEXT = 2048
TOKENIZER_LIMIT = 256 * MB


def is_lora(folder: Path) -> bool:
    """Whether a folder holds a LoRA, which needs a base model to work."""
    return exists(folder / "adapter_config.json")


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
            f"the LoRA in {folder} does not name its base: set base_model_name_or_path in its adapter_config.json"
        )
    if is_folder(folder / str(named)):  # relative to the LoRA's folder, or absolute
        return absolute(folder / str(named))
    try:
        return find_model(str(named))
    except LlasaError as error:
        raise LlasaError(
            f"the LoRA in {folder} needs its base {named} ({error}): "
            "correct base_model_name_or_path in its adapter_config.json"
        ) from error


def tokenizer_folder(folder: Path) -> Path:
    """The folder of a model's tokenizer: a LoRA may bring its own."""
    return _holder(folder, "tokenizer.json")


def sampling_folder(folder: Path) -> Path:
    """The folder of a model's sampling settings and default voice: a LoRA may bring its own."""
    return _holder(folder, "generation_config.json")


def _holder(folder: Path, name: str) -> Path:
    return folder if exists(folder / name) else find_base(folder)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder.

    Raises:
        LlasaError: the file is missing, or not a JSON object.
    """
    if not is_file(path):
        raise LlasaError(f"{path.parent} has no {path.name}: pass a model folder, or copy it again")
    try:
        value = parse_json(read_bytes(path, 64 * MB))
    except ValueError as error:
        raise LlasaError(f"{path} cannot be read ({first_line(error)}): copy the model folder again") from error
    if not isinstance(value, dict):
        raise LlasaError(f"{path} is not a JSON object: copy the model folder again")
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a language model's folder.

    Raises:
        LlasaError: it is missing, damaged, or not that of a Llama.
    """
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind != "llama":
        raise LlasaError(f"{folder} holds a model of type {kind!r}, not 'llama': pass a Llasa model's folder")
    return config


def context_length(config: dict[str, Any]) -> int:
    """The longest sequence, in tokens, that a model was trained for."""
    return min(int(config.get("max_position_embeddings", TRAINED_CONTEXT)), TRAINED_CONTEXT)


def pointing_head(folder: Path) -> tuple[int, int] | None:
    """The layer and number of a head that attends to the character being spoken; None if no head was taught to.

    Training writes all heads that it taught into `config.json`. The lowest tells as much as the others, and is computed
    soonest.

    Raises:
        LlasaError: the model has no such head.
    """
    config = read_config(folder)
    taught = config.get("pointing_heads") or []
    try:
        heads = [(int(layer), int(head)) for layer, head in taught]
        layers, width = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
        if not all(0 <= layer < layers and 0 <= head < width for layer, head in heads):
            raise ValueError
    except (ValueError, TypeError, KeyError) as error:
        raise LlasaError(
            f"{folder / 'config.json'}: `pointing_heads` is {taught!r:.40}: list [layer, head] of heads"
        ) from error
    return min(heads, default=None)


def find_codec(folder: Path) -> Path:
    """The codec's folder: `folder` itself if it holds a codec, else the one that the model's config names as `codec`.

    Raises:
        LlasaError: the codec is missing or could not be fetched.
    """
    folder = find_base(folder)
    config = read_json(folder / "config.json")
    if config.get("model_type") in ("xcodec2", "llasa_codec"):
        return folder
    named = config.get("codec", DEFAULT_CODEC)
    if not isinstance(named, str) or not named.strip("\0"):
        raise LlasaError(
            f"{folder / 'config.json'}: `codec` is {named!r:.40}: it must name a codec's folder, in quotes"
        )
    if is_folder(folder / named):  # relative to the model's folder, or absolute
        return find_model(absolute(folder / named))  # which prints its licence
    if named.startswith((".", "/")):
        raise LlasaError(
            f"the codec of {folder} is missing: there is no folder {folder / named}: correct `codec` in its config.json"
        )
    try:
        return find_model(named)
    except LlasaError as error:
        raise LlasaError(
            f"the codec of {folder} cannot be used ({error}): correct `codec` in its config.json"
        ) from error


def codec_sizes(name: str | Path) -> tuple[list[int], float]:
    """A codec's quantisation levels and codes a second, without loading the codec.

    Raises:
        LlasaError: there is no such codec, or its config lacks these.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    folder = find_model(name)
    found = read_json(folder / "config.json")
    kind = found.get("model_type")
    try:
        if isinstance(kind, str) and kind in CONFIG_MAPPING:  # transformers has defaults for what the file leaves out
            config = AutoConfig.from_pretrained(folder)
            found = {key: getattr(config, key, None) for key in ("quantization_levels", "sampling_rate", "hop_length")}
        if not (levels := found.get("quantization_levels")):
            raise LlasaError(f"{folder} holds no codec (config.json has no quantization_levels): pass a codec's folder")
        # For other kinds of codec, X-codec2's values are the defaults.
        rate = found.get("sampling_rate", 16000) / found.get("hop_length", 320)
        if rate > 0 and all(isinstance(level, int) and 2 <= level <= 1 << 16 for level in levels):
            return levels, rate
        raise ValueError("a level, the rate or the hop is impossible")
    except LlasaError:
        raise
    except Exception as error:  # transformers' validation raises various errors
        raise LlasaError(
            f"{folder / 'config.json'} does not describe a codec ({first_line(error)}): copy the folder again"
        ) from error


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, as transformers has it.

    Raises:
        LlasaError: it is missing or damaged.
    """
    from transformers import AutoTokenizer

    check_tokenizer(folder)
    hush_transformers()
    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # tokenizers raises bare Exception on a damaged file
        raise LlasaError(f"the tokenizer in {folder} cannot be loaded ({first_line(error)}): copy it again") from error


def check_tokenizer(folder: Path) -> None:
    """Checks that a folder has a tokenizer, and none of absurd size.

    Raises:
        LlasaError: it does not.
    """
    if not exists(folder / "tokenizer.json"):
        raise LlasaError(f"{folder} has no tokenizer.json: copy the model folder again")
    for path in folder.iterdir():
        if path.suffix in (".json", ".jinja", ".txt") and (not is_file(path) or path.stat().st_size > TOKENIZER_LIMIT):
            raise LlasaError(f"{shown(path)} is not a file, or too large for one of a tokenizer: copy it again")


def check_weights(folder: Path) -> None:
    """Checks that a folder has safetensors weights.

    Raises:
        LlasaError: it has none. If there are old weights, the message says how to convert them.
    """
    if any(exists(folder / name) for name in ("model.safetensors", "model.safetensors.index.json")):
        return
    if any(folder.glob("pytorch_model*.bin*")):
        raise LlasaError(
            f"{folder} has its weights only in the old pytorch_model.bin: {how_to_convert(folder, folder)}"
        )
    raise LlasaError(f"{folder} has no model.safetensors: download or copy the model folder again")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder's weights. As in transformers, a single file takes precedence over shards.

    Raises:
        LlasaError: as `check_weights`; or the index of the shards is damaged, or a shard is missing.
    """
    check_weights(folder)
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if exists(single):
        return [single]
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise LlasaError(f"{index} names no files: copy the model folder again")
    paths = [folder / name for name in sorted(set(map(str, names.values())))]
    if gone := [path for path in paths if not exists(path)]:
        raise LlasaError(
            f"{folder} lacks {gone[0].name} ({len(gone)} of {len(paths)} files of its weights are missing): "
            "download or copy it again"
        )
    return paths


def hush_transformers() -> None:
    """Keeps transformers' progress bars and warnings off the terminal; problems are raised as LlasaError."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def fingerprint(folder: Path) -> str:
    """A codec's identity as 16 hex digits. Codes made by one codec mean nothing to another.

    It covers the sizes in the config and, for each file of weights, the file's size and 32 blocks spread over it.
    Training changes every weight, so this sample tells two codecs apart as well as all of the bytes would.
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

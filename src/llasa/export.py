"""Writes a model, its codec and a card as one folder that plain transformers loads, and pushes it to the hub.

The language model lies at the top, so the folder or repository is the model's name everywhere; the codec lies in
`codec/`.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

from llasa.codec import convert, harmonic
from llasa.errors import LlasaError, first_line
from llasa.files import check_target, exists, is_folder, read_text, whole
from llasa.models.folder import is_lora, load_tokenizer, read_config, read_json, weight_files
from llasa.models.hub import DEFAULT_CODEC, EMBEDDED, OFFICIAL, find_model, is_non_commercial
from llasa.vocabulary import read_vocabulary

CARD = "README.md"
_TAGS = ["text-to-speech", "llasa"]
_FILES = (
    "model*.safetensors", "model.safetensors.index.json", "generation_config.json", "tokenizer*", "chat_template.jinja",
    "special_tokens_map.json", "added_tokens.json", "lexicon.txt.gz", "voices/*.safetensors",
)  # fmt: skip
_CODEC_FILES = ("config.json", "preprocessor_config.json", "model*.safetensors", "model.safetensors.index.json")


def export(
    name: str, out: Path, licence: str | None = None, languages: list[str] | None = None, base: str | None = None
) -> None:
    """Writes a model and its codec as one folder, which appears whole or not at all.

    A codec that the model names by a hub id is not copied; any other is, in the transformers layout. A codec with a
    harmonic head brings its code, for transformers' `trust_remote_code`.

    Args:
        name: an embedded model, a folder or a hub id.
        out: the new folder; it may exist if it is empty.
        licence, languages, base: entries of the card; by default those of the model's own card and config.

    Raises:
        LlasaError: the model is incomplete, or a LoRA; its licence is not known; or `out` is not empty or cannot be
            written.
    """
    if exists(out) and (not is_folder(out) or any(out.iterdir())):
        raise LlasaError(f"{out} exists already: name a new folder")
    folder = find_model(name)
    _refuse_lora(folder)
    config = read_config(folder)
    weight_files(folder)  # raises if any is missing
    size = read_vocabulary(load_tokenizer(folder)).size
    codec = _local_codec(folder, config)
    if codec is not None and size != (found := math.prod(convert.read(codec)[0].quantization_levels)):
        raise LlasaError(
            f"the model has {size} speech tokens but its codec {codec} has {found} codes: name its own codec under "
            "`codec` in its config.json"
        )
    card = _card(name, folder, config, licence, languages, base)
    config["codec"] = "codec" if codec is not None else config.get("codec", DEFAULT_CODEC)
    with whole(out) as made:
        _copy(folder, made, _FILES)
        (made / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (made / CARD).write_text(card, encoding="utf-8")
        if codec is not None:
            _copy_codec(codec, made / "codec")


def export_gguf(name: str, out: Path, kind: str = "f16", licence: str | None = None) -> None:
    """Writes a language model and its tokenizer as GGUF, for programs that are built on llama.cpp.

    Args:
        name: an embedded model, a folder or a hub id.
        out: the file, which appears whole or not at all.
        kind: of the matrices, one of `llasa.models.gguf.KINDS`.
        licence: an entry of the file; by default the official models' if it is one of them.

    Raises:
        LlasaError: the package gguf is missing; the model is incomplete, a LoRA, or one that llama.cpp cannot compute;
            there is no such kind; or `out` cannot be written.
    """
    from llasa.models.gguf import write_model

    check_target(out)
    folder = find_model(name)
    _refuse_lora(folder)
    write_model(folder, out, kind, licence or ("cc-by-nc-4.0" if is_non_commercial(folder) else None))


def _refuse_lora(folder: Path) -> None:
    if is_lora(folder):
        raise LlasaError(f"{folder} is a LoRA: merge it into its base first, with `llasa merge {folder} FOLDER`")


def check_hub(name: str) -> None:
    """Checks that the hub answers and that the user is logged in, before any work is done.

    Raises:
        LlasaError: the name cannot be that of a repository, there is no network, or nobody is logged in.
    """
    import huggingface_hub
    from huggingface_hub.utils import HFValidationError, LocalTokenNotFoundError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise LlasaError(f"{name} cannot name a repository on the hub: pass --push USER/NAME") from error
    if "/" not in name:
        raise LlasaError(f"the repository {name} names no user: pass --push USER/{name}")
    try:
        huggingface_hub.whoami()
    except LocalTokenNotFoundError as error:
        raise LlasaError(
            "nobody is logged in to the hub here: run `hf auth login`, or set HF_TOKEN, with a token that may write"
        ) from error
    except Exception as error:  # the hub client raises its own errors, its HTTP library's and OSError
        raise LlasaError(f"the hub cannot be reached ({first_line(error)}): check the network and the token") from error


def push(folder: Path, name: str) -> str:
    """Uploads a folder into a repository of the hub, which is private if it is new, and returns its address.

    Raises:
        LlasaError: it could not be uploaded; the same call continues.
    """
    import huggingface_hub

    try:
        address = huggingface_hub.create_repo(name, private=True, exist_ok=True)
        huggingface_hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload a model and its codec")
    except Exception as error:  # as above
        raise LlasaError(
            f"{folder} is written but could not be pushed to {name} ({first_line(error)}): check that the token may "
            f"write there, then run `hf upload {name} {folder}`"
        ) from error
    return str(address)


def _local_codec(folder: Path, config: dict[str, Any]) -> Path | None:
    """The folder of the model's codec; None if it is named by a hub id."""
    named = str(config.get("codec", DEFAULT_CODEC))
    if named.startswith((".", "/")) or is_folder(folder / named):
        return convert.find(folder)
    return convert.find(named) if is_folder(named) else None


def _copy(source: Path, target: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for file in sorted(source.glob(pattern)):
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)  # follows links, as the hub's cache has them


def _copy_codec(source: Path, target: Path) -> None:
    layout = convert.layout(source)
    if layout not in ("transformers", "harmonic"):
        convert.convert(source, target, "transformers")
        return
    _copy(source, target, _CODEC_FILES)
    if layout == "harmonic":
        from llasa.codec import harmonic_hub

        for code in map(Path, (harmonic.__file__, harmonic_hub.__file__)):
            shutil.copyfile(code, target / code.name)
        classes = {"AutoConfig": harmonic_hub.HarmonicConfig, "AutoModel": harmonic_hub.HarmonicModel}
        config = read_json(source / "config.json")
        config["auto_map"] = {auto: f"{code.stem}.{kind.__name__}" for auto, kind in classes.items()}
        (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _card(
    name: str, folder: Path, config: dict[str, Any], licence: str | None, languages: list[str] | None, base: str | None
) -> str:
    """The model card: the fields that the hub reads, then the text of the model's own card, or a general one."""
    from huggingface_hub import ModelCard, ModelCardData

    own: Any = ModelCardData()
    text = ""
    if exists(folder / CARD):
        try:
            card = ModelCard(read_text(folder / CARD), ignore_metadata_errors=True)
        except Exception as error:  # YAML's errors, UnicodeDecodeError
            raise LlasaError(
                f"{folder / CARD} is not a model card ({first_line(error)}): correct or remove it"
            ) from error
        own, text = card.data, card.text.strip()
    base = base or own.base_model or config.get("base_model") or (name if name.startswith(OFFICIAL) else None)
    official = str(base or "").startswith(OFFICIAL)
    licence = licence or own.license or ("cc-by-nc-4.0" if official else "apache-2.0" if name in EMBEDDED else None)
    if not licence:
        raise LlasaError(
            f"the licence of {name} is not known: pass --license, such as apache-2.0, or the licence of the model that "
            "it was tuned from"
        )
    if official and "-nc" not in licence:
        raise LlasaError(
            f"the weights of {base} are licensed CC BY-NC 4.0, so what was tuned from them cannot be {licence}: "
            "pass --license cc-by-nc-4.0"
        )
    spoken: Any = languages or own.language or (["en"] if name in EMBEDDED else None)
    data = ModelCardData(
        license=licence, language=spoken, base_model=base, library_name="transformers", pipeline_tag="text-to-speech",
        tags=list(dict.fromkeys([*(own.tags or []), *_TAGS])),
    )  # fmt: skip
    return f"---\n{data}\n---\n\n{text or _words(config, folder)}\n"


def _words(config: dict[str, Any], folder: Path) -> str:
    """A text for the card that is true of any model."""
    voices = sorted(path.stem for path in folder.glob("voices/*.safetensors"))
    lines = [
        "# A Llasa voice",
        f"Text to speech with a plain Llama of {config['num_hidden_layers']} layers x {config['hidden_size']}, which "
        "continues a text with the codes of a codec (arXiv 2502.04128).",
        *([f"Preset voices: {', '.join(voices)}."] if voices else []),
        "```sh\nllasa say --model THIS_REPOSITORY_OR_FOLDER \"Hello.\" -o hello.wav\n```",
        "The same files load in plain transformers: the language model with `AutoModelForCausalLM`, the tokenizer with "
        "`AutoTokenizer`, the codec, if `codec` in config.json names a folder, with `AutoModel`, `subfolder=\"codec\"` "
        "and, where code lies beside its weights, `trust_remote_code=True`.",
        *(["Words go in as phones, looked up in `lexicon.txt.gz`."] if exists(folder / "lexicon.txt.gz") else []),
        "Clone only voices whose owners agreed.",
    ]  # fmt: skip
    return "\n\n".join(lines)

"""Reads codecs in any of three layouts and writes them in two.

The layouts are that of transformers (as in `HKUSTAudio/xcodec2-hf`), the original one of X-codec2 (as in
`HKUSTAudio/xcodec2`), and the Lightning checkpoints of its training (`.ckpt`). How tensors change between layouts is in
`upstream.py`. Nothing here runs a model, or code that is pickled in a checkpoint.
"""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from llasa.codec.features import HOP, MELS, RATE
from llasa.codec.harmonic import HarmonicCodec, HarmonicCodecConfig
from llasa.errors import LlasaError, first_line
from llasa.files import exists, is_file, is_folder, whole
from llasa.models.folder import find_codec, read_json, weight_files
from llasa.models.hub import find_model

if TYPE_CHECKING:
    from transformers import Wav2Vec2BertConfig, Xcodec2Config

Tensors = dict[str, torch.Tensor]

SEMANTIC = "facebook/w2v-bert-2.0"  # upstream's frozen semantic encoder, which a training checkpoint may lack

MOST, MOST_LAYERS = 10**6, 1000  # of any size in a config: far beyond any codec, and small enough to compute with
_RECORD = "transformers_config"  # our key in an upstream config, for sizes that the tensors' shapes do not show
# Model types: the hub's config has the first, upstream's package the next two.
_TYPES = ("xcodec2", "xcodec", "bigcodec", HarmonicCodec.MODEL_TYPE)


def find(name: str | Path) -> Path:
    """Finds a codec by name: a folder in either layout, a training checkpoint, or the codec of a language model.

    Raises:
        LlasaError: there is no such codec, it cannot be fetched, or it is another kind of model.
    """
    path = Path(name)
    if path.suffix == ".ckpt" and not is_folder(path):
        if not is_file(path):
            raise LlasaError(f"there is no file {path}")
        return path
    folder = find_model(name)
    if read_json(folder / "config.json").get("model_type") == "llama":
        folder = find_codec(folder)
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in _TYPES:
        raise LlasaError(f"{folder} holds a model of type {kind!r}, not 'xcodec2': pass a codec's folder")
    return folder


def layout(source: Path) -> str:
    """The layout of what `find` returned: transformers, original, lightning, or harmonic.

    Raises:
        LlasaError: the weights are missing, damaged or not those of a codec.
    """
    if is_file(source):
        return "lightning"
    if read_json(source / "config.json").get("model_type") == HarmonicCodec.MODEL_TYPE:
        return "harmonic"
    names = {name for shard in weight_files(source) for name in _names(shard)}
    if any(name.startswith("acoustic_encoder.") for name in names):
        return "transformers"
    if any(name.startswith("CodecEnc.") for name in names):
        return "original"
    raise LlasaError(f"{source} holds no codec (its weights have no acoustic encoder): pass a codec's folder")


def read(source: Path, semantic: str | Path = SEMANTIC) -> "tuple[Xcodec2Config | HarmonicCodecConfig, Tensors]":
    """Reads a codec of any layout as transformers has it. Tensors that need no change are read only when used.

    Args:
        source: what `find` returned.
        semantic: folder or hub id of the semantic encoder, for a training checkpoint that lacks it.

    Returns:
        the config, and the tensors under transformers' names.

    Raises:
        LlasaError: files are missing or damaged, tensors are missing, or shapes do not match the config.
    """
    kind = layout(source)
    config: Any
    if kind == "harmonic":
        config, tensors = _harmonic_config(source), _load_all(source)
        expected = _shapes(source, partial(on_meta, config))
    else:
        config, tensors, expected = _read_xcodec2(source, kind, semantic)
    if missing := sorted(expected.keys() - tensors.keys()):
        raise LlasaError(f"{source} lacks {missing[0]} ({len(missing)} tensors missing in all): copy it again")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            found = f"{name} is {list(tensors[name].shape)}, not {list(shape)}"
            raise LlasaError(f"{source} cannot be loaded: {found}: take weights and config from one codec")
    return config, {name: tensors[name] for name in expected}


def _read_xcodec2(
    source: Path, kind: str, semantic: str | Path
) -> "tuple[Xcodec2Config, Tensors, dict[str, torch.Size]]":
    """The config, the tensors under transformers' names, and the shapes that they should have."""
    from transformers import Xcodec2Model
    from transformers.initialization import no_init_weights

    from llasa.codec import upstream

    def model() -> torch.nn.Module:
        with no_init_weights():  # so the memory is never touched, which is quicker than the meta device
            return Xcodec2Model(config)

    if kind == "lightning":
        tensors = upstream.respell(_load_lightning(source))
        if upstream.FIRST not in tensors:
            raise LlasaError(f"{source} is not a training checkpoint of X-codec2: it lacks {upstream.FIRST}")
        heard = None
        if not any(name.startswith("semantic_model.") for name in tensors):
            heard, extra = _load_semantic(semantic)
            tensors |= extra
        config = _infer_config(source, tensors, heard)
    else:
        content = read_json(source / "config.json")
        tensors = _load_all(source)
        if kind == "original":
            tensors = upstream.respell(tensors)
            content = content.get(_RECORD, {})
        config = _config(source, content) if content else _infer_config(source, tensors, None)
    expected = _shapes(source, model)
    if kind in ("original", "lightning"):
        try:
            tensors = upstream.from_upstream(tensors, config, expected)
        except RuntimeError as error:  # shapes that do not fit, such as rows that do not divide among the heads
            raise LlasaError(f"{source} holds another architecture than X-codec2 ({first_line(error)})") from error
    return config, tensors, expected


def convert(source: Path, out: Path, to: str, semantic: str | Path = SEMANTIC) -> int:
    """Writes a codec in another layout. The folder appears whole or not at all.

    Args:
        source: what `find` returned.
        out: the new folder; it may exist if it is empty.
        to: transformers or original.
        semantic: as for `read`.

    Returns:
        the number of tensors written.

    Raises:
        LlasaError: as `read`; or `out` is not empty or cannot be written; or the codec has that layout already, or
            cannot be expressed in upstream's.
    """
    out = out.absolute()
    if exists(out) and (not is_folder(out) or any(out.iterdir())):
        raise LlasaError(f"{out} exists already: pass a new folder, or remove it first")
    found = layout(source)
    if found == "harmonic":
        raise LlasaError(f"{source} is not an X-codec2: codecs of its kind have only one layout")
    if found == to:
        raise LlasaError(f"{source} has the {to} layout already: copy it, or name another layout with --to")
    from llasa.codec import upstream

    config: Any
    config, tensors = read(source, semantic)
    config.architectures = ["Xcodec2Model"]
    config.dtype = tensors["fc_encoder.weight"].dtype
    content = json.loads(config.to_json_string())
    if to == "original":
        files = {"config.json": upstream.upstream_config(config) | {_RECORD: content}}
        tensors = upstream.to_upstream(tensors, config)
    else:
        files = {"config.json": content, "preprocessor_config.json": _preprocessor()}
    _write(out, files, tensors)
    return len(tensors)


def _write(out: Path, files: dict[str, dict[str, Any]], tensors: Tensors) -> None:
    """Writes a model folder, whole or not at all."""
    with whole(out) as folder:
        folder.mkdir(parents=True)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _harmonic_config(source: Path) -> HarmonicCodecConfig:
    content = read_json(source / "config.json")
    try:
        _refuse_absurd(content)
        return HarmonicCodecConfig(
            **{f.name: content[f.name] for f in fields(HarmonicCodecConfig) if f.name in content}
        )
    except ValueError as error:
        raise LlasaError(f"the config of {source} is not a codec's ({first_line(error)})") from error


def _config(source: Path, content: dict[str, Any]) -> "Xcodec2Config":
    from transformers import Xcodec2Config

    try:
        _refuse_absurd(content)
        return Xcodec2Config.from_dict(dict(content))
    except Exception as error:  # transformers checks configs, and raises errors of several libraries
        raise LlasaError(f"the config of {source} is not a codec's ({first_line(error)})") from error


def _refuse_absurd(content: dict[str, Any]) -> None:
    """Raises ValueError for values that transformers lets pass, but that take all memory or fail only in use."""
    for key, value in content.items():
        most = MOST_LAYERS if key.endswith("layers") else MOST
        if isinstance(value, dict):
            _refuse_absurd(value)
        elif any(
            isinstance(size, int) and abs(size) > most for size in (value if isinstance(value, list) else [value])
        ):
            raise ValueError(f"`{key}` is {str(value)[:20]}: it must be at most {most:,}")
        elif key.endswith("dropout") and not (isinstance(value, int | float) and 0 <= value <= 1):
            raise ValueError(f"`{key}` is {str(value)[:20]}: it must be from 0 to 1")


def _infer_config(source: Path, tensors: Tensors, semantic: "Wav2Vec2BertConfig | None") -> "Xcodec2Config":
    from llasa.codec import upstream

    try:
        return upstream.infer_config(tensors, semantic)
    except KeyError as error:
        raise LlasaError(f"{source} lacks {error.args[0]}: copy it again") from error
    except Exception as error:  # as above
        raise LlasaError(f"{source} holds another architecture than X-codec2 ({first_line(error)})") from error


def _shapes(source: Path, make: Callable[[], torch.nn.Module]) -> dict[str, torch.Size]:
    """The names and shapes of a codec's tensors."""
    try:
        return {name: tensor.shape for name, tensor in make().state_dict().items()}
    except Exception as error:  # torch and transformers raise various errors for sizes that do not fit
        raise LlasaError(f"{source} holds another architecture than its config says ({first_line(error)})") from error


def on_meta(config: HarmonicCodecConfig) -> HarmonicCodec:
    """A codec without weights."""
    with torch.device("meta"):
        return HarmonicCodec(config)


def _preprocessor() -> dict[str, Any]:
    """The file that transformers' `AutoFeatureExtractor` reads."""
    return {
        "feature_extractor_type": "Xcodec2FeatureExtractor",
        "feature_size": MELS,
        "hop_length": HOP,
        "padding_side": "right",
        "padding_value": 1.0,
        "return_attention_mask": True,
        "sampling_rate": RATE,
    }


def _names(shard: Path) -> list[str]:
    try:
        with safe_open(shard, framework="pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise _damaged(shard, error) from error


def _load_all(source: Path) -> Tensors:
    return {name: tensor for shard in weight_files(source) for name, tensor in _load(shard).items()}


def _load(shard: Path) -> Tensors:
    try:
        return load_file(shard)
    except (OSError, SafetensorError) as error:
        raise _damaged(shard, error) from error


def _damaged(path: Path, error: Exception) -> LlasaError:
    reason = f"it is damaged or incomplete ({first_line(error)})"
    return LlasaError(f"{path} cannot be loaded: {reason}: fetch it again")


class _Unknown:
    """Stands in for every class that a checkpoint's settings name; its instances are plain dicts.

    Lightning stores the training's settings beside the weights, as objects of libraries that may not be installed.
    """

    def __new__(cls, *arguments: object) -> Any:
        return OrderedDict()  # the only type for which torch's loader sets both items and attributes


def _load_lightning(path: Path) -> Tensors:
    try:
        strangers = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_Unknown, name) for name in strangers]):
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except UnpicklingError as error:
        raise LlasaError(f"{path} holds objects that cannot be loaded safely: pass a .ckpt of X-codec2") from error
    except Exception as error:  # torch's zip reader and unpickler raise many kinds of errors
        raise _damaged(path, error) from error
    tensors = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(tensors, dict):
        raise LlasaError(f"{path} is not a training checkpoint of X-codec2: it has no state_dict")
    return {str(name): tensor for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}


def _load_semantic(name: str | Path) -> "tuple[Wav2Vec2BertConfig, Tensors]":
    """Config and tensors, under upstream's names, of the semantic encoder up to the layer that upstream uses."""
    try:
        folder = find_model(name)
    except LlasaError as error:
        raise LlasaError(f"the checkpoint holds no semantic encoder ({error}): pass one with --semantic") from error
    content = read_json(folder / "config.json")
    if (kind := content.get("model_type")) != "wav2vec2-bert":
        raise LlasaError(f"{folder} holds a model of type {kind!r}, not 'wav2vec2-bert': pass a copy of {SEMANTIC}")
    from transformers import Wav2Vec2BertConfig

    from llasa.codec.upstream import SEMANTIC_LAYERS

    config = Wav2Vec2BertConfig.from_dict(content | {"num_hidden_layers": SEMANTIC_LAYERS, "add_adapter": False})
    return config, {
        f"semantic_model.{key}": tensor for shard in weight_files(folder) for key, tensor in _load(shard).items()
    }

"""The codec's part of parity.py: compares codes, sound and checkpoints with the PyPI package `xcodec2`, upstream's
code.

The package's code runs as published, with three replacements. `torchaudio`, which it imports and does not use, is an
empty module. Of `torchtune`, whose import needs torchao, only the file with rotary embeddings is imported. Instead of
w2v-BERT 2.0 from the hub it gets a random model of that architecture, with 17 layers of which it uses 16, and a feature
extractor with that model's settings.
"""

import argparse
import importlib
import json
import sys
import types
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from parity_rows import Options, Row
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel, Xcodec2Config, Xcodec2Model

from llasa.codec import Codec, convert, load_codec, upstream
from llasa.codec.features import RATE, acoustic_input, mel_features
from llasa.errors import LlasaError
from llasa.train.codec.quantising import fit_scales

SECONDS = (1, 5, 20, 60)
ODD = 77  # samples missing from the last second of a clip, so that its last code is incomplete
PAIR = 5  # seconds of each of two clips in a batch
LOUD = 1e-4  # largest allowed difference of samples; full scale is 1
EDGE = 1e-5  # levels; rounding errors of the encoders move a latent by up to about this much
PACKAGE = "xcodec2 0.1.5"


def run(options: Options) -> tuple[list[Row], str]:
    """The lines about the codec, and remarks on how they were measured."""
    if options.reference is None:
        raise LlasaError("the codec is compared with the package xcodec2: pass --reference, see benchmarks/parity.py")
    if len(options.speech) < SECONDS[-1] * RATE:
        raise LlasaError(f"the recordings last less than {SECONDS[-1]} s together: pass more of them")
    clips = [options.speech[: seconds * RATE - ODD] for seconds in SECONDS]
    pair = [options.speech[start : start + PAIR * RATE - ODD] for start in (0, 20 * RATE)]
    ours, original, theirs, checkpoint = (
        options.scratch / name for name in ("ours", "original", "theirs", "last.ckpt")
    )
    config = make_codec(options.full, clips[1], ours)
    convert.convert(ours, original, "original")
    model = make_reference(options.reference, config)
    load_reference(model, original)
    save_reference(model, config, theirs, checkpoint)
    truth = reference_figures(model, clips, pair)
    del model
    rows = checkpoints(ours, original, theirs, checkpoint, options.scratch)
    rows += codes_and_sound(load_codec(theirs), clips, pair, truth)
    used = len(np.unique(truth["codes"][-1]))
    level = float(np.sqrt(np.mean(truth["sound"][-1] ** 2)))
    count = sum(tensor.numel() for tensor in load_file(ours / "model.safetensors").values()) / 1e6
    return rows, (
        f"{count:.0f} million weights; the {SECONDS[-1]} s hold {used} different codes among {len(truth['codes'][-1])} "
        f"and decode to sound of root mean square {level:.3f}. A code on an edge had a latent within {EDGE:g} of the "
        "middle between two levels, where the order in which numbers are summed decides. Beyond a minute "
        f"{PACKAGE} still takes everything in one pass, and `Codec` goes over to windows."
    )


@torch.no_grad()
def make_codec(full: bool, speech: np.ndarray, folder: Path) -> Xcodec2Config:
    """Writes a random codec in transformers' layout, scaled so that the signal survives and the codes vary."""
    torch.manual_seed(0)
    sizes = {} if full else {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
    semantic = Wav2Vec2BertConfig(num_hidden_layers=upstream.SEMANTIC_LAYERS, apply_spec_augment=False, **sizes)
    config = Xcodec2Config(semantic_model_config=semantic)
    if not full:
        config = Xcodec2Config(
            hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
            encoder_hidden_size=4, semantic_model_config=semantic, quantization_dim=128 + 64,
        )  # fmt: skip
    model = Xcodec2Model(config).eval()
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(0, (weight.numel() / weight.shape[0]) ** -0.5)
        else:
            weight.add_(torch.randn_like(weight), alpha=0.1)
        if name.endswith(("o_proj.weight", "fc2.weight")):
            weight.mul_(0.3)
    model.acoustic_decoder.head.linear.weight.mul_(0.3)
    samples = torch.from_numpy(speech)
    fit_scales(model, acoustic_input(samples), mel_features(samples)[0])
    model.save_pretrained(folder)
    return config


def import_package(folder: Path) -> types.ModuleType:
    """The module of the package's model, from the folder in which it was installed."""
    if not (folder / "xcodec2").is_dir():
        raise LlasaError(f"there is no package xcodec2 in {folder}: see benchmarks/parity.py")
    sys.path.insert(0, str(folder.absolute()))
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    for name in ("torchtune", "torchtune.modules"):
        parent: Any = types.ModuleType(name)
        parent.__path__ = [str(folder.absolute() / name.replace(".", "/"))]
        sys.modules[name] = parent
    rotary = importlib.import_module("torchtune.modules.position_embeddings").RotaryPositionalEmbeddings
    sys.modules["torchtune.modules"].RotaryPositionalEmbeddings = rotary  # type: ignore[attr-defined]
    modeling = importlib.import_module("xcodec2.modeling_xcodec2")
    del sys.modules["torchaudio"]
    return modeling


def make_reference(folder: Path, config: Xcodec2Config) -> Any:
    """The package's model at a config's sizes, its weights random."""
    modeling = import_package(folder)
    semantic: Any = config.semantic_model_config
    deeper = semantic.to_dict() | {"num_hidden_layers": upstream.SEMANTIC_LAYERS + 1, "output_hidden_states": True}
    hearing = Wav2Vec2BertModel(Wav2Vec2BertConfig.from_dict(deeper))
    extractor = SeamlessM4TFeatureExtractor(80, RATE, 80, padding_value=1, stride=2)
    encoder = partial(
        modeling.CodecEncoder_Transformer, ngf=config.encoder_hidden_size, hidden_dim=config.hidden_size,
        up_ratios=list(config.downsampling_ratios),
    )  # fmt: skip
    decoder = partial(
        modeling.CodecDecoderVocos, hidden_dim=config.hidden_size, depth=config.num_hidden_layers,
        heads=config.num_attention_heads, vq_dim=config.quantization_dim,
    )  # fmt: skip
    with (
        mock.patch.object(modeling.Wav2Vec2BertModel, "from_pretrained", return_value=hearing),
        mock.patch.object(modeling.AutoFeatureExtractor, "from_pretrained", return_value=extractor),
        mock.patch.object(modeling, "CodecEncoder_Transformer", encoder),
        mock.patch.object(modeling, "CodecDecoderVocos", decoder),
    ):
        model = modeling.XCodec2Model(modeling.BigCodecConfig(semantic_hidden_size=semantic.hidden_size))
    # Two layers whose sizes are constants in the package.
    model.fc_prior = nn.Linear(config.quantization_dim, config.quantization_dim)
    model.fc_post_a = nn.Linear(config.quantization_dim, config.hidden_size)
    return model.eval()


@torch.no_grad()
def load_reference(model: Any, folder: Path) -> None:
    """Loads a checkpoint of the original layout; then shares each channel's scale anew between its g and v."""
    tensors = load_file(folder / "model.safetensors")
    report = model.load_state_dict({name.replace(".act.beta", ".act.bias"): t for name, t in tensors.items()}, False)
    above = f"semantic_model.encoder.layers.{upstream.SEMANTIC_LAYERS}."
    if report.unexpected_keys or any(not name.startswith(above) for name in report.missing_keys):
        raise LlasaError(f"the converted checkpoint does not fit the package's model: {report}")
    for name, weight in model.named_parameters():
        if name.endswith("parametrizations.weight.original1"):
            weight.mul_(torch.rand(len(weight), 1, 1) * 1.5 + 0.5)


def save_reference(model: Any, config: Xcodec2Config, folder: Path, checkpoint: Path) -> None:
    """Writes the package's model in the layout of the hub and in that of its training, each with its own names."""
    tensors = {_hub_name(name): tensor for name, tensor in model.state_dict().items()}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(upstream.upstream_config(config)))
    others = {f"discriminator.{i}.weight_v": torch.randn(8, 8) for i in range(4)}
    torch.save({"state_dict": tensors | others, "hyper_parameters": {"cfg": options_of_training()}}, checkpoint)


def options_of_training() -> argparse.Namespace:
    """An object other than a tensor in a checkpoint, as Lightning writes them."""
    return argparse.Namespace(ngf=48, up_ratios=[2, 2, 4, 4, 5])


def _hub_name(name: str) -> str:
    name = name.replace(".parametrizations.weight.original0", ".weight_g").replace(".act.bias", ".act.beta")
    return name.replace(".parametrizations.weight.original1", ".weight_v")


@torch.inference_mode()
def reference_figures(model: Any, clips: list[np.ndarray], pair: list[np.ndarray]) -> dict[str, Any]:
    """The package's codes and sound: of each clip, and of two clips in a batch."""
    codes = [model.encode_code(torch.from_numpy(clip)[None]) for clip in clips]
    sound = [model.decode_code(each)[0, 0].numpy() for each in codes]
    waves = torch.stack([F.pad(torch.from_numpy(clip), (0, 320 - len(clip) % 320)) for clip in pair])
    features = [
        model.feature_extractor(F.pad(wave, (160, 160)), sampling_rate=RATE, return_tensors="pt") for wave in waves
    ]
    batch = model.encode_batch_feats(waves[:, None], torch.stack([each.input_features for each in features]))
    return {
        "codes": [each[0, 0].numpy() for each in codes],
        "sound": sound,
        "pair codes": batch[:, 0].numpy(),
        "pair sound": model.decode_code(batch)[:, 0].numpy(),
    }


def codes_and_sound(codec: Codec, clips: list[np.ndarray], pair: list[np.ndarray], truth: dict[str, Any]) -> list[Row]:
    """Codes of the same speech, and sound of the same codes."""
    rows = []
    for seconds, clip, codes, sound in zip(SECONDS, clips, truth["codes"], truth["sound"], strict=True):
        largest = float(np.abs(codec.decode(codes) - sound).max())
        what = f"{seconds} s: `Codec.encode`, `Codec.decode`"
        rows.append(compare(codec, what, [clip], [codec.encode(clip)], [codes], largest))
    with torch.inference_mode():
        heard = codec.model.decode(audio_codes=torch.from_numpy(truth["pair codes"])[:, None].long()).audio_values[:, 0]
    largest = float(np.abs(heard.numpy() - truth["pair sound"]).max())
    what = f"two of {PAIR} s: a batch against a batch"
    rows.append(compare(codec, what, pair, codec.encode_batch(pair), truth["pair codes"], largest))
    what = "all of these lengths: a padded batch against each alone"
    rows.append(compare(codec, what, clips, codec.encode_batch(clips), truth["codes"]))
    return rows


def compare(
    codec: Codec,
    what: str,
    clips: list[np.ndarray],
    mine: list[np.ndarray],
    theirs: Sequence[np.ndarray],
    difference: float | None = None,
) -> Row:
    """A line that compares codes of the same clips, and the sound of the same codes by its largest difference."""
    count = sum(len(codes) for codes in theirs)
    differ = [(clip, np.flatnonzero(a != b)) for clip, a, b in zip(clips, mine, theirs, strict=True)]
    ties = sum(int((edges(codec, clip)[places] < EDGE).sum()) for clip, places in differ if len(places))
    equal = 1 - sum(len(places) for _, places in differ) / count
    return Row(what, PACKAGE, difference, equal, None if difference is None else LOUD, True, count, ties)


def edges(codec: Codec, clip: np.ndarray) -> np.ndarray:
    """The distance in levels, (T,), of each latent of a clip to the edge between its code and the next one."""
    seen: list[torch.Tensor] = []
    quantizer = codec.model.quantizer
    hook = quantizer.project_in.register_forward_hook(lambda module, given, made: seen.append(made))
    codec.encode(clip)
    hook.remove()
    levels = quantizer.quantizer.bound(quantizer.quantizer.bound(seen[0]))[0]
    return (0.5 - (levels - levels.round()).abs()).amin(-1).numpy()


def checkpoints(ours: Path, original: Path, theirs: Path, checkpoint: Path, scratch: Path) -> list[Row]:
    """Checks by hashes that every way of converting a checkpoint gives the same tensors."""
    again, twice, fromtheirs, fromcheckpoint = (scratch / name for name in ("again", "twice", "theirs-t", "ckpt-t"))
    convert.convert(original, again, "transformers")
    convert.convert(again, twice, "original")
    convert.convert(theirs, fromtheirs, "transformers")
    convert.convert(checkpoint, fromcheckpoint, "transformers")
    start, moved = load_file(ours / "model.safetensors"), load_file(fromtheirs / "model.safetensors")
    change = max(float((start[name] - moved[name]).abs().max()) for name in start)
    return [
        Row("transformers to original and back", "itself", equal=same(ours, again), all_equal=True),
        Row("original to transformers and back", "itself", equal=same(original, twice), all_equal=True),
        Row(
            "its training's .ckpt to transformers", "its folder", equal=same(fromcheckpoint, fromtheirs), all_equal=True
        ),
        # Each channel's scale was split differently between g and v, so the products are rounded differently.
        Row("the package's checkpoint to transformers", "transformers", change, same(ours, fromtheirs), bound=1e-6),
    ]


def same(a: Path, b: Path) -> float:
    """The share of tensors with the same name, type, shape and bytes."""
    left, right = hashes(a), hashes(b)
    return sum(left[name] == right.get(name) for name in left) / max(len(left), len(right))


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each tensor of a folder, including its type and shape."""
    tensors = load_file(folder / "model.safetensors")
    return {
        name: sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + tensor.numpy().tobytes()).hexdigest()
        for name, tensor in tensors.items()
    }

"""Loads a codec of any kind and layout."""

from pathlib import Path
from typing import Any

import torch

from llasa.codec.codec import Codec
from llasa.codec.convert import find, on_meta, read
from llasa.codec.harmonic import HarmonicCodec, HarmonicCodecConfig
from llasa.codec.harmonic_codec import Harmonic
from llasa.errors import LlasaError, first_line
from llasa.models.folder import hush_transformers


def load_codec(name: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Codec:
    """Loads a codec.

    Args:
        name: a codec's folder or hub id, a checkpoint of X-codec2's training (see `convert` for the layouts), or the
            name of a language model, which stands for its codec.
        device, dtype: device and precision of the weights. In half precision, codes differ from those in float32
            wherever a latent lies near the edge of a level.

    Raises:
        LlasaError: the codec does not exist, cannot be fetched, is damaged or has another architecture, or there is no
            such device.
    """
    source = find(name)
    config, tensors = read(source)
    try:
        harmonic = isinstance(config, HarmonicCodecConfig)
        model: Any = (_harmonic if harmonic else _xcodec2)(config, tensors, dtype)
    except Exception as error:  # whatever a damaged file makes torch, safetensors or transformers raise
        raise LlasaError(f"the codec in {source} cannot be loaded ({first_line(error)}): copy it again") from error
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise LlasaError(f"cannot use the device {device} ({first_line(error)}): use cpu, cuda or mps") from error
    try:
        if isinstance(model, HarmonicCodec):
            return Harmonic(model)
        from llasa.codec.xcodec2 import Xcodec2

        return Xcodec2(model)
    except LlasaError as error:
        raise LlasaError(f"the codec in {source} cannot be used: {error}") from error


def _harmonic(config: Any, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> HarmonicCodec:
    model = on_meta(config)
    model.load_state_dict(tensors, assign=True)
    return model.to(dtype)


def _xcodec2(config: Any, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> Any:
    from transformers import Xcodec2Model

    hush_transformers()
    # Given the tensors: transformers reads one layout only, and fills missing tensors with random numbers.
    load: Any = Xcodec2Model.from_pretrained
    return load(None, config=config, state_dict=tensors, dtype=dtype)

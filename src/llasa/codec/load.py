"""Loads a codec of any kind and layout."""

from pathlib import Path
from typing import Any

import torch

from llasa.codec.codec import Codec
from llasa.codec.convert import find, read
from llasa.codec.harmonic import HarmonicCodecConfig
from llasa.codec.harmonic_codec import Harmonic
from llasa.codec.xcodec2 import Xcodec2
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
    kind = Harmonic if isinstance(config, HarmonicCodecConfig) else Xcodec2
    hush_transformers()
    try:
        # Not `from_pretrained`: transformers reads one layout only, and fills missing tensors with random numbers.
        load: Any = kind.architecture.from_pretrained
        model = load(None, config=config, state_dict=tensors, dtype=dtype)
    except Exception as error:  # whatever a damaged file makes torch, safetensors or transformers raise
        raise LlasaError(f"the codec in {source} cannot be loaded ({first_line(error)}): copy it again") from error
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise LlasaError(f"cannot use the device {device} ({first_line(error)}): use cpu, cuda or mps") from error
    try:
        return kind(model)
    except LlasaError as error:
        raise LlasaError(f"the codec in {source} cannot be used: {error}") from error

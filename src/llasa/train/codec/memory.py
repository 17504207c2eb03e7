"""Estimates the memory that training a codec needs, before anything is loaded.

The memory that autograd keeps for a second of audio was measured at upstream's size (see recipes/xcodec2), and is
scaled by width and depth.
"""

import torch

from llasa.codec.convert import find
from llasa.codec.features import HOP, RATE
from llasa.errors import LlasaError
from llasa.files import is_folder
from llasa.models.folder import read_json
from llasa.train.codec.settings import CodecSettings
from llasa.train.lm.memory import GB, on_this_machine, room

# GB at upstream's size: for weights and optimiser; then for each second of audio in a process' batch.
FIXED = 7.0
ENCODER, DECODER, DISCRIMINATORS, LISTENER = 1.1, 0.4, 0.15, 0.6


def require_memory(settings: CodecSettings, device: torch.device, processes: int) -> None:
    """Refuses a run that will not fit.

    Raises:
        LlasaError: the run needs more memory than there is; the message says what to change.
    """
    fixed, each = estimate(settings)
    free = room(device, on_this_machine(processes)) / GB
    frames, count = max(settings.data.shapes, key=lambda shape: shape[0] * shape[1])
    second = frames * HOP / RATE
    need = fixed + each * second * count / processes
    if need <= free:
        return
    crops = int((free - fixed) / (each * second)) * processes
    remedy = (
        f"make them `[{frames}, {crops}]` in `data.shapes`" if crops > 0 else "take a larger device or a smaller codec"
    )
    raise LlasaError(
        f"batches of `[{frames}, {count}]` need about {need:.3g} GB a process and {free:.3g} GB are free: {remedy}"
    )


def estimate(settings: CodecSettings) -> tuple[float, float]:
    """GB that a process needs for any batch, and for each second of audio in its batch."""
    sizes, discriminators = settings.sizes, settings.discriminators
    width, depth, channels, ratios = sizes.hidden, sizes.layers, sizes.encoder_hidden, sizes.ratios
    if settings.start:
        codec = find(settings.start)
        found = read_json(codec / "config.json") if is_folder(codec) else {}
        width, depth = found.get("hidden_size", 1024), found.get("num_hidden_layers", 12)
        channels = found.get("encoder_hidden_size", 48)
        ratios = found.get("downsampling_ratios", [2, 2, 4, 4, 5])
    depth_share = width * depth / (1024 * 12)
    each = DECODER * depth_share
    if not settings.frozen:
        each += ENCODER * _kept(channels, ratios) / _kept(48, [2, 2, 4, 4, 5])
    if discriminators.at < settings.schedule.steps:
        each += DISCRIMINATORS if discriminators.size == "full" else DISCRIMINATORS * discriminators.channels / 32
    if settings.perceptual.at < settings.schedule.steps:
        each += LISTENER
    return FIXED * depth_share * width / 1024, each


def _kept(channels: int, ratios: list[int]) -> float:
    """How many numbers the encoder's layers output for a sample; channels double whenever time is shortened."""
    total, rate = 0.0, 1.0
    for ratio in (*ratios, 1):
        total += channels * rate
        channels, rate = channels * 2, rate / ratio
    return total

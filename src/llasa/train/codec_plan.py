"""What training a codec will take of memory, told before anything is loaded.

An estimate: what autograd keeps for a second of audio was counted at upstream's size (see recipes/xcodec2), and grows
with widths and depths.
"""

import torch

from llasa.codec.convert import find
from llasa.codec.features import HOP, RATE
from llasa.errors import LlasaError
from llasa.loading import read_json
from llasa.train.codec import Settings
from llasa.train.plan import GB, on_this_machine, room

# GB at upstream's size: weights with their optimiser; then for each second of audio in a process' batch.
FIXED = 7.0
ENCODER, DECODER, JUDGES, LISTENER = 1.1, 0.4, 0.15, 0.6


def require_memory(settings: Settings, device: torch.device, processes: int) -> None:
    """Refuses a run that will not fit.

    Raises:
        LlasaError: it needs more memory than there is; the message says what to change.
    """
    fixed, each = estimate(settings)
    free = room(device, on_this_machine(processes)) / GB
    frames, count = max(settings.shapes, key=lambda shape: shape[0] * shape[1])
    second = frames * HOP / RATE
    need = fixed + each * second * count / processes
    if need <= free:
        return
    crops = int((free - fixed) / (each * second)) * processes
    remedy = f"make them `[{frames}, {crops}]` in `shapes`" if crops > 0 else "take a larger device or a smaller codec"
    raise LlasaError(
        f"batches of `[{frames}, {count}]` need about {need:.3g} GB a process and there are {free:.3g} GB: {remedy}"
    )


def estimate(settings: Settings) -> tuple[float, float]:
    """GB that a process needs whatever its batch is, and for each second of audio in that."""
    s = settings
    width, depth, channels, ratios = s.hidden, s.layers, s.encoder_hidden, s.ratios
    if s.start:
        codec = find(s.start)
        found = read_json(codec / "config.json") if codec.is_dir() else {}
        width, depth = found.get("hidden_size", 1024), found.get("num_hidden_layers", 12)
        channels = found.get("encoder_hidden_size", 48)
        ratios = found.get("downsampling_ratios", [2, 2, 4, 4, 5])
    depth_share = width * depth / (1024 * 12)
    each = DECODER * depth_share
    if not s.frozen:
        each += ENCODER * _kept(channels, ratios) / _kept(48, [2, 2, 4, 4, 5])
    if s.adversarial_at < s.steps:
        each += JUDGES if s.discriminators == "full" else JUDGES * s.channels / 32
    if s.perceptual_at < s.steps:
        each += LISTENER
    return FIXED * depth_share * width / 1024, each


def _kept(channels: int, ratios: list[int]) -> float:
    """What the encoder's layers put out for a sample: channels double where time is shortened."""
    total, rate = 0.0, 1.0
    for ratio in (*ratios, 1):
        total += channels * rate
        channels, rate = channels * 2, rate / ratio
    return total

"""Provides what a `HarmonicCodec` learns from: losses, and crops of a corpus that lies on the device.

Spectral losses are enough to teach it harmonics, because the pulses already have them. The pulses follow the true
fundamental in training and the predicted one in decoding. A further loss predicts the features of Whisper's encoder
from the codes, so that codes carry what is said and not only how it sounds. Discriminators are in `discriminators.py`.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers.audio_utils import mel_filter_bank

from llasa.codec.harmonic import MIDDLE, Block, HarmonicCodec

SCALES = {128: 20, 256: 40, 512: 80, 1024: 120, 2048: 160}  # FFT size: mel bands
LEVEL = 0.06  # RMS of every utterance
QUIET = 10**-2  # share of the loudest frame's level: quieter frames at the start and at the end are cut
LEAD, TAIL = 0.1, 0.2  # seconds of silence kept before and after
WHISPER_FFT, WHISPER_HOP = 400, 160


@dataclass
class Utterances:
    """A corpus on a device, all utterances in one tensor.

    Attributes:
        samples: (N,) int16, 16 kHz; every utterance fills whole hops.
        f0: (N / frame,) float16 in Hz, 0 where unvoiced.
        starts, lengths: (U,) int64 in samples.
        heard: (N / hop, width) float16, a teacher's features; None without a teacher.
        weights: (U,) sampling weights; utterances with 0 are held out.
    """

    samples: torch.Tensor
    f0: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    heard: torch.Tensor | None
    weights: torch.Tensor


def prepare(samples: np.ndarray, hop: int, f0: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, float]:
    """Brings one utterance to the corpus' loudness, cuts silence at its ends, and pads it to whole hops.

    Args:
        samples: (N,) float, 16 kHz.
        f0: Hz every 5 ms, 0 where unvoiced; None to find it by DIO and StoneMask (Morise 2009).

    Returns:
        (M,) int16, (M / 80,) float16 Hz, and how many seconds were cut at the start.
    """
    if f0 is None:
        import pyworld

        wave = samples.astype(np.float64)
        rough, times = pyworld.dio(wave, 16000, frame_period=5.0, f0_floor=60.0, f0_ceil=550.0)
        f0 = pyworld.stonemask(wave, rough, times, 16000)
    frames = samples[: len(samples) // 80 * 80].reshape(-1, 80)
    loud = np.sqrt(np.convolve((frames**2).mean(1), np.ones(4) / 4, "same"))
    spoken = np.flatnonzero(loud > QUIET * loud.max()) if len(loud) else np.zeros(0, int)
    first = max(0, spoken[0] - round(LEAD * 200)) if len(spoken) else 0
    last = min(len(loud), spoken[-1] + round(TAIL * 200)) if len(spoken) else len(loud)
    cut = samples[first * 80 : last * 80]
    gain = LEVEL / max(float(np.sqrt(np.mean(cut**2))) if len(cut) else 1.0, 1e-5)
    gain = min(gain, 0.99 / max(float(np.abs(cut).max(initial=0)), 1e-5))
    whole = -(-len(cut) // hop) * hop
    wave = np.zeros(whole, np.int16)
    wave[: len(cut)] = np.rint(cut * gain * 32767)
    track = np.zeros(whole // 80, np.float16)
    found = f0[first:last][: len(track)]
    track[: len(found)] = found
    return wave, track, first * 80 / 16000


def continuous(f0: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Interpolates the fundamental (B, frames) linearly across unvoiced frames, which have 0.

    Returns:
        The interpolated fundamental, and 1 for voiced frames, else 0; both (B, frames) float32.
    """
    count = f0.shape[1]
    place = torch.arange(count, device=f0.device).expand_as(f0)
    voiced = f0 > 0
    before = torch.where(voiced, place, -1).cummax(1).values
    after = count - 1 - torch.where(voiced.flip(1), place, -1).cummax(1).values.flip(1)
    left, right = before.clamp_min(0), after.clamp_max(count - 1)
    a = torch.where(before >= 0, f0.gather(1, left), f0.gather(1, right))
    b = torch.where(after < count, f0.gather(1, right), a)
    way = (place - left) / (right - left).clamp_min(1)
    line = torch.where((before >= 0) & (after < count), a + (b - a) * way, a)
    return torch.where(line > 0, line, MIDDLE), voiced.float()


def crops(data: Utterances, count: int, codes: int, hop: int, rng: torch.Generator) -> dict[str, torch.Tensor]:
    """Random crops: `wave` (count, codes * hop), `f0` (count, codes * hop / 80), `heard` (count, codes, width)."""
    device, size = data.samples.device, codes * hop
    picked = torch.multinomial(data.weights, count, replacement=True, generator=rng)
    room = (data.lengths[picked] - size).clamp_min(0) // hop
    offset = (torch.rand(count, generator=rng, device=device) * (room + 1)).long() * hop
    first = data.starts[picked] + offset
    inside = torch.arange(size, device=device) < (data.lengths[picked] - offset)[:, None]
    index = (first[:, None] + torch.arange(size, device=device)).clamp_max(len(data.samples) - 1)
    wave = data.samples[index].float().div_(32767) * inside
    f0 = data.f0[index[:, ::80] // 80].float() * inside[:, ::80]
    batch = {"wave": wave, "f0": f0}
    if data.heard is not None:
        batch["heard"] = data.heard[index[:, ::hop] // hop].float()
        batch["inside"] = inside[:, ::hop]
    return batch


def faster(batch: dict[str, torch.Tensor], codes: int, hop: int) -> dict[str, torch.Tensor]:
    """Crops played faster or slower, so that they last `codes` codes and sound like other speakers of another pitch.

    The teacher's features are dropped.
    """
    size = batch["wave"].shape[1]
    wanted = codes * hop
    wave = stretched(batch["wave"], wanted)
    place = (torch.arange(wanted // 80, device=wave.device) * size // wanted).clamp_max(batch["f0"].shape[1] - 1)
    f0 = batch["f0"][:, place] * (size / wanted)
    return {"wave": wave, "f0": torch.where((f0 > 55) & (f0 < 590), f0, 0)}


def stretched(wave: torch.Tensor, wanted: int) -> torch.Tensor:
    """Samples (B, N) played slower or faster, (B, wanted); the pitch changes with the speed."""
    spectrum = torch.fft.rfft(wave)
    kept = torch.zeros(len(wave), wanted // 2 + 1, dtype=spectrum.dtype, device=spectrum.device)
    width = min(kept.shape[1], spectrum.shape[1])
    kept[:, :width] = spectrum[:, :width]
    return torch.fft.irfft(kept, wanted) * (wanted / wave.shape[1])


def spectral_loss(made: torch.Tensor, real: torch.Tensor, rate: int = 16000) -> torch.Tensor:
    """Mean L1 distance of log-mel magnitudes in nepers over SCALES; for large FFT sizes also of single bins."""
    total = made.new_zeros(())
    for size, bands in SCALES.items():
        ours, theirs = _magnitudes(made, size), _magnitudes(real, size)
        filters = _mel(size, bands, rate, made.device)
        total = total + F.l1_loss((ours @ filters + 1e-4).log(), (theirs @ filters + 1e-4).log())
        if size >= 1024:
            total = total + 0.5 * F.l1_loss((ours + 1e-3).log(), (theirs + 1e-3).log())
    return total / len(SCALES)


def _magnitudes(wave: torch.Tensor, size: int) -> torch.Tensor:
    window = torch.hann_window(size, device=wave.device)
    found = torch.stft(wave, size, size // 4, window=window, return_complex=True)
    return (found.real.square() + found.imag.square() + 1e-10).sqrt().transpose(1, 2)


@cache
@torch.inference_mode(False)
def _mel(size: int, bands: int, rate: int, device: torch.device) -> torch.Tensor:
    bank = mel_filter_bank(size // 2 + 1, bands, 0.0, rate / 2, rate, norm=None, mel_scale="htk")
    return torch.from_numpy(bank).float().to(device)


@torch.no_grad()
def begin(codec: HarmonicCodec) -> None:
    """Initialises weights for stable training: blocks are identities, codes use all levels, and the sound is quiet."""
    for module in codec.modules():
        if isinstance(module, Block):
            module.down.weight.zero_()
            module.down.bias.zero_()
    encoded, decoded = codec.encoder.out, codec.decoder.out
    encoded.weight.normal_(0, 1.2 * encoded.in_features**-0.5)
    decoded.weight.normal_(0, 0.3 * decoded.in_features**-0.5)
    decoded.bias.zero_()
    bands = codec.config.bands
    decoded.bias[:bands], decoded.bias[bands : 2 * bands] = -4.0, -6.0


class Learner(nn.Module):
    """A codec in training. `forward` returns the sound, made with the true fundamental, and further losses.

    `tell` predicts the teacher's features, whose width is `heard`; checkpoints hold it under this name.
    """

    def __init__(self, codec: HarmonicCodec, heard: int = 0) -> None:
        super().__init__()
        self.codec = codec
        self.tell = nn.Linear(codec.config.decoder_hidden, heard) if heard else None

    def forward(
        self, batch: dict[str, torch.Tensor], frozen: bool = False, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """
        Args:
            frozen: whether the codes are constants and only the decoder learns.
            noise: (B, N) for the decoder; None to draw it.

        Returns:
            (B, N) samples; and the losses `pitch` in octaves, `voice` in nats, `heard` in variances, and `spread`, as
            scalars.
        """
        codec, wave = self.codec, batch["wave"]
        half = torch.autocast(wave.device.type, torch.bfloat16, enabled=wave.is_cuda)
        with half, torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            z = codec.encoder(codec.spectra(wave))
        latents = codec.quantizer(z.float())
        with half:
            shapes, features = codec.decoder(latents)
        shapes = shapes.float()
        f0, voiced = continuous(batch["f0"])
        pulses, _ = codec.pulses(f0, voiced, torch.rand(len(wave), device=wave.device, dtype=torch.float64))
        made = codec.shape(shapes, pulses, torch.randn_like(wave) if noise is None else noise)
        octaves = (f0 / MIDDLE).log2()
        terms = {
            "pitch": ((shapes[..., -2] - octaves).abs() * voiced).sum() / voiced.sum().clamp_min(1),
            "voice": F.binary_cross_entropy_with_logits(shapes[..., -1], voiced),
        }
        if not frozen:
            # If values drift to one side, levels stay unused; where the tanh is flat, there is no gradient.
            z = z.float()
            terms["spread"] = (z.mean((0, 1)).square() + (z.std((0, 1)) - 1.2).square()).mean()
        if self.tell is not None and "heard" in batch and not frozen:
            predicted = self.tell(features.float())
            error = (predicted - batch["heard"]).square().mean(-1) * batch["inside"]
            terms["heard"] = error.sum() / batch["inside"].sum().clamp_min(1)
        return made, terms


def load_whisper(folder: str | Path) -> Any:
    """The encoder of a Whisper model in transformers' layout, in evaluation mode."""
    from transformers import WhisperModel

    return WhisperModel.from_pretrained(folder, dtype=torch.float32).encoder.eval().requires_grad_(False)


@torch.no_grad()
def whisper_features(encoder: Any, wave: torch.Tensor) -> torch.Tensor:
    """Features of Whisper's encoder, (B, N / 320, width), for samples (B, N) of at most 30 s, N a multiple of 320.

    Shorter audio is not padded to 30 s.
    """
    device = wave.device
    bank = torch.from_numpy(
        mel_filter_bank(WHISPER_FFT // 2 + 1, 80, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    ).to(device, torch.float32)
    window = torch.hann_window(WHISPER_FFT, device=device)
    found = torch.stft(wave, WHISPER_FFT, WHISPER_HOP, window=window, return_complex=True)[..., :-1]
    mel = (found.abs().square().transpose(1, 2) @ bank).clamp_min(1e-10).log10().transpose(1, 2)
    mel = (mel.maximum(mel.amax((1, 2), keepdim=True) - 8) + 4) / 4
    hidden = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    for layer in encoder.layers:
        hidden = layer(hidden, None)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return encoder.layer_norm(hidden)


def cosine(progress: float, warmup: float, floor: float = 0.03) -> float:
    """The learning rate at a share of the run, as a share of its peak: a linear warm-up, then a cosine to the floor."""
    if progress < warmup:
        return max(1e-3, progress / warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))

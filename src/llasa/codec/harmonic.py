"""A codec whose decoder shapes pulses and noise: 16 kHz sound to codes, 50 a second, and back.

The encoder reads log-mel frames, four a code. Four times a code, the decoder predicts the fundamental, whether the
sound is voiced, and two envelopes. The envelopes shape a band-limited pulse train and white noise (DDSP, Engel et al.
2020; NSF, Wang et al. 2019). The phase of the pulses is the integral of the fundamental, so codes need not carry it.
Like those of X-codec2, codes come from finite scalar quantisation with one codebook (Mentzer et al. 2023; Llasa,
section 3.1).

Every frame of the decoder sees a fixed number of frames before and after it, so speech decoded in pieces equals speech
decoded at once. This file needs only torch, so that speaking starts fast, and is copied into the folder of an exported
codec together with `harmonic_hub.py`, which makes it a transformers model.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

FLOOR = 1e-4  # the least magnitude, about 80 dB below full scale
LOWEST, HIGHEST, MIDDLE = 50.0, 600.0, 150.0  # Hz: bounds of the fundamental, and where its logarithm is 0
TOP = 7900.0  # Hz: there are no harmonics above
NOISE = 1 << 18  # samples, 16 s, after which the noise repeats


@dataclass
class HarmonicCodecConfig:
    """Sizes of a `HarmonicCodec`.

    Attributes:
        hop_length: samples a code.
        fine: frames a code, of the mel frames and of the decoder's last part.
        quantization_levels: number of levels in each dimension of the quantiser.
        bands: number of mel bands, in the encoder's input and in both envelopes.
        encoder_hidden, encoder_layers: the encoder's width and depth.
        decoder_hidden, decoder_layers: the decoder's width and depth at the rate of the codes.
        fine_hidden, fine_layers: width and depth of the decoder's last part.
        lookahead: how many codes each decoder layer looks ahead.
        fft, window: lengths, in samples, of the filters that shape pulses and noise.
    """

    sampling_rate: int = 16000
    hop_length: int = 320
    fine: int = 4
    quantization_levels: list[int] = field(default_factory=lambda: [4] * 7)
    bands: int = 80
    encoder_hidden: int = 256
    encoder_layers: int = 6
    decoder_hidden: int = 352
    decoder_layers: int = 8
    fine_hidden: int = 176
    fine_layers: int = 4
    lookahead: int = 1
    fft: int = 512
    window: int = 320


# Constants are kept outside the modules: models are built on the meta device first, which would lose them.
@cache
@torch.inference_mode(False)
def _filters(size: int, bands: int, rate: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mel filters (O'Shaughnessy's scale), triangles with a peak of 1: (size // 2 + 1, bands).

    And the way back, from an envelope's bands to bins by linear interpolation: (bands, size // 2 + 1).
    """
    hertz = torch.linspace(0, rate / 2, size // 2 + 1)
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2) / 2595) - 1)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (hertz[:, None] - low) / (middle - low), (high - hertz[:, None]) / (high - middle)
    triangles = torch.minimum(rising, falling).clamp_min(0)
    place = torch.searchsorted(middle, hertz).clamp(1, bands - 1)
    share = ((hertz - middle[place - 1]) / (middle[place] - middle[place - 1])).clamp(0, 1)
    spread = torch.zeros(bands, len(hertz))
    spread[place, torch.arange(len(hertz))] = share
    spread[place - 1, torch.arange(len(hertz))] = 1 - share
    return triangles.to(device), spread.to(device)


@cache
@torch.inference_mode(False)
def _noise(device: torch.device) -> torch.Tensor:
    return torch.randn(NOISE, generator=torch.Generator().manual_seed(0)).to(device)


@cache
@torch.inference_mode(False)
def _levels(
    levels: tuple[int, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The constants of FSQ: the range of the values, their offset, and that offset before the tanh; (D,) each.

    And (3, D) int64: the digit of the value 0, the number of digits, and the weight of a digit in a code."""
    counts = torch.tensor(levels, dtype=torch.float32)
    reach = (counts - 1) / 2 * 1.001
    # An even number of levels has no middle one, so values are bounded half a level lower.
    offset = torch.where(counts % 2 == 0, 0.5, 0.0)
    weights = [math.prod(levels[:i]) for i in range(len(levels))]
    digits = torch.tensor([[level // 2 for level in levels], list(levels), weights])
    return reach.to(device), offset.to(device), torch.atanh(offset / reach).to(device), digits.to(device)


class Block(nn.Module):
    """A ConvNeXt block (Liu et al. 2022, as in Vocos): mixes each frame with its neighbours, then its channels.

    `forward` takes x (B, T, width) and returns the same shape.
    """

    def __init__(self, width: int, before: int, after: int) -> None:
        super().__init__()
        self.reach = (before, after)
        self.depthwise = nn.Conv1d(width, width, before + 1 + after, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.depthwise(F.pad(x.transpose(1, 2), self.reach)).transpose(1, 2)
        return x + self.down(F.gelu(self.up(self.norm(mixed))))


class Encoder(nn.Module):
    """Log spectra (B, fine * T, bands + LOW) to the quantiser's input (B, T, dimensions)."""

    LOW = 64  # bins of 15.6 Hz below 1 kHz, which show the fundamental

    def __init__(self, config: HarmonicCodecConfig) -> None:
        super().__init__()
        width, narrow = config.encoder_hidden, config.encoder_hidden // 2
        self.fine = config.fine
        self.embed = nn.Conv1d(config.bands + self.LOW, narrow, 5, padding=2)
        self.frames = nn.Sequential(Block(narrow, 3, 3), Block(narrow, 3, 3))
        self.join = nn.Linear(narrow * config.fine, width)
        self.layers = nn.Sequential(*(Block(width, 3, 3) for _ in range(config.encoder_layers)))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, len(config.quantization_levels))

    def forward(self, spectra: torch.Tensor) -> torch.Tensor:
        x = self.frames(self.embed(spectra.transpose(1, 2)).transpose(1, 2))
        x = self.join(x.reshape(len(x), x.shape[1] // self.fine, -1))
        return self.out(self.norm(self.layers(x)))


class Quantiser(nn.Module):
    """Finite scalar quantisation (Mentzer et al. 2023). The first dimension is the lowest digit of a code."""

    def __init__(self, levels: list[int]) -> None:
        super().__init__()
        self.levels = levels

    def bound(self, z: torch.Tensor) -> torch.Tensor:
        """Unbounded (..., D) to bounded values in units of levels; rounded, they are levels."""
        reach, offset, shift, _ = _levels(tuple(self.levels), z.device)
        return torch.tanh(z + shift) * reach - offset

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Unbounded (..., D) to latents from -1 to 1. Gradients pass through the rounding unchanged."""
        bounded = self.bound(z)
        return self.latents(bounded + (bounded.round() - bounded).detach())

    def latents(self, rounded: torch.Tensor) -> torch.Tensor:
        """Levels (whole numbers) to latents from -1 to 1."""
        reach, offset, _, _ = _levels(tuple(self.levels), rounded.device)
        return (rounded + offset) / reach

    def codes(self, z: torch.Tensor) -> torch.Tensor:
        """Unbounded (..., D) to codes (...) int64."""
        *_, digits = _levels(tuple(self.levels), z.device)
        return ((self.bound(z).round().long() + digits[0]) * digits[2]).sum(-1)

    def from_codes(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (...) to latents (..., D) float32."""
        *_, digits = _levels(tuple(self.levels), codes.device)
        found = torch.div(codes[..., None], digits[2], rounding_mode="floor") % digits[1]
        return self.latents((found - digits[0]).float())


class Decoder(nn.Module):
    """Latents (B, T, D) to the shapes of the sound (B, fine * T, 2 * bands + 2), and to features at the codes' rate.

    A frame of the shapes holds two envelopes, the fundamental and the voicing.
    """

    def __init__(self, config: HarmonicCodecConfig) -> None:
        super().__init__()
        width, narrow, ahead = config.decoder_hidden, config.fine_hidden, config.lookahead
        self.fine = config.fine
        self.embed = nn.Linear(len(config.quantization_levels), width)
        self.layers = nn.Sequential(*(Block(width, 6 - ahead, ahead) for _ in range(config.decoder_layers)))
        self.split = nn.Linear(width, config.fine * narrow)
        self.frames = nn.Sequential(*(Block(narrow, 4, 2) for _ in range(config.fine_layers)))
        self.norm = nn.LayerNorm(narrow)
        self.out = nn.Linear(narrow, 2 * config.bands + 2)

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.layers(self.embed(latents))
        x = self.split(features).unflatten(-1, (self.fine, -1)).flatten(1, 2)
        x = self.norm(self.frames(x))
        with torch.autocast(x.device.type, enabled=False):  # half precision would put the fundamental out of tune
            return self.out(x.to(self.out.weight.dtype)), features


class HarmonicParts:
    """What a codec does with its parts; `HarmonicCodec` and its transformers form share it."""

    config: Any
    encoder: Any
    quantizer: Any
    decoder: Any
    dtype: Any

    @property
    def frame(self) -> int:
        """Samples from one fine frame of the decoder to the next."""
        return self.config.hop_length // self.config.fine

    @property
    def reach(self) -> tuple[int, int]:
        """The most codes before, and after, a code that its sound depends on."""
        config = self.config
        before, after = (6 - config.lookahead) * config.decoder_layers, config.lookahead * config.decoder_layers
        fine = (4 * config.fine_layers, 2 * config.fine_layers)
        left = fine[0] + math.ceil((self.config.fft - self.config.window // 2) / self.frame)
        right = fine[1] + math.ceil(self.config.window / 2 / self.frame) + 1
        return before + math.ceil(left / self.config.fine), after + math.ceil(right / self.config.fine)

    def spectra(self, samples: torch.Tensor) -> torch.Tensor:
        """(B, N) samples, N a multiple of the hop, to the encoder's input (B, N / frame, bands + LOW)."""
        hop = self.frame
        with torch.autocast(samples.device.type, enabled=False):
            parts = []
            for size in (self.config.fft, 2 * self.config.fft):
                padded = F.pad(samples.float(), (size // 2, size // 2 - hop))
                window = torch.hann_window(size, device=samples.device)
                found = torch.stft(padded, size, hop, window=window, center=False, return_complex=True)
                parts.append(found.abs().transpose(1, 2))
            mels, low = (
                parts[0] @ _filters(self.config.fft, self.config.bands, self.config.sampling_rate, samples.device)[0],
                parts[1][..., 1 : Encoder.LOW + 1],
            )
            return torch.cat([((mels + FLOOR).log() + 4) / 3, ((low + 1e-2).log() + 1) / 3], -1)

    def encode(self, samples: torch.Tensor) -> torch.Tensor:
        """(B, N) samples at 16 kHz, N a multiple of the hop, to codes (B, N / hop) int64."""
        return self.quantizer.codes(self.encoder(self.spectra(samples)).float())

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (B, T) to samples (B, T * hop)."""
        shapes, _ = self.decoder(self.quantizer.from_codes(codes).to(self.dtype))
        return self.sound(shapes)[0]

    def sound(
        self, shapes: torch.Tensor, phase: torch.Tensor | float = 0.0, start: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Turns the decoder's prediction into sound.

        Args:
            shapes: (B, frames, 2 * bands + 2).
            phase: (B,) in cycles, the phase of the pulses at the first sample.
            start: position of the first sample in the whole; it decides which noise is used.

        Returns:
            samples (B, frames * frame), and the phase (B, frames) at the first sample of each frame.
        """
        f0, voiced = self.pitch(shapes)
        pulses, phases = self.pulses(f0, (voiced > 0).float(), phase)
        place = (start + torch.arange(pulses.shape[1], device=pulses.device)) % NOISE
        return self.shape(shapes, pulses, _noise(pulses.device)[place].expand_as(pulses)), phases

    def pitch(self, shapes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The fundamental in Hz, and the voicing as a logit; (B, frames) each."""
        octaves, voiced = shapes[..., -2].float(), shapes[..., -1].float()
        return (MIDDLE * torch.exp2(octaves)).clamp(LOWEST, HIGHEST), voiced

    def pulses(
        self, f0: torch.Tensor, voiced: torch.Tensor, phase: torch.Tensor | float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A pulse train of unit power with all harmonics below TOP, from the closed form of their sum.

        Args:
            f0, voiced: (B, frames); Hz, and 1 where the sound is voiced. Interpolated linearly between frames.
            phase: (B,) in cycles at the first sample.

        Returns:
            (B, frames * frame), and the phase (B, frames) at the first sample of each frame, float64.
        """
        f, loud = self._between(f0), self._between(voiced)
        steps = f.double() / self.config.sampling_rate
        turned = steps.cumsum(1) - steps + (phase[:, None] if isinstance(phase, torch.Tensor) else phase)
        angle = (2 * math.pi * (turned - turned.floor())).to(f.dtype)
        count = TOP / f
        whole = count.floor()
        # The sum of cos(k x) for k from 1 to K is a Dirichlet kernel. The next harmonic fades in by K's fraction.
        half = (angle / 2).sin()
        half = torch.where(half.abs() < 1e-4, torch.full_like(half, 1e-4), half)
        kernel = (((whole + 0.5) * angle).sin() / half - 1) / 2
        near = (angle < 2e-4) | (angle > 2 * math.pi - 2e-4)
        kernel = torch.where(near, whole, kernel) + (count - whole) * ((whole + 1) * angle).cos()
        return kernel * (2 / count).sqrt() * loud, turned[:, :: self.frame]

    def shape(self, shapes: torch.Tensor, pulses: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Filters pulses and noise, (B, frames * frame) each, and adds them up. Filters change from frame to frame.

        Each filter has the minimum phase for its envelope, as a vocal tract has.
        """
        bands, fft, window, hop = self.config.bands, self.config.fft, self.config.window, self.frame
        with torch.autocast(shapes.device.type, enabled=False):
            envelopes = (
                shapes[..., : 2 * bands].float().unflatten(-1, (2, bands)).clamp(-12, 6)
                @ _filters(fft, bands, self.config.sampling_rate, shapes.device)[1]
            )
            filters = minimum_phase(envelopes, fft)
            shape = torch.hann_window(window, device=shapes.device) * (2 * hop / window)
            sources = torch.stack([pulses, noise], -2)  # (B, 2, N)
            framed = F.pad(sources, (window // 2, window // 2 - hop)).unfold(-1, window, hop) * shape
            spectra = torch.fft.rfft(framed, fft).transpose(1, 2) * filters  # (B, frames, 2, bins)
            pieces = torch.fft.irfft(spectra.sum(2), fft)
            return overlap_add(pieces, hop)[:, window // 2 :][:, : pulses.shape[1]]

    def _between(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, frames) to (B, frames * frame), by linear interpolation."""
        following = torch.cat([frames[:, 1:], frames[:, -1:]], 1)
        way = torch.arange(self.frame, device=frames.device, dtype=frames.dtype) / self.frame
        return (frames[..., None] + (following - frames)[..., None] * way).flatten(1)


class HarmonicCodec(HarmonicParts, nn.Module):
    """The codec. Users call `encode` and `decode`; training calls their parts."""

    MODEL_TYPE = "llasa_codec"

    def __init__(self, config: HarmonicCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.quantizer, self.decoder = (
            Encoder(config),
            Quantiser(config.quantization_levels),
            Decoder(config),
        )

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.decoder.out.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        return self.decoder.out.weight.dtype

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config and weights in the layout of transformers."""
        from safetensors.torch import save_file

        about = {"architectures": ["HarmonicCodec"], "model_type": self.MODEL_TYPE, "dtype": str(self.dtype)[6:]}
        Path(folder).mkdir(parents=True, exist_ok=True)
        content = json.dumps(about | asdict(self.config), indent=2, sort_keys=True) + "\n"
        (Path(folder) / "config.json").write_text(content, encoding="utf-8")
        weights = {name: weight.contiguous() for name, weight in self.state_dict().items()}
        save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})


def minimum_phase(envelope: torch.Tensor, fft: int) -> torch.Tensor:
    """Log magnitudes (..., fft // 2 + 1) to the spectrum of the minimum-phase filter, through the cepstrum."""
    cepstrum = torch.fft.irfft(envelope, fft)
    once, twice = cepstrum[..., :1], 2 * cepstrum[..., 1 : fft // 2]
    folded = torch.cat([once, twice, cepstrum[..., fft // 2 : fft // 2 + 1]], -1)
    return torch.fft.rfft(folded, fft).exp()


def overlap_add(pieces: torch.Tensor, hop: int) -> torch.Tensor:
    """Adds up pieces (B, count, size) that begin `hop` apart: (B, at least (count - 1) * hop + size)."""
    batch, count, size = pieces.shape
    parts = -(-size // hop)
    rows = F.pad(pieces, (0, parts * hop - size)).view(batch, count, parts, hop)
    total = pieces.new_zeros(batch, count + parts - 1, hop)
    for part in range(parts):
        total[:, part : part + count] += rows[:, :, part]
    return total.flatten(1)

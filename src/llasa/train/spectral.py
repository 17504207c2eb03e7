"""Spectral losses and measures of waveforms, on any device."""

import itertools
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn
from transformers.audio_utils import mel_filter_bank

# (FFT size, mel bands): short windows see consonants, long ones see harmonics.
SCALES = ((256, 20), (512, 40), (1024, 80), (2048, 160))
FLOOR = 1e-5


@cache
def _window(size: int, device: torch.device) -> torch.Tensor:
    return torch.hann_window(size, device=device)


@cache
def _filters(size: int, bands: int, rate: int, device: torch.device) -> torch.Tensor:
    bank = mel_filter_bank(size // 2 + 1, bands, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(bank).float().to(device)


def magnitudes(wave: torch.Tensor, size: int) -> torch.Tensor:
    """(B, T) to STFT magnitudes (B, frames, size // 2 + 1), Hann window, hop a quarter of it."""
    spectrum = torch.stft(wave, size, size // 4, window=_window(size, wave.device), return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square() + FLOOR**2).sqrt().transpose(1, 2)


def log_mel(wave: torch.Tensor, size: int = 1024, bands: int = 80, rate: int = 16000) -> torch.Tensor:
    """(B, T) to log10 mel magnitudes (B, frames, bands)."""
    mels = magnitudes(wave, size) @ _filters(size, bands, rate, wave.device)
    return mels.clamp_min(FLOOR).log10()


def spectral_losses(
    made: torch.Tensor, real: torch.Tensor, rate: int = 16000, scales: Sequence[Sequence[int]] = SCALES
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean L1 distance of log-mels, and of log STFT magnitudes plus spectral convergence, over all scales. (B, T) each.

    The first is X-codec2's multi-resolution mel loss (Llasa, section 3.1; the scales are DAC's idea), the second the
    multi-resolution STFT loss of Parallel WaveGAN (Yamamoto et al. 2020), which also sees the highest bands sharply.
    """
    mel, stft = made.new_zeros(()), made.new_zeros(())
    for size, bands in scales:
        ours, theirs = magnitudes(made, size), magnitudes(real, size)
        filters = _filters(size, bands, rate, made.device)
        mel = mel + F.l1_loss((ours @ filters).clamp_min(FLOOR).log10(), (theirs @ filters).clamp_min(FLOOR).log10())
        stft = stft + F.l1_loss(ours.log10(), theirs.log10()) + (ours - theirs).norm() / theirs.norm().clamp_min(1e-3)
    return mel / len(scales), stft / len(scales)


class PeriodDiscriminator(nn.Module):
    """HiFi-GAN's discriminator (Kong et al. 2020): the waveform folded to (T / period, period), 2-D convolutions."""

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, channels, channels * 2, channels * 4, channels * 8]
        norm = nn.utils.parametrizations.weight_norm
        self.layers = nn.ModuleList(
            norm(nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0))) for a, b in itertools.pairwise(widths)
        )
        self.last = norm(nn.Conv2d(widths[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, wave: torch.Tensor) -> list[torch.Tensor]:
        """(B, T) to the feature maps of every layer, the last of them the judgement."""
        wave = F.pad(wave, (0, -wave.shape[-1] % self.period), "reflect")
        x = wave.view(len(wave), 1, -1, self.period)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return [*features, self.last(x)]


class SpectralDiscriminator(nn.Module):
    """One FFT size of X-codec2's spectral discriminator: 2-D convolutions over the log magnitude spectrogram."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.size = size
        norm = nn.utils.parametrizations.weight_norm
        self.layers = nn.ModuleList(
            norm(nn.Conv2d(1 if i == 0 else channels, channels, (3, 9), (1, 2 if i else 1), (1, 4))) for i in range(4)
        )
        self.last = norm(nn.Conv2d(channels, 1, 3, 1, 1))

    def forward(self, wave: torch.Tensor) -> list[torch.Tensor]:
        """(B, T) to the feature maps of every layer, the last of them the judgement."""
        x = magnitudes(wave, self.size).log10()[:, None]
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return [*features, self.last(x)]


class Discriminators(nn.Module):
    """Period discriminators and spectral discriminators side by side."""

    def __init__(self, periods: list[int], sizes: list[int], channels: int) -> None:
        super().__init__()
        self.all = nn.ModuleList(
            [*(PeriodDiscriminator(p, channels) for p in periods), *(SpectralDiscriminator(s, channels) for s in sizes)]
        )

    def forward(self, wave: torch.Tensor) -> list[list[torch.Tensor]]:
        return [judge(wave) for judge in self.all]


def discriminator_loss(real: list[list[torch.Tensor]], made: list[list[torch.Tensor]]) -> torch.Tensor:
    """Least-squares GAN: real to one, made to zero; mean over discriminators."""
    losses = [(1 - r[-1]).square().mean() + m[-1].square().mean() for r, m in zip(real, made, strict=True)]
    return torch.stack(losses).mean()


def generator_losses(
    real: list[list[torch.Tensor]], made: list[list[torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Adversarial loss, and the L1 distance of the discriminators' features (feature matching); means over them."""
    adversarial = torch.stack([(1 - m[-1]).square().mean() for m in made]).mean()
    matching = [
        F.l1_loss(a, b.detach()) for m, r in zip(made, real, strict=True) for a, b in zip(m[:-1], r, strict=False)
    ]
    return adversarial, torch.stack(matching).mean()

"""Defines discriminators and their losses: X-codec2's (Llasa, section 3.1), which need a GPU, and small ones."""

import itertools
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from llasa.train.codec.spectral import magnitudes

PERIOD_WIDTHS = (16, 64, 256, 512, 512)
SPECTRAL_WIDTHS = (1, 32, 64, 128, 256, 512)


class PeriodDiscriminator(nn.Module):
    """HiFi-GAN's discriminator (Kong et al. 2020): the waveform folded to (T / period, period), 2-D convolutions.

    Args:
        widths: channels after each layer. The first four shorten time to a third, later ones keep it.
        last: kernel size of the last convolution.
    """

    def __init__(self, period: int, widths: Sequence[int], last: int) -> None:
        super().__init__()
        self.period = period
        norm = nn.utils.parametrizations.weight_norm
        self.layers = nn.ModuleList(
            norm(nn.Conv2d(a, b, (5, 1), (3 if i < 4 else 1, 1), (2, 0)))
            for i, (a, b) in enumerate(itertools.pairwise((1, *widths)))
        )
        self.last = norm(nn.Conv2d(widths[-1], 1, (last, 1), 1, (1, 0)))

    def forward(self, wave: torch.Tensor) -> list[torch.Tensor]:
        """The feature maps of every layer for waveforms (B, T); the last one is the output."""
        wave = F.pad(wave, (0, -wave.shape[-1] % self.period), "reflect")
        return _through(wave.view(len(wave), 1, -1, self.period), self.layers, self.last, 0.1)


class SmallSpectralDiscriminator(nn.Module):
    """One FFT size of X-codec2's spectral discriminator, narrow: 2-D convolutions over log magnitudes."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.size = size
        norm = nn.utils.parametrizations.weight_norm
        self.layers = nn.ModuleList(
            norm(nn.Conv2d(1 if i == 0 else channels, channels, (3, 9), (1, 2 if i else 1), (1, 4))) for i in range(4)
        )
        self.last = norm(nn.Conv2d(channels, 1, 3, 1, 1))

    def forward(self, wave: torch.Tensor) -> list[torch.Tensor]:
        """The feature maps of every layer for waveforms (B, T); the last one is the output."""
        return _through(magnitudes(wave, self.size).log10()[:, None], self.layers, self.last, 0.1)


class FullSpectralDiscriminator(nn.Module):
    """One FFT size: 2-D convolutions over magnitudes, which halve both axes four times. The hop is half the window."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.window: torch.Tensor
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        norm = nn.utils.parametrizations.weight_norm
        sizes = [(5, 2)] * 4 + [(3, 1)]
        convolutions = [
            nn.Conv2d(a, b, kernel, stride, kernel // 2)
            for (a, b), (kernel, stride) in zip(itertools.pairwise(SPECTRAL_WIDTHS), sizes, strict=True)
        ]
        convolutions.append(nn.Conv2d(SPECTRAL_WIDTHS[-1], 1, 3, 1, 1))
        for convolution in convolutions:
            nn.init.normal_(convolution.weight, 0.0, 0.02)
        *inner, last = map(norm, convolutions)
        self.layers, self.last = nn.ModuleList(inner), last

    def forward(self, wave: torch.Tensor) -> list[torch.Tensor]:
        """The feature maps of every layer for waveforms (B, T); the last one is the output."""
        spectrum = torch.stft(wave, self.size, self.size // 2, window=self.window, return_complex=True)
        x = (spectrum.real.square() + spectrum.imag.square()).clamp(1e-7, 1e3).sqrt()[:, None]
        return _through(x, self.layers, self.last, 0.2)


def _through(x: torch.Tensor, layers: Iterable[nn.Module], last: nn.Module, slope: float) -> list[torch.Tensor]:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), slope)
        features.append(x)
    return [*features, last(x)]


class Discriminators(nn.Module):
    """Several discriminators of the same waveform."""

    def __init__(self, discriminators: Iterable[nn.Module]) -> None:
        super().__init__()
        self.all = nn.ModuleList(discriminators)

    def forward(self, wave: torch.Tensor) -> list[list[torch.Tensor]]:
        return [each(wave) for each in self.all]


def small_discriminators(periods: list[int], sizes: list[int], channels: int) -> Discriminators:
    """One discriminator for every period and FFT size, with `channels` channels in the first layer."""
    widths = [channels, 2 * channels, 4 * channels, 8 * channels]
    by_period = (PeriodDiscriminator(period, widths, 3) for period in periods)
    return Discriminators([*by_period, *(SmallSpectralDiscriminator(size, channels) for size in sizes)])


def full_discriminators(periods: list[int], sizes: list[int]) -> Discriminators:
    """One discriminator for every period and FFT size, as wide and deep as upstream's."""
    by_period = (PeriodDiscriminator(period, PERIOD_WIDTHS, 2) for period in periods)
    return Discriminators([*by_period, *map(FullSpectralDiscriminator, sizes)])


def discriminator_loss(real: list[list[torch.Tensor]], made: list[list[torch.Tensor]]) -> torch.Tensor:
    """The least-squares GAN loss: real audio to 1, generated audio to 0; mean over discriminators."""
    losses = [(1 - r[-1]).square().mean() + m[-1].square().mean() for r, m in zip(real, made, strict=True)]
    return torch.stack(losses).mean()


def generator_losses(
    real: list[list[torch.Tensor]], made: list[list[torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The adversarial loss and feature matching, the L1 distance of features; both are means over discriminators."""
    adversarial = torch.stack([(1 - m[-1]).square().mean() for m in made]).mean()
    matching = [
        F.l1_loss(a, b.detach()) for m, r in zip(made, real, strict=True) for a, b in zip(m[:-1], r, strict=False)
    ]
    return adversarial, torch.stack(matching).mean()

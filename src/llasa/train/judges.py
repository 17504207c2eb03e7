"""Discriminators of X-codec2's own size (Llasa, section 3.1), which want a GPU; small ones are in `spectral.py`."""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

PERIOD_WIDTHS = (1, 16, 64, 256, 512, 512)
SPECTRAL_WIDTHS = (1, 32, 64, 128, 256, 512)


class FullPeriodDiscriminator(nn.Module):
    """HiFi-GAN's discriminator (Kong et al. 2020) with five layers, the last of which keeps the length."""

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = period
        norm = nn.utils.parametrizations.weight_norm
        pairs = list(itertools.pairwise(PERIOD_WIDTHS))
        self.layers = nn.ModuleList(
            norm(nn.Conv2d(a, b, (5, 1), (3 if i < 4 else 1, 1), (2, 0))) for i, (a, b) in enumerate(pairs)
        )
        self.last = norm(nn.Conv2d(PERIOD_WIDTHS[-1], 1, (2, 1), 1, (1, 0)))

    def forward(self, wave: torch.Tensor) -> list[torch.Tensor]:
        """(B, T) to the feature maps of every layer, the last of them the judgement."""
        wave = F.pad(wave, (0, -wave.shape[-1] % self.period), "reflect")
        x = wave.view(len(wave), 1, -1, self.period)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return [*features, self.last(x)]


class FullSpectralDiscriminator(nn.Module):
    """One FFT size: 2-D convolutions over magnitudes that halve both axes four times. Hann window, hop half of it."""

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
        """(B, T) to the feature maps of every layer, the last of them the judgement."""
        spectrum = torch.stft(wave, self.size, self.size // 2, window=self.window, return_complex=True)
        x = (spectrum.real.square() + spectrum.imag.square()).clamp(1e-7, 1e3).sqrt()[:, None]
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return [*features, self.last(x)]


class FullDiscriminators(nn.Module):
    """Period discriminators and spectral discriminators side by side."""

    def __init__(self, periods: list[int], sizes: list[int]) -> None:
        super().__init__()
        self.all = nn.ModuleList(
            [*map(FullPeriodDiscriminator, periods), *(FullSpectralDiscriminator(size) for size in sizes)]
        )

    def forward(self, wave: torch.Tensor) -> list[list[torch.Tensor]]:
        return [judge(wave) for judge in self.all]

"""Computes spectral losses and measures of waveforms, on any device."""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from transformers.audio_utils import mel_filter_bank

from llasa.train.codec.settings import SCALES

FLOOR = 1e-5


@cache
def _window(size: int, device: torch.device) -> torch.Tensor:
    return torch.hann_window(size, device=device)


@cache
def _filters(size: int, bands: int, rate: int, device: torch.device) -> torch.Tensor:
    bank = mel_filter_bank(size // 2 + 1, bands, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(bank).float().to(device)


def magnitudes(wave: torch.Tensor, size: int) -> torch.Tensor:
    """STFT magnitudes (B, frames, size // 2 + 1) of waveforms (B, T); Hann window, hop of a quarter of it."""
    spectrum = torch.stft(wave, size, size // 4, window=_window(size, wave.device), return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square() + FLOOR**2).sqrt().transpose(1, 2)


def log_mel(wave: torch.Tensor, size: int = 1024, bands: int = 80, rate: int = 16000) -> torch.Tensor:
    """log10 mel magnitudes (B, frames, bands) of waveforms (B, T)."""
    mels = magnitudes(wave, size) @ _filters(size, bands, rate, wave.device)
    return mels.clamp_min(FLOOR).log10()


def spectral_losses(
    made: torch.Tensor, real: torch.Tensor, rate: int = 16000, scales: Sequence[Sequence[int]] = SCALES
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mel loss and the STFT loss of waveforms (B, T), averaged over all scales.

    The first is the L1 distance of log-mels, X-codec2's multi-resolution mel loss (Llasa, section 3.1; the scales are
    DAC's idea). The second is the L1 distance of log magnitudes plus spectral convergence, the multi-resolution STFT
    loss of Parallel WaveGAN (Yamamoto et al. 2020), which also resolves the highest bands.
    """
    mel, stft = made.new_zeros(()), made.new_zeros(())
    for size, bands in scales:
        ours, theirs = magnitudes(made, size), magnitudes(real, size)
        filters = _filters(size, bands, rate, made.device)
        mel = mel + F.l1_loss((ours @ filters).clamp_min(FLOOR).log10(), (theirs @ filters).clamp_min(FLOOR).log10())
        stft = stft + F.l1_loss(ours.log10(), theirs.log10()) + (ours - theirs).norm() / theirs.norm().clamp_min(1e-3)
    return mel / len(scales), stft / len(scales)

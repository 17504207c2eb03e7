"""The inputs of X-codec2's two encoders: the padded waveform and Kaldi-style log-mel features, batched in torch.

The features are those that w2v-BERT 2.0, the semantic encoder, was trained on: Kaldi's `compute-fbank-feats` with two
frames stacked. The padding is X-codec2's: `len` samples give `len // HOP + 1` feature frames, and as many codes.
transformers computes the same for one file at a time, in numpy (`SeamlessM4TFeatureExtractor`) or with torchaudio
(`Xcodec2FeatureExtractor`); a test compares the results.
"""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F

RATE = 16000
MELS = 80
FRAME, SHIFT, FFT = 400, 160, 512  # samples: 25 ms every 10 ms
STACK = 2
EMPHASIS = 0.97
BLOCK = 512  # frames at once on a CPU, few enough to stay in its cache
BLOCK_ELSEWHERE = 1 << 17  # frames at once on a GPU, where each call costs time
HOP = SHIFT * STACK  # samples a feature frame, and therefore samples a code
FLOOR = torch.finfo(torch.float32).eps  # Kaldi's least mel energy, on the 16-bit scale


def frame_count(samples: int) -> int:
    """Feature frames, and codes, of a number of samples: one more than full hops, as padding adds at least a sample."""
    return samples // HOP + 1


def acoustic_input(samples: torch.Tensor, lengths: Sequence[int] | torch.Tensor | None = None) -> torch.Tensor:
    """The acoustic encoder's input: the waveform, padded with at least one zero up to the next hop.

    Args:
        samples: (T,) or (B, T), 16 kHz, -1 to 1.
        lengths: (B,) valid samples of each row; samples beyond them count as zeros. All of T by default.

    Returns:
        (B, 1, (T // HOP + 1) * HOP).
    """
    batch = samples if samples.ndim == 2 else samples[None]
    width = batch.shape[1]
    if lengths is not None:
        valid = torch.arange(width, device=batch.device) < torch.as_tensor(lengths, device=batch.device)[:, None]
        batch = batch * valid
    return F.pad(batch, (0, frame_count(width) * HOP - width))[:, None]


def log_mel(padded: torch.Tensor) -> torch.Tensor:
    """Log-mel energies before normalisation and stacking.

    Args:
        padded: (B, T) float32 waveform, already extended by half a hop at both ends, which centres the frames.

    Returns:
        (B, (T - FRAME) // SHIFT + 1, MELS) natural logarithms of energies on the 16-bit integer scale.
    """
    block = BLOCK if padded.device.type == "cpu" else BLOCK_ELSEWHERE
    frames, step = (padded.shape[-1] - FRAME) // SHIFT + 1, max(1, block // padded.shape[0])
    blocks = [
        _log_mel(padded[..., first * SHIFT : (min(first + step, frames) - 1) * SHIFT + FRAME])
        for first in range(0, frames, step)
    ]
    return torch.cat(blocks, 1)


def _log_mel(padded: torch.Tensor) -> torch.Tensor:
    window, filters = _window_and_filters(padded.device)
    samples = padded.to(window.dtype) * 2.0**15
    # For each frame Kaldi subtracts the mean, then 0.97 of the previous sample; a frame's first sample has itself as
    # predecessor. For all frames at once, that is this difference less a share of the mean. Only a frame's first sample
    # differs, and there the window is zero.
    differences = F.pad(samples[..., 1:] - EMPHASIS * samples[..., :-1], (1, 0)).unfold(-1, FRAME, SHIFT)
    means = samples.unfold(-1, FRAME, SHIFT).mean(-1, keepdim=True)
    spectrum = torch.fft.rfft((differences - (1 - EMPHASIS) * means) * window, FFT)
    power = (spectrum.real.square() + spectrum.imag.square()).float()
    return (power @ filters).clamp_min(FLOOR).log()


def mel_features(
    samples: torch.Tensor, lengths: Sequence[int] | torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features for the semantic encoder: every row normalised by the mean and variance of its own valid frames.

    A row's features do not depend on the rows beside it. Differentiable.

    Args:
        samples: (T,) or (B, T), 16 kHz, -1 to 1, any device.
        lengths: (B,) valid samples of each row; all of T by default.

    Returns:
        features (B, T // HOP + 1, STACK * MELS) float32, zero in padding.
        mask (B, T // HOP + 1) bool, true where valid.
    """
    wave = acoustic_input(samples, lengths)[:, 0]
    mels = log_mel(F.pad(wave, (HOP // 2, HOP // 2)))
    if lengths is None:
        lengths = [samples.shape[-1]] * len(wave)
    frames = torch.as_tensor(lengths, device=wave.device) // HOP + 1
    mask = torch.arange(mels.shape[1] // STACK, device=wave.device) < frames[:, None]
    valid = mask.to(mels.dtype).repeat_interleave(STACK, 1)[..., None]
    count = (frames * STACK)[:, None, None]
    mean = (mels * valid).sum(1, keepdim=True) / count
    variance = ((mels - mean).square() * valid).sum(1, keepdim=True) / (count - 1)
    return stack(normalise(mels, mean, variance) * valid), mask


def normalise(mels: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Normalises (B, frames, MELS) by statistics that broadcast; w2v-BERT's constant keeps silence finite."""
    return (mels - mean) / (variance + 1e-7).sqrt()


def stack(mels: torch.Tensor) -> torch.Tensor:
    """(B, STACK * frames, MELS) to (B, frames, STACK * MELS): neighbouring frames side by side."""
    return mels.reshape(mels.shape[0], -1, STACK * MELS)


@cache
@torch.inference_mode(False)  # tensors cached by a first call under inference mode could not be used in training
def _window_and_filters(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The Povey window (FRAME,) and Kaldi's mel filters (FFT // 2 + 1, MELS), made once for each device."""
    # In single precision the rounding errors of a loud low tone mask what is 90 dB below it. MPS has no double.
    precision = torch.float32 if device.type == "mps" else torch.float64
    from transformers.audio_utils import mel_filter_bank

    window = torch.hann_window(FRAME, periodic=False, dtype=torch.float64) ** 0.85
    filters = mel_filter_bank(
        FFT // 2 + 1, MELS, 20, RATE // 2, RATE, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    return window.to(precision).to(device), torch.from_numpy(filters).float().to(device)

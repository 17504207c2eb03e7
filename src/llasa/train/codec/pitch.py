"""Teaches a codec pitch: tracks the voice's phase in every frame, and has losses that put it into the codes.

A decoder that treats all frames alike can only repeat itself every frame, unless the codes say where in its cycle the
voice is. With spectral losses alone, a small codec learns a buzz at the frame rate. So the quantiser's last three
dimensions are taught. The last two have three levels each: the cosine and the sine of the voice's phase at the frame's
centre, which makes eight directions, and zero for unvoiced frames. The phase of two frames gives the pitch up to
multiples of the frame rate. The dimension before them decides between these: it has four levels of half an octave each,
and is free in unvoiced frames.

An independent tracker, in `measure/metrics.py`, measures how much pitch a codec keeps.
"""

import math

import torch
import torch.nn.functional as F

from llasa.codec.features import HOP, RATE

SIZE = 1024  # samples around a frame's centre in which its pitch is tracked
SHORTEST, LONGEST = 40, 267  # periods in samples: 400 to 60 Hz
FOLDS = 64  # parts of a period
MIDDLE = 140.0  # Hz, between the two middle levels
LEVELS = [4, 3, 3]  # of the quantiser's last dimensions: height, cosine and sine
# FSQ bounds twice, so values end at 0.76, and 0.5 separates two levels. The cosine of 67.5 degrees should be at 0.5, so
# that each of the eight directions has an eighth of the circle.
REACH, LIMIT = 0.5 / math.cos(math.radians(67.5)), 0.74


def track(samples: torch.Tensor) -> torch.Tensor:
    """Tracks the pitch of a recording, (N,) at 16 kHz, by autocorrelation (Boersma, IFA Proceedings 17, 1993).

    Returns:
        (N // HOP, 4), for each frame: cosine and sine of the voice's phase at the frame's centre, where phase 0 is at
        the pulse; the frequency in octaves above `MIDDLE`; and 1. All four are 0 where unvoiced.
    """
    count, edge = len(samples) // HOP, (SIZE - HOP) // 2
    result = torch.zeros(count, 4)
    if not count:
        return result
    frames = F.pad(samples[: count * HOP], (edge, edge)).unfold(0, SIZE, HOP)
    frames = frames - frames.mean(1, keepdim=True)
    window = torch.hann_window(SIZE, periodic=False)
    # The normalised autocorrelation, corrected for the window's taper: (count, LONGEST + 1), at most 1.
    alike, taper = (
        torch.fft.irfft(torch.fft.rfft(part, 2 * SIZE).abs().square())[..., : LONGEST + 1]
        for part in (frames * window, window)
    )
    alike = alike / taper * taper[0] / alike[:, :1].clamp_min(1e-9)
    inner, before, after = alike[:, SHORTEST:LONGEST], alike[:, SHORTEST - 1 : LONGEST - 1], alike[:, SHORTEST + 1 :]
    octaves = torch.arange(SHORTEST, LONGEST).log2()
    power = frames.square().mean(1)
    loud = power > power.max() * 10**-3.3
    # Twice the period fits as well as the period, so prefer the shorter one.
    score = (inner - 0.03 * octaves).masked_fill((inner < before) | (inner < after), -torch.inf)
    best, place = score.max(1)
    sure = loud & best.isfinite() & (inner.gather(1, place[:, None])[:, 0] > 0.75)
    if not sure.any():
        return result
    # In less certain frames, prefer pitches near the speaker's usual one.
    score = score - 0.25 * (octaves - octaves[place[sure]].median()).abs()
    best, place = score.max(1)
    left, height, right = (part.gather(1, place[:, None])[:, 0] for part in (before, inner, after))
    voiced = loud & best.isfinite() & (height > 0.5)
    bend = (left - 2 * height + right).clamp_max(-1e-6)  # a parabola finds the peak between samples
    frequency = RATE / (place + SHORTEST + (0.5 * (left - right) / bend).clamp(-0.5, 0.5))
    angle = _pulses(frames, frequency, voiced)
    found = torch.stack([angle.cos(), angle.sin(), (frequency / MIDDLE).log2(), torch.ones(count)], 1)
    result[voiced] = found[voiced]
    return result


def _pulses(frames: torch.Tensor, frequency: torch.Tensor, voiced: torch.Tensor) -> torch.Tensor:
    """The voice's phase at each frame's centre, in radians; 0 is where the vocal folds close.

    All harmonics are in phase there, whatever the vowel. The spectrum is divided by its envelope; the result, folded to
    one period, peaks at the pulse.

    Args:
        frames: (T, SIZE).
        frequency: (T,) in Hz; any number where unvoiced.
        voiced: (T,) bool.
    """
    middle = frames[:, (SIZE - 2 * HOP) // 2 : (SIZE + 2 * HOP) // 2]
    spectra = torch.fft.rfft(middle * torch.hann_window(2 * HOP), 2048)
    envelope = F.avg_pool1d(spectra.abs()[:, None], 25, 1, 12, count_include_pad=False)[:, 0] + 1e-4
    hertz = torch.arange(1025) * RATE / 2048
    spectra = spectra / envelope * ((hertz > 60) & (hertz < 4000))
    pulses = torch.fft.irfft(spectra)[:, : 2 * HOP]
    time = (torch.arange(2 * HOP) - (2 * HOP - 1) / 2) / RATE
    places = (torch.remainder(time * frequency[:, None], 1) * FOLDS).long().clamp_max(FOLDS - 1)
    folded = torch.zeros(len(frames), FOLDS).scatter_add(1, places, pulses)
    smooth = torch.hann_window(9, periodic=False)[None, None, 1:-1]
    folded = F.conv1d(F.pad(folded[:, None], (3, 3), "circular"), smooth)[:, 0]
    up, down = folded.max(1), (-folded).max(1)
    # The recording's polarity may be inverted.
    peaks = up if (up.values * voiced).sum() >= (down.values * voiced).sum() else down
    return -2 * math.pi * (peaks.indices + 0.5) / FOLDS


def pitch_loss(values: torch.Tensor, tracked: torch.Tensor) -> torch.Tensor:
    """The distance of the quantiser's last three dimensions from the pitch that they should encode.

    Args:
        values: (B, T, dimensions), bounded and not yet rounded.
        tracked: (B, T, 4), the output of `track`.
    """
    octaves, voiced = tracked[..., 2], tracked[..., 3]
    phase = (values[..., -2:] - (REACH * tracked[..., :2]).clamp(-LIMIT, LIMIT)).square().mean()
    # Half an octave a level, the middle edge at `MIDDLE`, within the range that four levels keep after bounding twice.
    height = (values[..., -3] - (2 * octaves - 0.5).clamp(-1.85, 0.78)).square() * voiced
    return phase + 0.2 * height.sum() / voiced.sum().clamp_min(1)


def frame_loss(predicted: torch.Tensor, wave: torch.Tensor, size: int) -> torch.Tensor:
    """The distance between the spectra that the decoder's head predicts for each frame and those of the recording.

    Other losses compare sounds after overlapping frames have been added up, where the wrong phase of one frame can hide
    among the others. This loss compares each frame by itself: the logarithm of every bin's magnitude, and below
    1,000 Hz, where voices have their strongest harmonics, also the phase, as complex numbers whose magnitude is
    compressed to its square root.

    Args:
        predicted: (B, T, size + 2), logarithms of magnitudes, then phases.
        wave: (B, T * HOP), the recording.
        size: the FFT size of the head.
    """
    logs, phases = predicted.float().chunk(2, -1)
    edge = (size - HOP) // 2
    frames = F.pad(wave, (edge, edge)).unfold(-1, size, HOP) * torch.hann_window(size, device=wave.device)
    real = torch.fft.rfft(frames)
    magnitudes = real.abs()
    logs = logs.clamp(max=math.log(100))  # as the head does
    level = ((logs.exp() + 0.02).log10() - (magnitudes + 0.02).log10()).abs().mean()
    low = slice(3, 1000 * size // RATE)
    ours = torch.polar((logs[..., low] / 2).exp(), phases[..., low])
    theirs = (real / (magnitudes + 1e-4).sqrt())[..., low]
    distance = torch.view_as_real(ours - theirs).square().sum(-1).add(1e-6).sqrt().mean()
    return level + distance / theirs.abs().mean().clamp_min(1e-3)

"""Pitch as it is tracked, taught to codes, and heard from the decoder's head: against tones whose pitch is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Xcodec2Config
from transformers.models.xcodec2.modeling_xcodec2 import Xcodec2ISTFTHead

from llasa.codec.features import HOP, RATE
from llasa.data.teachers.flite import Speaker, speak
from llasa.train.codec.pitch import MIDDLE, frame_loss, pitch_loss, track


def voice(frequency: float, seconds: float = 1.0, phase: float = 0.0) -> torch.Tensor:
    """Ten harmonics, the fundamental a cosine of this phase at time 0."""
    time = torch.arange(round(seconds * RATE)) / RATE
    parts = [torch.cos(k * (2 * math.pi * frequency * time + phase)) / k for k in range(1, 11)]
    return 0.1 * torch.stack(parts).sum(0)


def inner(tracked: torch.Tensor) -> torch.Tensor:
    """Without the frames at either end, half of whose window is silent."""
    return tracked[3:-3]


@settings(deadline=None, max_examples=30)
@given(st.floats(65, 380), st.floats(-3, 3))
def test_a_tone_is_tracked_with_its_phase(frequency: float, phase: float) -> None:
    tracked = inner(track(voice(frequency, phase=phase)))
    assert tracked[:, 3].all()
    assert tracked[:, 2].numpy() == pytest.approx(math.log2(frequency / MIDDLE), abs=0.01)
    centres = (torch.arange(3, len(tracked) + 3) * HOP + HOP / 2) / RATE
    wanted = 2 * math.pi * frequency * centres + phase
    # Half a sample is between the frame's centre and that of an even number of samples.
    assert torch.cos(torch.atan2(tracked[:, 1], tracked[:, 0]) - wanted).min() > math.cos(0.2)


@pytest.mark.parametrize(
    "samples",
    [torch.zeros(16000), 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0)), torch.zeros(100)],
    ids=["silence", "noise", "nothing"],
)
def test_what_has_no_voice_has_no_pitch(samples: torch.Tensor) -> None:
    tracked = track(samples)
    assert tracked.shape == (len(samples) // HOP, 4)
    assert tracked[:, 3].mean() < 0.05 or not len(tracked)
    assert not tracked[tracked[:, 3] == 0].any()


def test_in_speech_the_phase_moves_on_by_the_pitch() -> None:
    samples, _, _ = speak("Nobody had seen the ferry since early spring.", Speaker("low", "slt", pitch=120))
    tracked = track(torch.from_numpy(samples))
    octaves, voiced = tracked[:, 2], tracked[:, 3] > 0
    assert 0.4 < voiced.float().mean() < 0.95
    assert MIDDLE * 2 ** octaves[voiced].median() == pytest.approx(120, rel=0.1)
    angle, pairs = torch.atan2(tracked[:, 1], tracked[:, 0]), voiced[1:] & voiced[:-1]
    moved = 2 * math.pi * MIDDLE * 2 ** ((octaves[1:] + octaves[:-1]) / 2) * HOP / RATE
    off = torch.remainder(angle[1:] - angle[:-1] - moved + math.pi, 2 * math.pi) - math.pi
    assert off[pairs].abs().median() < math.radians(15)


def test_eight_directions_share_the_circle_once_rounded() -> None:
    angles = torch.arange(0, 2 * math.pi, 0.001)
    tracked = torch.stack([angles.cos(), angles.sin(), torch.zeros(len(angles)), torch.ones(len(angles))], -1)[None]
    values = torch.zeros(1, len(angles), 4)
    values[..., -3] = -0.5
    values[..., -2:] = (tracked[..., :2] * 0.5 / math.cos(math.radians(67.5))).clamp(-0.74, 0.74)
    assert pitch_loss(values, tracked) < 1e-12
    rounded = values[0, :, -2:].round()
    found, counts = rounded.unique(dim=0, return_counts=True)
    assert len(found) == 8
    assert counts / len(angles) == pytest.approx(np.full(8, 1 / 8), abs=0.001)


def test_the_loss_of_a_frame_without_voice_is_its_phases_alone() -> None:
    values, tracked = torch.rand(2, 9, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 9, 4)
    assert pitch_loss(values, tracked) == pytest.approx(float(values[..., -2:].square().mean()))


def head() -> Xcodec2ISTFTHead:
    made = Xcodec2ISTFTHead(Xcodec2Config(hidden_size=16))
    made.linear = torch.nn.Identity()  # type: ignore[assignment]
    return made


def test_spectra_without_loss_make_the_recording_through_the_decoders_head() -> None:
    wave = voice(140)[None]
    size = 1280
    edge = (size - HOP) // 2
    frames = torch.nn.functional.pad(wave, (edge, edge)).unfold(-1, size, HOP) * torch.hann_window(size)
    real = torch.fft.rfft(frames)
    predicted = torch.cat([real.abs().clamp_min(1e-9).log(), real.angle()], -1)
    made = head()(predicted)[:, 0]
    assert (made - wave).abs()[:, edge:-edge].max() < 1e-5
    exact = frame_loss(predicted, wave, size)
    assert exact < 0.01
    turned = predicted.clone()
    turned[..., size // 2 + 1 :] += 1
    louder = predicted.clone()
    louder[..., : size // 2 + 1] += 0.5
    assert frame_loss(turned, wave, size) > 0.5
    assert frame_loss(louder, wave, size) > 0.1


def test_silence_has_a_finite_loss_and_gradient() -> None:
    predicted = torch.zeros(1, 4, 1282, requires_grad=True)
    loss = frame_loss(predicted, torch.zeros(1, 4 * HOP), 1280)
    loss.backward()
    assert loss.isfinite()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()

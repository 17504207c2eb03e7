"""The pieces of codec training that can be checked against a definition."""

import itertools

import numpy as np
import pytest
import torch
from nested import codec_settings
from small_models import make_codec

from llasa.codec.features import acoustic_input, mel_features
from llasa.errors import LlasaError
from llasa.train.codec.discriminators import discriminator_loss, generator_losses, small_discriminators
from llasa.train.codec.quantising import codebook_entropy, project, quantise
from llasa.train.codec.spectral import log_mel, spectral_losses
from llasa.train.codec.stage import Trainer, begin_as_shifts


def test_training_forward_gives_the_codes_of_transformers_encode(voiced: np.ndarray) -> None:
    model = make_codec()
    wave = torch.from_numpy(voiced)
    features, _ = mel_features(wave)
    with torch.no_grad():
        z = project(model, acoustic_input(wave), features)
        latents, indices, values = quantise(model, z)
        reference = model.encode(acoustic_input(wave), features, output_latents=True)
    # The frozen semantic encoder runs in bfloat16 here, so a few codes may fall to the other side.
    assert (indices == reference.audio_codes[0]).float().mean() > 0.9
    assert latents.shape == reference.latents.transpose(1, 2).shape
    digits = (values.round() + 2).clamp(0, 3)
    assert torch.equal((digits * torch.tensor([1, 4, 16])).sum(-1).int(), indices)


def test_a_codec_of_another_kind_is_no_start() -> None:
    with pytest.raises(LlasaError, match="`start` is tiny, a codec of another kind: start from an X-codec2"):
        Trainer(codec_settings(start="tiny"))


def test_entropy_is_that_of_the_joint_soft_assignment() -> None:
    torch.manual_seed(0)
    levels = torch.tensor([4, 4, 4])
    values = torch.rand(50, 3) * 3 - 2
    tables = [(-(values[:, d : d + 1] - torch.arange(-2, 2)).square() / 0.15).softmax(-1) for d in range(3)]
    joint = torch.zeros(4, 4, 4)
    for i, j, k in itertools.product(range(4), repeat=3):
        joint[i, j, k] = (tables[0][:, i] * tables[1][:, j] * tables[2][:, k]).mean()
    expected = -(joint * joint.log()).sum()
    assert float(codebook_entropy(values, levels)) == pytest.approx(float(expected), abs=1e-4)


def test_entropy_is_greatest_when_codes_are_spread_evenly() -> None:
    grid = torch.tensor(list(itertools.product(range(-2, 2), repeat=2)), dtype=torch.float32)
    levels = torch.tensor([4, 4])
    even, same = codebook_entropy(grid, levels), codebook_entropy(grid[:1].repeat(16, 1), levels)
    assert float(even) == pytest.approx(np.log(16), abs=0.01)
    assert float(same) < 0.1


def test_log_mel_of_a_tone_peaks_in_its_band() -> None:
    tone = torch.sin(2 * np.pi * 1000 * torch.arange(16000) / 16000)[None]
    low = torch.sin(2 * np.pi * 200 * torch.arange(16000) / 16000)[None]
    assert log_mel(tone)[0].mean(0).argmax() > log_mel(low)[0].mean(0).argmax() > 0


def test_spectral_losses_are_zero_only_for_equal_sound(voiced: np.ndarray) -> None:
    real = torch.from_numpy(voiced)[None]
    mel, stft = spectral_losses(real, real)
    assert float(mel) == 0
    assert float(stft) == 0
    worse, worst = (sum(map(float, spectral_losses(real + s * torch.randn_like(real), real))) for s in (0.01, 0.1))
    assert 0 < worse < worst


def test_discriminators_learn_to_tell_and_the_generator_loss_then_rises(voiced: np.ndarray) -> None:
    torch.manual_seed(0)
    discriminators = small_discriminators([2, 3], [126, 542], channels=4)
    real = torch.from_numpy(voiced[:8000])[None]
    made = 0.1 * torch.randn_like(real)
    optimiser = torch.optim.Adam(discriminators.parameters(), 3e-3)
    first = float(discriminator_loss(discriminators(real), discriminators(made)).detach())
    for _ in range(15):
        optimiser.zero_grad()
        loss = discriminator_loss(discriminators(real), discriminators(made))
        loss.backward()
        optimiser.step()
    fooling, matching = generator_losses(discriminators(real), discriminators(made))
    assert float(loss.detach()) < 0.7 * first
    assert float(fooling.detach()) > 0.3
    assert float(matching.detach()) > 0
    same = generator_losses(discriminators(real), discriminators(real))[1]
    assert float(same.detach()) == pytest.approx(0)


@torch.no_grad()
def test_inputs_of_the_head_begin_as_shifts_in_time() -> None:
    """One unit of such an input turns the phases of what lies low as a delay of `slope * n_fft / 2 pi` samples does."""
    model = make_codec(0)
    begin_as_shifts(model)
    head = model.acoustic_decoder.head
    bins = head.n_fft // 2 + 1
    assert float(head.linear.weight[:bins, :4].abs().max()) == 0  # loudness is left alone
    for column, slope in enumerate((0.2, 0.1, 0.05, 0.02)):
        spectrum = torch.polar(torch.ones(bins), head.linear.weight[bins:, column])
        spectrum[bins // 4 :] = 0
        delay = int(torch.fft.irfft(spectrum).argmax())
        assert abs(delay - slope * head.n_fft / (2 * torch.pi)) < 1

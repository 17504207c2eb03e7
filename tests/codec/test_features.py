"""The features equal transformers' own, whatever the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import SeamlessM4TFeatureExtractor

from llasa.codec.features import HOP, _window_and_filters, acoustic_input, frame_count, mel_features

GOLDEN = SeamlessM4TFeatureExtractor()


def pad(samples: np.ndarray) -> np.ndarray:
    """X-codec2's padding: one zero, up to a hop, then half a hop on both sides."""
    padded = np.append(samples, np.float32(0))
    padded = np.pad(padded, (0, -len(padded) % HOP))
    return np.pad(padded, HOP // 2)


def golden(samples: np.ndarray) -> np.ndarray:
    """transformers' features of the padded waveform."""
    return GOLDEN(pad(samples), sampling_rate=16000, return_tensors="np")["input_features"][0]


@pytest.mark.parametrize("length", [48000, 47999, 32000, 16001, 640, 319, 1])
def test_features_equal_transformers(voiced: np.ndarray, length: int) -> None:
    features, mask = mel_features(torch.from_numpy(voiced[-length:]))
    expected = golden(voiced[-length:])
    assert features.shape == (1, *expected.shape) == (1, frame_count(length), 160)
    assert mask.all()
    np.testing.assert_allclose(features[0].numpy(), expected, atol=1e-4)


def test_features_of_quantised_speech_with_silence_equal_transformers(voiced: np.ndarray) -> None:
    samples = np.round(voiced * 32767).astype(np.float32) / 32768
    samples[8000:12000] = 0
    features, _ = mel_features(torch.from_numpy(samples))
    np.testing.assert_allclose(features[0].numpy(), golden(samples), atol=1e-4)


def test_what_is_far_below_a_loud_tone_equals_transformers() -> None:
    """Single precision would be 0.2 off here: its rounding errors are louder than the upper bands."""
    time = np.arange(32000) / 16000
    samples = (0.9 * np.sin(2 * np.pi * 90 * time) * np.hanning(32000)).astype(np.float32)
    np.testing.assert_allclose(mel_features(torch.from_numpy(samples))[0][0], golden(samples), atol=1e-4)


def test_a_batch_and_its_mask_equal_transformers(voiced: np.ndarray) -> None:
    lengths = [48000, 31999, 16161, 16159, 641, 1]
    expected = GOLDEN([pad(voiced[:length]) for length in lengths], sampling_rate=16000, return_tensors="np")
    features, mask = mel_features(torch.from_numpy(np.stack([voiced] * len(lengths))), lengths)
    np.testing.assert_array_equal(mask.numpy(), expected["attention_mask"])
    np.testing.assert_allclose(features.numpy(), expected["input_features"], atol=1e-4)


def test_a_row_does_not_depend_on_its_batch(voiced: np.ndarray) -> None:
    lengths = [48000, 30001, 12800, 100]
    batch = torch.from_numpy(np.stack([voiced] * 4))  # what lies beyond a row's length must not matter
    features, mask = mel_features(batch, lengths)
    wave = acoustic_input(batch, lengths)
    for i, length in enumerate(lengths):
        alone, _ = mel_features(batch[i, :length])
        frames = frame_count(length)
        assert mask[i].sum() == frames
        assert mask[i, :frames].all()
        torch.testing.assert_close(features[i, :frames], alone[0], atol=1e-5, rtol=0)
        assert not features[i, frames:].any()
        assert torch.equal(wave[i, :, : frames * HOP], acoustic_input(batch[i, :length])[0])
        assert not wave[i, :, length:].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5000))
def test_as_many_frames_as_hops(length: int) -> None:
    samples = torch.zeros(length)
    features, mask = mel_features(samples)
    assert features.shape[1] == mask.shape[1] == acoustic_input(samples).shape[2] // HOP == length // HOP + 1
    assert torch.isfinite(features).all()


def test_gradients_flow_to_the_waveform(voiced: np.ndarray) -> None:
    _window_and_filters.cache_clear()
    with torch.inference_mode():  # must leave nothing behind that forbids a backward pass
        mel_features(torch.zeros(400))
    samples = torch.from_numpy(voiced[:8000]).requires_grad_()
    mel_features(samples)[0].square().mean().backward()
    assert samples.grad is not None
    assert torch.isfinite(samples.grad).all()
    assert samples.grad.any()

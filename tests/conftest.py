"""Shared fixtures: small random model folders and speech-like audio, made once a run."""

from pathlib import Path

import numpy as np
import pytest
from models import make_codec_folder, make_lm_folder


@pytest.fixture(scope="session")
def codec_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_codec_folder(tmp_path_factory.mktemp("models") / "codec")


@pytest.fixture(scope="session")
def lm_folder(codec_folder: Path) -> Path:
    """A model folder whose config names its codec by a relative path."""
    return make_lm_folder(codec_folder.parent / "lm", "../codec")


@pytest.fixture
def voiced() -> np.ndarray:
    """Three seconds at 16 kHz of a gliding harmonic tone with pauses: enough like speech for codecs and measures."""
    rng = np.random.default_rng(0)
    time = np.arange(48000) / 16000
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 1.5 * time)) / 16000
    tone = sum(np.sin(k * phase) / k for k in range(1, 20))
    gate = (np.sin(2 * np.pi * 2 * time) > -0.5).astype(float)
    return (0.1 * gate * tone + 0.002 * rng.normal(size=time.size)).astype(np.float32)

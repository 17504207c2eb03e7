"""WavLM large with its ECAPA-TDNN, on tiny weights in the layout of Microsoft's file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_listeners import wavlm_large_weights

from llasa.errors import LlasaError
from llasa.verifiers import Batch, load_verifier
from llasa.verifiers.wavlm_large import Network, load

RATE = 16000
# What UniSpeech's own code, with WavLM's, made of these weights and of `tone()`.
GOLDEN = [-1.7612, -2.8528, 2.7346, 0.6308, 2.6888, -1.741, -6.5616, -2.4343]


def tone() -> np.ndarray:
    time = np.arange(9000) / RATE
    return (np.sin(2 * np.pi * 170 * time) + 0.3 * np.sin(2 * np.pi * 900 * time**2)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(
        {"model": wavlm_large_weights() | {"loss_calculator.projection.weight": torch.zeros(3)}}, tmp_path / "w.pth"
    )
    return tmp_path / "w.pth"


@torch.inference_mode()
def test_it_embeds_as_unispeech_s_own_code_does() -> None:
    found = Network(wavlm_large_weights()).eval()(torch.from_numpy(tone())[None])[0].numpy()
    np.testing.assert_allclose(found, GOLDEN, rtol=1e-3, atol=1e-3)


def test_its_score_is_a_cosine(file: Path, voiced: np.ndarray) -> None:
    verifier = load_verifier(f"wavlm-large:{file}")
    assert (verifier.name, verifier.needs_reference) == (f"wavlm-large:{file}", True)
    same, other, silence = verifier.score(Batch([""] * 3, [voiced, tone(), np.zeros(RATE, np.float32)], [voiced] * 3))
    assert same == pytest.approx(1, abs=1e-5)
    assert other < 0.9999
    assert silence == 0


def test_what_cannot_be_had_is_said(file: Path, tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match=r"there is no file wavlm_large_finetune\.pth: fetch"):
        load()
    (tmp_path / "broken.pth").write_bytes(b"broken")
    with pytest.raises(LlasaError, match=r"broken\.pth is not wavlm_large_finetune\.pth"):
        load(str(tmp_path / "broken.pth"))
    for name in ("linear.bias", "feature_extract.model.encoder.layers.1.fc1.weight"):
        torch.save({key: value for key, value in wavlm_large_weights().items() if key != name}, tmp_path / "less.pth")
        with pytest.raises(LlasaError, match=r"less\.pth is not wavlm_large_finetune\.pth \(it has no "):
            load(str(tmp_path / "less.pth"))

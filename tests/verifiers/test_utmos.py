"""UTMOS, on a random one of the same class and file layout with a single thin layer."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from llasa.errors import LlasaError
from llasa.verifiers import Batch
from llasa.verifiers.utmos import load

RATE = 16000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The class takes no sizes: its wav2vec 2.0's are made small where it asks for them."""
    package = pytest.importorskip("utmos_pytorch.utmos_torch")
    small = partial(
        package.Wav2Vec2Config, conv_feature_layers="[(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8, 2, 2)] * 2",
        encoder_layers=1, encoder_ffn_embed_dim=32,
    )  # fmt: skip
    monkeypatch.setattr(package, "Wav2Vec2Config", small)
    torch.manual_seed(0)
    torch.save(package.UTMOSModel().state_dict(), tmp_path / "utmos_state_dict.pt")
    return tmp_path


def test_it_is_what_the_package_says(folder: Path, voiced: np.ndarray):
    from utmos_pytorch import UTMOSScoreTorch

    noise = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)
    sounds = [voiced, noise, voiced[:RATE], voiced[::-1].copy()]
    rater = UTMOSScoreTorch(str(folder / "utmos_state_dict.pt"))
    golden = [(rater.score(torch.from_numpy(sound)).item() - 1) / 4 for sound in sounds]
    assert 0 < min(golden) < max(golden) < 1
    verifier = load(str(folder))
    assert (verifier.name, verifier.process) == (f"utmos:{folder}", True)
    assert (verifier.needs_text, verifier.needs_reference) == (False, False)
    scores = verifier.score(Batch([""] * 4, sounds, [None] * 4))
    np.testing.assert_allclose(scores, golden, atol=1e-5)
    np.testing.assert_array_equal(verifier.score(Batch([""] * 4, sounds, [None] * 4)), scores)


def test_nothing_scores_nothing(folder: Path, voiced: np.ndarray):
    nothing = [np.zeros(0, np.float32), voiced[:320], np.zeros(RATE, np.float32)]
    np.testing.assert_array_equal(load(str(folder)).score(Batch([""] * 3, nothing, [None] * 3)), [0, 0, 0])


def test_what_cannot_be_had_is_said(folder: Path, lm_folder: Path):
    with pytest.raises(LlasaError, match="there is no folder nonsense"):
        load("nonsense")
    with pytest.raises(LlasaError, match=r"has no utmos_state_dict\.pt"):
        load(str(lm_folder))
    torch.save({"other": torch.zeros(1)}, folder / "utmos_state_dict.pt")
    with pytest.raises(LlasaError, match=r"utmos_state_dict\.pt cannot be loaded \(no UTMOS weights\)"):
        load(str(folder))
    (folder / "utmos_state_dict.pt").write_bytes(b"broken")
    with pytest.raises(LlasaError, match=r"utmos_state_dict\.pt cannot be loaded"):
        load(str(folder))


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LlasaError, match=r"utmos_pytorch is not installed.*pip install 'llasa\[verify\]'"):
        load()

"""ECAPA-TDNN through speechbrain, on a tiny random one in the layout of speechbrain/spkrec-ecapa-voxceleb.

speechbrain is in no extra (see `INSTALL`): without it these tests are skipped, but for the message that says so.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from llasa.errors import LlasaError
from llasa.verifiers import Batch, ecapa
from llasa.verifiers.ecapa import load

RATE = 16000
HYPERPARAMETERS = """
pretrained_path: somebody/else-on-the-hub
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 80
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 80
    channels: [16, 16, 16, 16, 48]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 8
    lin_neurons: 12
mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: False
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
"""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Takes speechbrain's lazy modules out of `sys.modules`, where hypothesis looks into them and they raise."""
    yield
    for name in [n for n, module in sys.modules.items() if type(module).__module__ == "speechbrain.utils.importutils"]:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with ecapa._without_torchaudio():
        from speechbrain.lobes.features import Fbank  # noqa: F401  (for the tests, which import it again)
        from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    torch.manual_seed(0)
    model = ECAPA_TDNN(80, lin_neurons=12, channels=[16, 16, 16, 16, 48], attention_channels=8)
    torch.save(model.state_dict(), tmp_path / "embedding_model.ckpt")
    (tmp_path / "hyperparams.yaml").write_text(HYPERPARAMETERS)
    return tmp_path


def test_it_is_the_cosine_that_speechbrain_gives(folder: Path, voiced: np.ndarray):
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    noise = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)
    sounds = [voiced, noise, voiced[:RATE], voiced[RATE : 2 * RATE]]
    model = ECAPA_TDNN(80, lin_neurons=12, channels=[16, 16, 16, 16, 48], attention_channels=8).eval()
    model.load_state_dict(torch.load(folder / "embedding_model.ckpt"))

    def embedding(sound: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            features = Fbank(n_mels=80)(torch.from_numpy(sound)[None])
            return model(features - features.mean(1, keepdim=True))[0, 0]

    golden = [torch.cosine_similarity(embedding(s), embedding(voiced), 0).clip(0, 1).item() for s in sounds]
    verifier = load(str(folder))
    assert (verifier.name, verifier.process, verifier.needs_reference) == (f"ecapa:{folder}", True, True)
    scores = verifier.score(Batch([""] * 4, sounds, [voiced] * 4))
    np.testing.assert_allclose(scores, golden, atol=1e-4)
    assert scores[0] == pytest.approx(1)
    assert np.ptp(scores) > 1e-3
    np.testing.assert_array_equal(verifier.score(Batch([""] * 4, sounds, [voiced] * 4)), scores)
    alone = [verifier.score(Batch([""], [sound], [voiced]))[0] for sound in sounds]
    np.testing.assert_allclose(alone, scores, atol=1e-6)


def test_nothing_scores_nothing(folder: Path, voiced: np.ndarray):
    nothing = [np.zeros(0, np.float32), voiced[:320], np.zeros(RATE, np.float32)]
    np.testing.assert_array_equal(load(str(folder)).score(Batch([""] * 3, nothing, [voiced] * 3)), [0, 0, 0])


def test_what_cannot_be_had_is_said(folder: Path, lm_folder: Path):
    with pytest.raises(LlasaError, match="there is no folder nonsense"):
        load("nonsense")
    with pytest.raises(LlasaError, match=r"has no hyperparams\.yaml"):
        load(str(lm_folder))
    (folder / "embedding_model.ckpt").unlink()
    with pytest.raises(LlasaError, match="cannot be loaded"):
        load(str(folder))


def test_without_the_package_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ecapa, "find_spec", lambda name: None)
    with pytest.raises(LlasaError, match=r"speechbrain is not installed.*pip install --no-deps speechbrain"):
        load()

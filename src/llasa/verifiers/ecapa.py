"""Scores speaker similarity to the reference with ECAPA-TDNN (arXiv 2005.07143), through speechbrain.

The model was trained on VoxCeleb. By its authors' threshold, two recordings are of one speaker if their cosine is 0.25
or more, so its scores are lower than WavLM's. A model's folder has speechbrain's layout: `hyperparams.yaml` and the
checkpoints that it names. That file builds the model and can call any function, so load only models that you trust.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

import numpy as np

from llasa.errors import LlasaError, first_line
from llasa.files import is_file
from llasa.models.defaults import check_device
from llasa.verifiers.downloads import find_weights
from llasa.verifiers.likeness import Likeness

DEFAULT = "speechbrain/spkrec-ecapa-voxceleb"
INSTALL = "pip install hyperpyyaml sentencepiece && pip install --no-deps speechbrain"


def load(model: str | None = None, device: str = "cpu") -> Likeness:
    """Loads the verifier from a folder or hub id in speechbrain's layout.

    Raises:
        LlasaError: a package is missing, there is no such model, or the hub cannot be reached.
    """
    import torch

    for package in ("speechbrain", "hyperpyyaml", "sentencepiece"):
        if find_spec(package) is None:
            raise LlasaError(f"{package} is not installed, which this needs: {INSTALL}")
    device = check_device(device)
    name = model or DEFAULT
    folder = find_weights(name, ["*.yaml", "*.ckpt", "*.txt"])
    if not is_file(folder / "hyperparams.yaml"):
        raise LlasaError(f"{name} has no hyperparams.yaml: pass a folder or hub id in speechbrain's layout")
    try:
        with _without_torchaudio():
            from speechbrain.inference.classifiers import EncoderClassifier

            # The file says that the checkpoints are on the hub.
            encoder = EncoderClassifier.from_hparams(
                source=str(folder), overrides={"pretrained_path": str(folder)}, run_opts={"device": device}
            )
    except Exception as error:  # functions that the file names may raise anything
        raise LlasaError(f"the model {name} cannot be loaded ({first_line(error)}): fetch or copy it again") from error

    @torch.inference_mode()
    def embed(audios: np.ndarray) -> np.ndarray:
        return encoder.encode_batch(torch.from_numpy(audios)).squeeze(1).cpu().numpy()

    return Likeness("ecapa" if model is None else f"ecapa:{model}", embed)


@contextmanager
def _without_torchaudio() -> Iterator[None]:
    """Provides an empty torchaudio, if none is installed, while speechbrain is imported.

    speechbrain imports torchaudio at once, although ECAPA does not use it, and no torchaudio on PyPI loads beside a CPU
    torch.
    """
    logging.getLogger("speechbrain").setLevel(logging.ERROR)
    if "torchaudio" in sys.modules or find_spec("torchaudio") is not None:
        yield
        return
    sys.modules["torchaudio"] = ModuleType("torchaudio")
    try:
        yield
    finally:
        del sys.modules["torchaudio"]

"""Who speaks: ECAPA-TDNN (arXiv 2005.07143) through speechbrain, against the reference.

Trained on VoxCeleb; by its authors' threshold one speaker's cosine is 0.25 and more, so that its scores lie lower than
WavLM's. A model's folder is speechbrain's: `hyperparams.yaml` and the checkpoints that it names. That file builds the
model and can call any function while it does: load only what you trust.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

import numpy as np

from llasa.errors import LlasaError
from llasa.loading import check_device, first_line
from llasa.verifiers.likeness import Likeness
from llasa.verifiers.weights import find_weights

DEFAULT = "speechbrain/spkrec-ecapa-voxceleb"
INSTALL = "pip install hyperpyyaml sentencepiece && pip install --no-deps speechbrain"


def load(model: str | None = None, device: str = "cpu") -> Likeness:
    """The verifier, from a folder or hub id in speechbrain's layout.

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
    if not (folder / "hyperparams.yaml").is_file():
        raise LlasaError(f"{name} has no hyperparams.yaml: pass a folder or hub id in speechbrain's layout")
    try:
        with _without_torchaudio():
            from speechbrain.inference.classifiers import EncoderClassifier

            # The file names the hub as the checkpoints' place.
            encoder = EncoderClassifier.from_hparams(
                source=str(folder), overrides={"pretrained_path": str(folder)}, run_opts={"device": device}
            )
    except Exception as error:  # whatever the file names may raise
        raise LlasaError(f"the model {name} cannot be loaded ({first_line(error)}): fetch or copy it again") from error

    @torch.inference_mode()
    def embed(audios: np.ndarray) -> np.ndarray:
        return encoder.encode_batch(torch.from_numpy(audios)).squeeze(1).cpu().numpy()

    return Likeness("ecapa" if model is None else f"ecapa:{model}", embed)


@contextmanager
def _without_torchaudio() -> Iterator[None]:
    """Where no torchaudio is installed, an empty module in its place, for as long as speechbrain is being imported.

    speechbrain imports torchaudio first of all, of which ECAPA uses nothing, and there is no torchaudio on PyPI that
    loads beside a CPU torch.
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

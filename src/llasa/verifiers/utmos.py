"""Scores naturalness with UTMOS (arXiv 2204.02152), the strong learner of 2022 that papers on speech report.

It runs through the package utmos-pytorch, which needs neither fairseq nor torchaudio. The weights come from the hub.
"""

from typing import Any

import numpy as np

from llasa.errors import LlasaError, first_line, need_extra
from llasa.files import is_file
from llasa.models.defaults import check_device
from llasa.verifiers.downloads import find_weights
from llasa.verifiers.likeness import equally_long
from llasa.verifiers.protocol import Batch

DEFAULT = "Blinorot/UTMOS-PyTorch"
FILE = "utmos_state_dict.pt"


def load(model: str | None = None, device: str = "cpu") -> "Utmos":
    """Loads the verifier from a folder or hub id that holds `utmos_state_dict.pt`.

    Raises:
        LlasaError: the package is missing, there is no such model, or the hub cannot be reached.
    """
    need_extra("verify", "utmos_pytorch")
    import torch
    from utmos_pytorch import UTMOSScoreTorch

    name = model or DEFAULT
    path = find_weights(name, [FILE]) / FILE
    if not is_file(path):
        raise LlasaError(f"{name} has no {FILE}: pass a folder or hub id with UTMOS' weights, like {DEFAULT}")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        # The package accepts any keys; without these it would give random scores.
        if not isinstance(weights, dict) or not any(key.startswith("output_layers.") for key in weights):
            raise ValueError("no UTMOS weights")
        rater = UTMOSScoreTorch(str(path), device=check_device(device))
    except LlasaError:
        raise
    except Exception as error:  # for a damaged file, torch and pickle may raise anything
        raise LlasaError(f"{path} cannot be loaded ({first_line(error)}): fetch or copy it again") from error
    return Utmos("utmos" if model is None else f"utmos:{model}", rater)


class Utmos:
    """UTMOS' opinion score, scaled from 1 to 5 to 0 to 1; 0 for silence and for sounds below half a second.

    It rates every 20 ms and takes the mean, so it can score a fragment, too.
    """

    process = True
    needs_text = False
    needs_reference = False

    def __init__(self, name: str, rater: Any) -> None:
        self.name, self._rater = name, rater

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        import torch

        scores = np.zeros(len(batch))
        for rows in equally_long(batch.audios):
            sounds = torch.from_numpy(np.stack([batch.audios[row] for row in rows])[:, None].astype(np.float32))
            scores[rows] = (self._rater.score(sounds.to(self._rater.device)).numpy() - 1) / 4
        return scores.clip(0, 1)

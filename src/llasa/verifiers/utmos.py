"""How natural it sounds: UTMOS (arXiv 2204.02152), the strong learner of 2022 that papers on codecs and voices print.

Through the package utmos-pytorch, which needs neither fairseq nor torchaudio; its weights come from the hub.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from llasa.errors import LlasaError, need_extra
from llasa.loading import check_device, first_line
from llasa.verifiers.likeness import equally_long
from llasa.verifiers.weights import find_weights

DEFAULT = "Blinorot/UTMOS-PyTorch"
FILE = "utmos_state_dict.pt"


def load(model: str | None = None, device: str = "cpu") -> "Utmos":
    """The verifier, from a folder or hub id that holds `utmos_state_dict.pt`.

    Raises:
        LlasaError: the package is missing, there is no such model, or the hub cannot be reached.
    """
    need_extra("verify", "utmos_pytorch")
    import torch
    from utmos_pytorch import UTMOSScoreTorch

    name = model or DEFAULT
    path = find_weights(name, [FILE]) / FILE
    if not path.is_file():
        raise LlasaError(f"{name} has no {FILE}: pass a folder or hub id with UTMOS' weights, like {DEFAULT}")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        # The package takes whatever keys it finds; without these it would rate at random.
        if not isinstance(weights, dict) or not any(key.startswith("output_layers.") for key in weights):
            raise ValueError("no UTMOS weights")
        rater = UTMOSScoreTorch(str(path), device=check_device(device))
    except LlasaError:
        raise
    except Exception as error:  # a damaged file: whatever torch and pickle raise
        raise LlasaError(f"{path} cannot be loaded ({first_line(error)}): fetch or copy it again") from error
    return Utmos("utmos" if model is None else f"utmos:{model}", rater)


class Utmos:
    """UTMOS' opinion score of 1 to 5 brought to 0 to 1; 0 for silence and below half a second.

    It rates every 20 ms and takes the mean, so that a fragment can be judged too.
    """

    process = True
    needs_text = False
    needs_reference = False

    def __init__(self, name: str, rater: Any) -> None:
        self.name, self._rater = name, rater

    def score(
        self,
        texts: Sequence[str],
        audios: Sequence[np.ndarray],
        references: Sequence[np.ndarray | None],
        ended: bool = True,
    ) -> np.ndarray:
        import torch

        scores = np.zeros(len(audios))
        for rows in equally_long(audios):
            heard = torch.from_numpy(np.stack([audios[row] for row in rows])[:, None].astype(np.float32))
            scores[rows] = (self._rater.score(heard.to(self._rater.device)).numpy() - 1) / 4
        return scores.clip(0, 1)

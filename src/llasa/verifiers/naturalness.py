"""How natural it sounds: DNSMOS P.835 (arXiv 2110.01763), which rates noise and distortion.

Its weights lie inside its package.
"""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from llasa.errors import need_extra
from llasa.verifiers.protocol import RATE


def load(device: str = "cpu") -> "Naturalness":
    """The verifier, which stays on the CPU.

    Raises:
        LlasaError: a package is missing.
    """
    need_extra("verify", "speechmos", "onnxruntime", "librosa")
    return Naturalness()


class Naturalness:
    """DNSMOS' overall opinion score of 1 to 5 brought to 0 to 1; 0 for no sound.

    It rates whole utterances: a fragment is looped until it is 9 seconds long, with a jump at every turn.
    """

    name = "naturalness"
    process = False
    needs_text = False
    needs_reference = False

    def score(
        self,
        texts: Sequence[str],
        audios: Sequence[np.ndarray],
        references: Sequence[np.ndarray | None],
        ended: bool = True,
    ) -> np.ndarray:
        return np.array([(dnsmos(audio) - 1) / 4 if audio.any() else 0.0 for audio in audios])


def dnsmos(samples: np.ndarray) -> float:
    """DNSMOS P.835, overall: the opinion score from 1 to 5 that listeners would give. NaN for no sound at all."""
    if not samples.any():
        return float("nan")
    scores = _rater()(np.clip(samples, -1, 1).astype(np.float32), RATE, False)
    return float(scores["ovrl_mos"])


@cache
def _rater() -> Any:
    from onnxruntime import InferenceSession, SessionOptions
    from speechmos.dnsmos import DNSMOS

    folder = files("speechmos") / "dnsmos_models"
    primary, p808 = str(folder / "sig_bak_ovr.onnx"), str(folder / "model_v8.onnx")
    # Sessions of its own making spin a thread on every core while they wait, which starves other processes.
    options = SessionOptions()
    options.intra_op_num_threads = 1
    rater = DNSMOS(primary, p808)
    rater.onnx_sess, rater.p808_onnx_sess = InferenceSession(primary, options), InferenceSession(p808, options)
    return rater

"""Scores naturalness with DNSMOS P.835 (arXiv 2110.01763), which rates noise and distortion.

The weights lie inside the package speechmos.
"""

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from llasa.errors import need_extra
from llasa.verifiers.protocol import RATE, Batch


def load(device: str = "cpu") -> "Naturalness":
    """Loads the verifier, which stays on the CPU.

    Raises:
        LlasaError: a package is missing.
    """
    need_extra("verify", "speechmos", "onnxruntime", "librosa")
    return Naturalness()


class Naturalness:
    """DNSMOS' overall opinion score, scaled from 1 to 5 to 0 to 1; 0 for silence.

    It rates whole utterances only: it would repeat a fragment until it is 9 seconds long, with a jump at every repeat.
    """

    name = "naturalness"
    process = False
    needs_text = False
    needs_reference = False

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        return np.array([(dnsmos(audio) - 1) / 4 if audio.any() else 0.0 for audio in batch.audios])


def dnsmos(samples: np.ndarray) -> float:
    """DNSMOS P.835, overall: an estimate of listeners' mean opinion score, from 1 to 5; NaN for silence."""
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
    # The sessions that speechmos makes spin a thread on every core while they wait, which starves other processes.
    options = SessionOptions()
    options.intra_op_num_threads = 1
    rater = DNSMOS(primary, p808)
    rater.onnx_sess, rater.p808_onnx_sess = InferenceSession(primary, options), InferenceSession(p808, options)
    return rater

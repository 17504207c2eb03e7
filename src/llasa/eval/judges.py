"""Judges that are models: a recogniser, a speaker encoder, a rater of sound. Their weights lie inside their packages.

They know 16 kHz mono waveforms; they know nothing of the models being judged, and none of them had a part in training
those: PocketSphinx (its own US English model), Resemblyzer (GE2E, arXiv 1710.10467) and DNSMOS (arXiv 2110.01763). Each
is loaded once a process.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import numpy as np

RATE = 16000
Result = TypeVar("Result")


def transcribe(samples: np.ndarray) -> str:
    """What PocketSphinx hears, in lower case; an empty string where it hears no word. About 7 times real time."""
    if not samples.any():
        return ""
    decoder = _recogniser()
    # Its noise removal would remember the clip before, and the order of clips change what is heard.
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw((np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    heard = decoder.hyp()
    return heard.hypstr if heard else ""


def speaker_embedding(samples: np.ndarray) -> np.ndarray:
    """Resemblyzer's embedding of the speaker: (256,) float32 of unit length, or zeros for silence."""
    if not samples.any():
        return np.zeros(256, np.float32)
    import resemblyzer

    samples = samples.astype(np.float32)
    # Its voice activity detection writes 16-bit integers, which a peak above one would overflow.
    spoken = resemblyzer.preprocess_wav(samples / max(1.0, float(np.abs(samples).max())))
    # Where it finds no voice at all, judge the sound as it is.
    return _speaker_encoder().embed_utterance(spoken if spoken.size else samples)


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine of two waveforms' speaker embeddings, 0 to 1."""
    return float(speaker_embedding(one) @ speaker_embedding(other))


def dnsmos(samples: np.ndarray) -> float:
    """DNSMOS P.835, overall: the opinion score from 1 to 5 that listeners would give. NaN for no sound at all."""
    if not samples.any():
        return float("nan")
    scores = _rater()(np.clip(samples, -1, 1).astype(np.float32), RATE, False)
    return float(scores["ovrl_mos"])


def hear(samples: np.ndarray) -> dict[str, Any]:
    """What there is to say about a clip alone: its transcript ("heard") and its DNSMOS ("dnsmos")."""
    return {"heard": transcribe(samples), "dnsmos": dnsmos(samples)}


def spread(judge: Callable[..., Result], *columns: Sequence[np.ndarray], processes: int = 2) -> list[Result]:
    """A judge or measure over many clips (or pairs, given two columns), in their order, in processes of its own.

    The judge is a function of a module, so that a new process can import it.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # Not fork: the caller may hold a model whose threads a forked child would wait for.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(judge, *columns, chunksize=4))


@cache
def _recogniser() -> Any:
    from pocketsphinx import Decoder

    return Decoder(samprate=RATE, loglevel="FATAL")


@cache
def _speaker_encoder() -> Any:
    import resemblyzer

    return resemblyzer.VoiceEncoder("cpu", verbose=False)


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

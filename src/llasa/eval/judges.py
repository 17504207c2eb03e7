"""Judges that are models: a recogniser, a speaker encoder, a rater of sound. Their weights lie inside their packages.

They know 16 kHz mono waveforms; they know nothing of the models being judged, and none of them had a part in training
those: PocketSphinx (its own US English model), Resemblyzer (GE2E, arXiv 1710.10467) and DNSMOS (arXiv 2110.01763),
which are verifiers as well: what chose some speech must not judge it. Each is loaded once a process.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from llasa.verifiers.naturalness import dnsmos
from llasa.verifiers.speaker import speaker_embedding
from llasa.verifiers.sphinx import transcribe

Result = TypeVar("Result")


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine of two waveforms' speaker embeddings, 0 to 1."""
    return float(speaker_embedding(one) @ speaker_embedding(other))


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

"""Scores how similar a sound is to its reference, with any encoder; verifiers of speakers and emotions share it."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from llasa.errors import LlasaError
from llasa.verifiers.protocol import RATE, Batch

# Seconds. A shorter sound has too little voice, and below 0.33 s WavLM's pooling has no two frames for a deviation.
SHORTEST = 0.5
BATCH = 16


class Likeness:
    """Cosine of the embeddings of a sound and of its reference; 0 for silence and for sounds below `SHORTEST`.

    A cosine below zero becomes 0. Others do not change, so a score is the SIM that papers report.
    """

    process = True
    needs_text = False
    needs_reference = True

    def __init__(self, name: str, embed: Callable[[np.ndarray], np.ndarray]) -> None:
        """`embed` turns sounds (B, T) float32 at `RATE` into embeddings (B, D)."""
        self.name, self._embed = name, embed
        # A search passes the same reference with every fragment.
        self._of_reference = lru_cache(maxsize=16)(self._embedding)

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        """See `Verifier.score`.

        Raises:
            LlasaError: a reference is missing.
        """
        wanted = [self._of_reference(required(reference, self.name).tobytes()) for reference in batch.references]
        scores = np.zeros(len(batch))
        for rows in equally_long(batch.audios):
            for row, embedding in zip(rows, self._embed(np.stack([batch.audios[row] for row in rows])), strict=True):
                scores[row] = cosine(embedding, wanted[row])
        return scores.clip(0, 1)

    def _embedding(self, samples: bytes) -> np.ndarray | None:
        audio = np.frombuffer(samples, np.float32).copy()
        return self._embed(audio[None])[0] if is_judged(audio) else None


def equally_long(audios: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Batches the sounds that can be scored, as indices; all sounds of a batch are of one length.

    Encoders of the wav2vec family normalise over time, so padding would make a score depend on the rest of the batch.
    The fragments of a beam are equally long anyway.
    """
    judged = sorted((index for index, audio in enumerate(audios) if is_judged(audio)), key=lambda i: len(audios[i]))
    batch: list[int] = []
    for index in judged:
        if batch and (len(audios[batch[0]]) != len(audios[index]) or len(batch) == BATCH):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def is_judged(audio: np.ndarray) -> bool:
    """Whether a sound can be scored: it is long enough, and not digital silence."""
    return len(audio) >= SHORTEST * RATE and bool(audio.any())


def cosine(ours: np.ndarray, theirs: np.ndarray | None) -> float:
    """Cosine of two vectors; 0 if one is zero or None."""
    length = 0.0 if theirs is None else float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float(ours @ theirs) / length if theirs is not None and length else 0.0


def required(reference: np.ndarray | None, name: str) -> np.ndarray:
    """A reference as float32.

    Raises:
        LlasaError: there is none.
    """
    if reference is None:
        raise LlasaError(f"the verifier {name} needs a reference: choose a voice cloned from a recording")
    return np.asarray(reference, np.float32)

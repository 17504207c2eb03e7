"""How like its reference a sound is, by any encoder: what the verifiers of voices and of emotions share."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from llasa.errors import LlasaError
from llasa.verifiers.protocol import RATE

# Seconds. Less has no voice to recognise, and WavLM's pooling no two frames to take a deviation of (0.33 s).
SHORTEST = 0.5
BATCH = 16


class Likeness:
    """Cosine of the embeddings of a sound and of its reference; 0 for opposite ones, for silence and below `SHORTEST`.

    A cosine below zero is cut off and the rest left as it is, so that a score is the SIM that papers print.
    """

    process = True
    needs_text = False
    needs_reference = True

    def __init__(self, name: str, embed: Callable[[np.ndarray], np.ndarray]) -> None:
        """`embed` makes (B, D) of sounds (B, T) float32 at `RATE`."""
        self.name, self._embed = name, embed
        # A search asks for the same reference with every fragment.
        self._of_reference = lru_cache(maxsize=16)(self._embedding)

    def score(
        self,
        texts: Sequence[str],
        audios: Sequence[np.ndarray],
        references: Sequence[np.ndarray | None],
        ended: bool = True,
    ) -> np.ndarray:
        """As the protocol says.

        Raises:
            LlasaError: a reference is missing.
        """
        wanted = [self._of_reference(required(reference, self.name).tobytes()) for reference in references]
        scores = np.zeros(len(audios))
        for rows in equally_long(audios):
            for row, embedding in zip(rows, self._embed(np.stack([audios[row] for row in rows])), strict=True):
                scores[row] = cosine(embedding, wanted[row])
        return scores.clip(0, 1)

    def _embedding(self, samples: bytes) -> np.ndarray | None:
        audio = np.frombuffer(samples, np.float32).copy()
        return self._embed(audio[None])[0] if is_judged(audio) else None


def equally_long(audios: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Batches of the sounds that can be judged at all, as indices; all of a batch are of one length.

    Encoders of the wav2vec family normalise over time, so that padding changes what they hear: a score must not depend
    on what else is in the batch. The fragments of a beam are equally long anyway.
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
    """Whether a sound is long enough to judge, and no digital silence."""
    return len(audio) >= SHORTEST * RATE and bool(audio.any())


def cosine(ours: np.ndarray, theirs: np.ndarray | None) -> float:
    """Cosine of two vectors; 0 where one is zero or None."""
    length = 0.0 if theirs is None else float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float(ours @ theirs) / length if theirs is not None and length else 0.0


def required(reference: np.ndarray | None, name: str) -> np.ndarray:
    """A reference as float32.

    Raises:
        LlasaError: there is none.
    """
    if reference is None:
        raise LlasaError(f"the verifier {name} needs a reference: speak in a voice that was cloned from a recording")
    return np.asarray(reference, np.float32)

"""Who speaks: Resemblyzer's embedding (GE2E, arXiv 1710.10467) against the reference's.

Its weights lie inside its package. That asks for another package that has no wheels, so that it is installed on its
own, without what it asks for.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from llasa.errors import LlasaError, need_extra
from llasa.verifiers.likeness import required


def load(device: str = "cpu") -> "Resemblyzer":
    """The verifier, which stays on the CPU.

    Raises:
        LlasaError: a package is missing.
    """
    need_extra("verify", "librosa", "webrtcvad")
    if find_spec("resemblyzer") is None:
        raise LlasaError("resemblyzer is not installed, which this needs: pip install --no-deps Resemblyzer")
    return Resemblyzer()


class Resemblyzer:
    """Cosine of the speaker embeddings of the speech and of its reference, 0 to 1; 0 for silence."""

    name = "speaker"
    process = True
    needs_text = False
    needs_reference = True

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
        wanted = [_of_reference(required(reference, self.name).tobytes()) for reference in references]
        return np.array([speaker_embedding(audio) @ own for audio, own in zip(audios, wanted, strict=True)], float)


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


@lru_cache(maxsize=16)
def _of_reference(samples: bytes) -> np.ndarray:
    """The embedding of a reference's float32 samples: a search asks for the same one with every fragment."""
    return speaker_embedding(np.frombuffer(samples, np.float32))


@cache
def _speaker_encoder() -> Any:
    import resemblyzer

    return resemblyzer.VoiceEncoder("cpu", verbose=False)

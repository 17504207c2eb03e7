"""Scores speaker similarity to the reference with Resemblyzer (GE2E, arXiv 1710.10467).

The weights lie inside the package Resemblyzer. It depends on a package that has no wheels, so it is installed without
its dependencies.
"""

from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from llasa.errors import LlasaError, need_extra
from llasa.verifiers.likeness import required
from llasa.verifiers.protocol import RATE, Batch

SIZE, HOP, BANDS = 400, 160, 40  # of Resemblyzer's spectrogram: samples, samples, mel bands


def load(device: str = "cpu") -> "Resemblyzer":
    """Loads the verifier, which stays on the CPU.

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

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        """See `Verifier.score`.

        Raises:
            LlasaError: a reference is missing.
        """
        wanted = [_of_reference(required(reference, self.name).tobytes()) for reference in batch.references]
        pairs = zip(batch.audios, wanted, strict=True)
        return np.array([speaker_embedding(audio) @ own for audio, own in pairs], float)


def speaker_embedding(samples: np.ndarray) -> np.ndarray:
    """Resemblyzer's embedding of the speaker: (256,) float32 of unit length, or zeros for silence."""
    if not samples.any():
        return np.zeros(256, np.float32)
    import resemblyzer

    samples = samples.astype(np.float32)
    # Its voice activity detection converts to 16-bit integers, which a peak above one would overflow.
    spoken = resemblyzer.preprocess_wav(samples / max(1.0, float(np.abs(samples).max())))
    # If it finds no voice at all, the whole sound is embedded.
    return _speaker_encoder().embed_utterance(spoken if spoken.size else samples)


@lru_cache(maxsize=16)
def _of_reference(samples: bytes) -> np.ndarray:
    """The embedding of a reference's float32 samples, cached because a search needs it with every fragment."""
    return speaker_embedding(np.frombuffer(samples, np.float32))


@cache
def _speaker_encoder() -> Any:
    import resemblyzer

    resemblyzer.audio.wav_to_mel_spectrogram = mel_spectrogram
    return resemblyzer.VoiceEncoder("cpu", verbose=False)


def mel_spectrogram(samples: np.ndarray) -> np.ndarray:
    """What Resemblyzer computes with librosa, whose numba compiles for 20 s in a new environment.

    Args:
        samples: (samples,) at 16 kHz.

    Returns:
        Powers in mel bands (not their logarithms): (frames, 40) float32, a frame every 10 ms.
    """
    import torch
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(SIZE // 2 + 1, BANDS, 0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
    spectrum = torch.stft(
        torch.from_numpy(samples.astype(np.float32)), SIZE, HOP, window=torch.hann_window(SIZE), pad_mode="constant",
        return_complex=True,
    )  # fmt: skip
    return (spectrum.abs().square().T.numpy() @ filters).astype(np.float32)

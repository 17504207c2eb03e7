"""Measures by formula: word errors between texts, distances between a sound and its original, use of a codebook.

Knows texts, 16 kHz waveforms and codes; knows nothing of models or of judges that are models (`eval/judges.py`). A
sound is compared over the length that it shares with its original.
"""

import re
import unicodedata
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from llasa import text
from llasa.errors import LlasaError

RATE = 16000
# pystoi wants 30 frames of 25.6 ms with speech in them and PESQ a quarter of a second: shorter sounds have neither.
SHORTEST = 0.5


def words(sentence: str) -> list[str]:
    """The words that a reader would say and a recogniser write: normalised, lower case, no accents, no punctuation."""
    plain = unicodedata.normalize("NFKD", text.normalise(sentence).lower().replace("’", "'"))
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    # An apostrophe is kept within a word (don't, o'clock) only: around one it is a quotation mark.
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", plain)


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Substitutions, deletions and insertions, and the number of words in the reference."""
    import jiwer

    ours, theirs = words(reference), words(hypothesis)
    if not ours:
        return len(theirs), 0
    found = jiwer.process_words(" ".join(ours), " ".join(theirs))
    return found.substitutions + found.deletions + found.insertions, len(ours)


def letter_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Letters substituted, deleted and inserted, and letters in the reference, the spaces between words among them."""
    import jiwer

    ours, theirs = " ".join(words(reference)), " ".join(words(hypothesis))
    if not ours:
        return len(theirs), 0
    found = jiwer.process_characters(ours, theirs)
    return found.substitutions + found.deletions + found.insertions, len(ours)


def wer(reference: str, hypothesis: str) -> float:
    """Word error rate of one sentence; above 1 where much was added.

    Raises:
        LlasaError: the reference has no words.
    """
    errors, total = word_errors(reference, hypothesis)
    if not total:
        raise LlasaError(f"no words to compare with in {reference[:60]!r}: give a transcript with words")
    return errors / total


def stoi(original: np.ndarray, output: np.ndarray) -> float:
    """Short-time objective intelligibility (Taal et al. 2011), 0 to 1. NaN below half a second or without speech."""
    from pystoi import stoi as measure

    original, output = _aligned(original, output)
    if original.size < SHORTEST * RATE or not original.any():
        return float("nan")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        value = float(measure(original, output, RATE))
    # pystoi answers 1e-5 with a warning where too few frames hold speech.
    return float("nan") if caught and value <= 1e-5 else value


def pesq_wb(original: np.ndarray, output: np.ndarray) -> float:
    """Wide-band PESQ (ITU-T P.862.2), 1.04 to 4.64. NaN where it finds no speech to compare."""
    from pesq import PesqError, pesq

    original, output = _aligned(original, output)
    if original.size < SHORTEST * RATE or not original.any() or not output.any():
        return float("nan")
    value = pesq(RATE, original, output, "wb", on_error=PesqError.RETURN_VALUES)
    return float(value) if value > 0 else float("nan")


def log_mel(samples: np.ndarray) -> np.ndarray:
    """(T,) waveform to (80, T // 160 + 1) natural logarithms of mel amplitudes: 64 ms windows every 10 ms."""
    from transformers.audio_utils import spectrogram

    window = np.hanning(1025)[:-1]
    padded = samples if samples.size > 1024 else np.pad(samples, (0, 1025 - samples.size))
    magnitudes = spectrogram(
        padded.astype(np.float64), window, 1024, 160, power=1.0, mel_filters=_mel_filters(), mel_floor=1e-4
    )
    return np.log(magnitudes).astype(np.float32)


def mel_distance(original: np.ndarray, output: np.ndarray) -> float:
    """Mean absolute difference of log-mel amplitudes, in nepers (1 is 8.7 dB); 0 for equal sounds."""
    original, output = _aligned(original, output)
    return float(np.abs(log_mel(original) - log_mel(output)).mean())


def compare(original: np.ndarray, output: np.ndarray) -> dict[str, float]:
    """The three measures of a sound against its original, by name."""
    measures = {"stoi": stoi, "pesq_wb": pesq_wb, "mel_distance": mel_distance}
    return {name: measure(original, output) for name, measure in measures.items()}


@dataclass(frozen=True)
class Usage:
    """How codes spread over a codebook of `size`: the share that occurs at all, and e to the entropy of its codes."""

    share: float
    perplexity: float
    size: int
    count: int


def codebook_usage(streams: Iterable[np.ndarray], size: int) -> Usage:
    """Use of a codebook over many streams of codes.

    Raises:
        LlasaError: there are no codes, or one is outside the codebook.
    """
    arrays = [np.asarray(stream, dtype=np.int64) for stream in streams]
    codes = np.concatenate(arrays) if arrays else np.empty(0, np.int64)
    if not codes.size:
        raise LlasaError("no codes to count: give it some audio")
    if codes.min() < 0 or codes.max() >= size:
        raise LlasaError(f"code {int(codes.max())} is outside a codebook of {size}: was it made by another codec?")
    counts = np.bincount(codes, minlength=size)
    seen = counts[counts > 0] / codes.size
    return Usage(seen.size / size, float(np.exp(-(seen * np.log(seen)).sum())), size, codes.size)


def _aligned(original: np.ndarray, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both cut to the shorter one's length: codecs add up to a hop at the end."""
    length = min(original.size, output.size)
    return original[:length], output[:length]


@cache
def _mel_filters() -> np.ndarray:
    from transformers.audio_utils import mel_filter_bank

    return mel_filter_bank(513, 80, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")

"""Metrics computed by formula: word errors, distances between sounds and between voices, use of a codebook.

Waveforms are at 16 kHz. A sound is compared with its original over the length that both have. Metrics by models are in
`listeners.py`.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from llasa.errors import LlasaError
from llasa.measure.yin import yin
from llasa.text.wording import letter_errors as letter_errors
from llasa.text.wording import wer as wer
from llasa.text.wording import word_errors as word_errors
from llasa.text.wording import words as words

RATE = 16000
# pystoi needs 30 frames of 25.6 ms with speech, and PESQ a quarter of a second: shorter sounds have neither.
SHORTEST = 0.5
SIZE, HOP = 1024, 160  # samples, of the frames in which pitch is found
LEAST = 0.1  # seconds of voiced sound that a pitch needs


def stoi(original: np.ndarray, output: np.ndarray) -> float:
    """Short-time objective intelligibility (Taal et al. 2011), 0 to 1. NaN below half a second or without speech."""
    from pystoi import stoi as measure

    original, output = _aligned(original, output)
    if original.size < SHORTEST * RATE or not original.any():
        return float("nan")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        value = float(measure(original, output, RATE))
    # pystoi returns 1e-5 with a warning if too few frames hold speech.
    return float("nan") if caught and value <= 1e-5 else value


def pesq_wb(original: np.ndarray, output: np.ndarray) -> float:
    """Wide-band PESQ (ITU-T P.862.2), 1.04 to 4.64. NaN if it finds no speech to compare."""
    return _pesq(original, output, "wb")


def pesq_nb(original: np.ndarray, output: np.ndarray) -> float:
    """Narrow-band PESQ (ITU-T P.862.1), 1.02 to 4.55. NaN if it finds no speech to compare."""
    return _pesq(original, output, "nb")


def _pesq(original: np.ndarray, output: np.ndarray, band: str) -> float:
    from pesq import PesqError, pesq

    original, output = _aligned(original, output)
    if original.size < SHORTEST * RATE or not original.any() or not output.any():
        return float("nan")
    value = pesq(RATE, original, output, band, on_error=PesqError.RETURN_VALUES)
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
    """The measures of a sound against its original, by name."""
    measures = {"stoi": stoi, "pesq_wb": pesq_wb, "mel_distance": mel_distance, "pitch_error": pitch_error}
    return {name: measure(original, output) for name, measure in measures.items()}


@dataclass(frozen=True)
class VoiceDistance:
    """The distance of two voices, whatever they say; 0 for equal sounds.

    Attributes:
        pitch: difference of the medians of the fundamental, in semitones.
        spectrum: root mean square difference, over 40 mel bands, of the voices' average levels in dB without their
            means: formants and tilt, but not loudness.
    """

    pitch: float
    spectrum: float

    @property
    def combined(self) -> float:
        """The mean of both, each in units of a typical difference of two sentences of one speaker: 1 semitone, 2 dB."""
        return (self.pitch + self.spectrum / 2) / 2


def voice_distance(one: np.ndarray, other: np.ndarray) -> VoiceDistance:
    """Compares pitch and formants of two waveforms by formula, as a check on listeners that are models.

    Only voiced frames count, not pauses and voiceless consonants. All values are NaN if either sound has less than a
    tenth of a second of voiced frames. Pitch is by YIN (de Cheveigné and Kawahara, JASA 111, 2002). About 50 times real
    time.
    """
    (pitch, levels), (other_pitch, other_levels) = _voice_print(one), _voice_print(other)
    spectrum = float(np.sqrt(np.mean((levels - other_levels) ** 2)))
    return VoiceDistance(abs(pitch - other_pitch), spectrum)


@dataclass(frozen=True)
class Pitch:
    """The pitch of a voice over its voiced frames; all NaN if they last less than a tenth of a second.

    Attributes:
        mean: fundamental in Hz (geometric mean).
        deviation: standard deviation in semitones; a flat voice has a small one.
        span: from the 5th to the 95th percentile, in semitones.
    """

    mean: float
    deviation: float
    span: float


def pitch(samples: np.ndarray) -> Pitch:
    """Pitch by YIN up to 500 Hz, without values an octave or more from the median, which are errors."""
    found = _frames(samples, highest=500)
    if found is None or found.voiced.sum() * HOP < LEAST * RATE:
        return Pitch(float("nan"), float("nan"), float("nan"))
    semitones = 12 * np.log2(found.pitch[found.voiced])
    semitones = semitones[np.abs(semitones - np.median(semitones)) < 12]
    low, high = np.percentile(semitones, [5, 95])
    return Pitch(float(2 ** (semitones.mean() / 12)), float(semitones.std()), float(high - low))


def pitch_error(original: np.ndarray, output: np.ndarray) -> float:
    """Share of the original's voiced frames in which the output is unvoiced or more than 20 % off in pitch, 0 to 1.

    These are gross pitch and voicing errors (Chu and Alwan, ICASSP 2009) in voiced frames. NaN if the original has less
    than a tenth of a second of them.
    """
    wanted, made = (_frames(samples) for samples in _aligned(original, output))
    if wanted is None or wanted.voiced.sum() * HOP < LEAST * RATE:
        return float("nan")
    if made is None:  # silence
        return 1.0
    right = made.voiced & (np.abs(made.pitch / wanted.pitch - 1) <= 0.2)
    return float(1 - right[wanted.voiced].mean())


@dataclass(frozen=True, eq=False)
class _Frames:
    """Frames of 64 ms every 10 ms: pitch in Hz (T,), whether voiced (T,), and the power spectra (T, SIZE + 1)."""

    pitch: np.ndarray
    voiced: np.ndarray
    spectra: np.ndarray


def _voice_print(samples: np.ndarray) -> tuple[float, np.ndarray]:
    """Median pitch in semitones above 1 Hz, and mean level in dB of 40 mel bands (40,) without their mean."""
    found = _frames(samples)
    if found is None or found.voiced.sum() * HOP < LEAST * RATE:
        return float("nan"), np.full(40, np.nan)
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(SIZE + 1, 40, 60.0, 7600.0, RATE, norm="slaney", mel_scale="slaney")
    levels = (10 * np.log10(found.spectra[found.voiced] @ filters + 1e-10)).mean(0)
    return float(np.median(12 * np.log2(found.pitch[found.voiced]))), levels - levels.mean()


def _frames(samples: np.ndarray, highest: float = 400) -> _Frames | None:
    """Frames with pitch from 60 Hz to `highest`; None for silence and for sounds shorter than a frame."""
    if samples.size < SIZE or not samples.any():
        return None
    # Set to one level, so that the results do not depend on it.
    samples = samples / np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, SIZE)[::HOP]  # (T, SIZE)
    pitch = yin(frames, 60, highest, RATE)
    frames = frames - frames.mean(1, keepdims=True)
    power = np.square(frames).mean(1)
    # YIN gives every frame a pitch. A frame is voiced if it is loud and similar to itself a period later. Dividing by
    # the window's own autocorrelation undoes its taper (Boersma, IFA Proceedings 17, 1993).
    window = np.hanning(SIZE)
    spectra = np.square(np.abs(np.fft.rfft(frames * window, 2 * SIZE)))
    likeness = np.fft.irfft(spectra)[:, :SIZE]
    taper = np.fft.irfft(np.square(np.abs(np.fft.rfft(window, 2 * SIZE))))[:SIZE]
    lag = np.rint(RATE / pitch).astype(int)
    periodic = likeness[np.arange(len(lag)), lag] * taper[0] > 0.6 * likeness[:, 0] * taper[lag]
    return _Frames(pitch, periodic & (power > power.max() * 10**-2.5), spectra)


@dataclass(frozen=True)
class Usage:
    """The use of a codebook of `size` codes: the share that occurs, and the perplexity."""

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
        raise LlasaError("there are no codes to count: give some audio")
    if codes.min() < 0 or codes.max() >= size:
        raise LlasaError(f"code {int(codes.max())} is outside a codebook of {size}: was it made by another codec?")
    counts = np.bincount(codes, minlength=size)
    seen = counts[counts > 0] / codes.size
    return Usage(seen.size / size, float(np.exp(-(seen * np.log(seen)).sum())), size, codes.size)


def _aligned(original: np.ndarray, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both, cut to the length of the shorter one, as codecs add up to a hop at the end."""
    length = min(original.size, output.size)
    return original[:length], output[:length]


@cache
def _mel_filters() -> np.ndarray:
    from transformers.audio_utils import mel_filter_bank

    return mel_filter_bank(513, 80, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")

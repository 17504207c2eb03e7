"""Finds plain faults in speech without a model: silence, clipping, a length that does not fit the text, loops.

It finds only what no person would do, and leaves the rest to other verifiers. In real speech it is meant to find
nothing, even with long pauses and repeated words.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from llasa.text.normalise import normalise
from llasa.text.script import PACE, is_latin, letters, longest
from llasa.verifiers.protocol import RATE, Batch

HOP = 320  # samples of a frame here, and of a code at 50 codes a second
LAGS = 100  # frames or codes: the longest period of a loop
RUN = 50  # frames or codes: the shortest loop, which must also last two periods
STUCK = 125  # repeats of a single code that are a fault; fewer may be a pause, since digital silence repeats one code
SAME = 0.2  # nepers: mean difference of level between equal sounds; real speech that looks periodic differs by over 0.3
RANGE = 40  # dB below the loudest frame: quieter frames are silent
FLOOR = -60  # dB to full scale: quieter frames are silent
CLIPPED = 0.001  # share of the samples at full scale; the loudest of 150 recordings had a fiftieth of that
BANDS = 24


class Sanity:
    """1 if nothing is wrong, else 0."""

    name = "sanity"
    process = True
    needs_text = True
    needs_reference = False

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        pairs = zip(batch.texts, batch.audios, strict=True)
        return np.array([float(judge_sound(text, audio, ended=ended) is None) for text, audio in pairs])


def load(device: str = "cpu") -> Sanity:
    """Makes the verifier, which stays on the CPU."""
    return Sanity()


def judge_sound(text: str, samples: np.ndarray, pace: float = PACE, ended: bool = True) -> str | None:
    """The fault in a reading of a text, in words that complete "it is" or "it"; None if there is none.

    Args:
        text: the whole text, even if the sound is a fragment.
        samples: (T,) at 16 kHz; may be empty.
        pace: the voice's seconds a letter (`speak.plan.pace`).
        ended: False if the sound is a fragment from the beginning, which may be short or start with a pause.
    """
    if not np.isfinite(samples).all():
        return "NaN"
    seconds = len(samples) / RATE
    levels = _levels(samples)
    sounding = levels > max(FLOOR, levels.max(initial=-np.inf) - RANGE)
    quiet = (~sounding).sum() * HOP / RATE
    # A single short word may have a second of silence around it.
    if (ended and seconds - quiet < 0.1) or (quiet > 1 and sounding.mean() < 1 / 3):
        return "silent"
    if np.mean(np.abs(samples) >= 0.99) > CLIPPED:
        return "clipped"
    # The bounds that `speak.plan` sets for codes.
    spoken = normalise(text) if is_latin(text) else text
    if ended and seconds < 0.4 * letters(spoken) * pace - 0.16:
        return "too short for its text"
    if seconds > longest(spoken, pace) + 0.1:
        return "too long for its text"
    return "repeats itself" if _loops(samples, sounding) else None


def repeats(codes: np.ndarray | Sequence[int]) -> bool:
    """Whether a sequence of codes (T,), 50 a second, holds a loop: the same 2 to 100 codes repeated exactly.

    After its first period a loop has to last a second and two more periods; a single code has to last 2.5 seconds.
    """
    sequence = np.asarray(codes, np.int64)
    changes = np.cumsum(sequence[1:] != sequence[:-1])
    for lag in range(1, min(LAGS, len(sequence) - RUN) + 1):
        least = STUCK if lag == 1 else max(RUN, 2 * lag)
        same = sequence[lag:] == sequence[:-lag]
        if np.count_nonzero(same) < least:  # a quick test that ends here for nearly all speech
            continue
        edges = np.flatnonzero(np.diff(np.r_[False, same, False]))
        for start, stop in edges.reshape(-1, 2):
            if stop - start < least:
                continue
            # A single repeated code matches at every lag, so only lag 1 counts it.
            if lag == 1 or (changes[stop + lag - 2] - changes[start]) * lag >= stop - start:
                return True
    return False


def _loops(samples: np.ndarray, sounding: np.ndarray) -> bool:
    """Whether the spectrum of a sounding part repeats with some period, as exactly as only a machine would."""
    if len(samples) < (RUN + 5) * HOP:
        return False
    spectra = _spectra(samples.astype(np.float32))
    sounding = sounding[: len(spectra)]
    for lag in range(5, LAGS + 1):
        width = max(RUN, 2 * lag)
        if lag + width > len(spectra):
            break
        differences = np.abs(spectra[lag:] - spectra[:-lag]).mean(1)
        alike = _running_mean(differences, width) < SAME
        # In a pause all frames are alike.
        if (alike & (_running_mean(sounding[lag:].astype(float), width) > 0.8)).any():
            return True
    return False


def _levels(samples: np.ndarray) -> np.ndarray:
    """The level of every 20 ms, (T // HOP,) in dB to full scale."""
    frames = samples[: len(samples) // HOP * HOP].reshape(-1, HOP).astype(np.float64)
    return 10 * np.log10(np.square(frames).mean(1) + 1e-12)


def _spectra(samples: np.ndarray) -> np.ndarray:
    """Logarithms of energies in mel bands every 20 ms, (frames, BANDS), floored 50 dB below the loudest frame."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::HOP] * np.hanning(400).astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(frames, 512)))
    energies = np.add.reduceat(power, _edges(), axis=1)
    return np.log(energies + energies.sum(1).max() * 1e-5 / BANDS + 1e-12)


@cache
def _edges() -> np.ndarray:
    """The first bin of each band, evenly spaced on the mel scale from 60 Hz, none empty."""
    hertz = 700 * np.expm1(np.linspace(np.log1p(60 / 700), np.log1p(RATE / 2 / 700), BANDS, endpoint=False))
    edges = np.round(hertz * 512 / RATE).astype(int)
    return np.maximum.accumulate(edges - np.arange(BANDS)) + np.arange(BANDS)


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    sums = np.cumsum(np.r_[0.0, values])
    return (sums[width:] - sums[:-width]) / width

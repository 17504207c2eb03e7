"""The fundamental of speech by YIN (de Cheveigné and Kawahara, JASA 111, 2002), in numpy.

It gives what `librosa.yin` gives. That one needs numba, which compiles for 20 s in a new environment, and whose cache
has crashed processes that start together.
"""

import numpy as np

THRESHOLD = 0.1  # a dip below it ends the search for the period


def yin(frames: np.ndarray, lowest: float, highest: float, rate: int) -> np.ndarray:
    """The fundamental of each frame in Hz, whether it is voiced or not.

    Args:
        frames: (T, N) samples.
        lowest, highest: bounds of the fundamental, in Hz.
        rate: samples a second.

    Returns:
        (T,) Hz.
    """
    size = frames.shape[1]
    first, last = int(rate / highest), min(int(np.ceil(rate / lowest)), size - 1)
    likeness = np.fft.irfft(np.square(np.abs(np.fft.rfft(frames, 2 * size))))[:, : last + 1]
    energy = np.cumsum(np.square(frames), 1)
    # Difference from the frame itself, later by 1 to `last` samples (equation 7), then over its running mean (8).
    difference = 2 * (likeness[:, :1] - likeness[:, 1:]) - energy[:, :last]
    mean = np.cumsum(difference, 1) / np.arange(1, last + 1)
    dips = difference[:, first - 1 :] / (mean[:, first - 1 :] + np.finfo(frames.dtype).tiny)
    # The first dip that is deep enough, or else the deepest place.
    before, after = np.full_like(dips, np.inf), np.full_like(dips, np.inf)
    before[:, 1:], after[:, :-1] = dips[:, :-1], dips[:, 1:]
    deep = (dips < before) & (dips <= after) & (dips < THRESHOLD)
    deep[:, -1] = False
    place = np.where(deep.any(1), deep.argmax(1), dips.argmin(1))
    # The lowest point of a parabola through the place and its neighbours, if it lies between these.
    inner = np.clip(place, 1, dips.shape[1] - 2)
    left, middle, right = (dips[np.arange(len(dips)), inner + step] for step in (-1, 0, 1))
    slope, bend = (right - left) / 2, left + right - 2 * middle
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where((np.abs(slope) < np.abs(bend)) & (place == inner), -slope / bend, 0.0)
    return rate / (first + place + shift)

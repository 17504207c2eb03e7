"""Makes speech faster or slower without changing its pitch, as it arrives.

The method is WSOLA (Verhelst and Roelands, 1993): windows of the sound are laid over one another at another distance,
each taken from where, near its place, it best goes on from the one before.
"""

import numpy as np

from llasa.errors import LlasaError

SLOWEST, FASTEST = 0.25, 4.0
WINDOW = 0.03  # seconds; two periods of the deepest voices
REACH = 0.0125  # seconds that a window is moved by at most, either way; in all two periods of the deepest voices
FLOOR = 1e-6  # of the energy of full scale; in silence, nothing is moved to match its rounding noise


def check_speed(speed: float) -> float:
    """The speed itself.

    Raises:
        LlasaError: it is not from 0.25 to 4.
    """
    if not SLOWEST <= speed <= FASTEST:  # true for NaN as well
        raise LlasaError(f"the speed is {speed:g}: it must be from {SLOWEST:g} to {FASTEST:g}, and 1 changes nothing")
    return speed


def stretch(samples: np.ndarray, rate: int, speed: float) -> np.ndarray:
    """Samples (N,) at another speed: (round(N / speed),) float32, at the pitch that they have.

    Raises:
        LlasaError: the speed is not from 0.25 to 4.
    """
    stretcher = Stretcher(rate, speed)
    return np.concatenate([stretcher.push(samples), stretcher.finish()])


class Stretcher:
    """Stretches a sound piece by piece. What it gives in all does not depend on the pieces.

    It holds back about 60 ms of what it got. At speed 1 it gives back what it gets, at once.

    Args:
        rate: Hz.
        speed: how many times as fast the result is, from 0.25 to 4.

    Raises:
        LlasaError: the speed is out of range.
    """

    def __init__(self, rate: int, speed: float) -> None:
        self._speed = check_speed(speed)
        self._hop = max(1, round(WINDOW * rate / 2))  # samples between two windows of the result
        self._reach = round(REACH * rate)
        # Windows that overlap by half add up to 1.
        self._fade = (0.5 - 0.5 * np.cos(np.pi * (np.arange(self._hop) + 0.5) / self._hop)).astype(np.float32)
        self._held = np.empty(0, np.float32)  # samples from `_start` on
        self._start = 0
        self._windows = 0  # how many have been taken
        self._next = 0  # where the last window would go on
        self._given = 0  # samples of the result so far

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Takes samples (N,) and returns those of the result that no later ones can change: (M,) float32."""
        samples = np.asarray(samples, np.float32)
        if self._speed == 1:
            return samples
        self._held = np.concatenate([self._held, samples])
        return self._take(self._start + len(self._held))

    def finish(self) -> np.ndarray:
        """The rest of the result (M,) float32, which then has its exact length. Nothing may be pushed after it."""
        if self._speed == 1:
            return np.empty(0, np.float32)
        end = self._start + len(self._held)
        rest = round(end / self._speed) - self._given
        self._held = np.concatenate([self._held, np.zeros(round(4 * self._hop * FASTEST), np.float32)])
        return self._take(self._start + len(self._held))[:rest]

    def _take(self, end: int) -> np.ndarray:
        """Lays windows as long as the samples before `end` suffice."""
        done = []
        while True:
            place = round(self._windows * self._hop * self._speed)
            needed = max(place + self._reach, self._next) + 2 * self._hop
            if max(needed, (self._windows + 1) * self._hop * self._speed) > end:  # no more than its share
                break
            done.append(self._lay(place))
            self._windows += 1
        kept = min(self._next, round(self._windows * self._hop * self._speed) - self._reach)
        self._held = self._held[max(0, kept - self._start) :]
        self._start = max(self._start, kept)
        result = np.concatenate([np.empty(0, np.float32), *done])
        self._given += len(result)
        return result

    def _lay(self, place: int) -> np.ndarray:
        """The next half window of the result: the end of the last window fades into the start of one near `place`."""
        fading = self._slice(self._next, self._hop)
        start = self._best(place) if self._windows else place
        self._next = start + self._hop
        opening = self._slice(start, self._hop)
        return fading * self._fade[::-1] + opening * self._fade if self._windows else opening

    def _best(self, place: int) -> int:
        """Where, no further than the reach from `place`, a window is most like what follows the last one."""
        size = 2 * self._hop
        first = max(place - self._reach, 0)
        wanted = self._slice(self._next, size).astype(np.float64)
        among = self._slice(first, place + self._reach - first + size).astype(np.float64)
        products = np.correlate(among, wanted, "valid")
        sums = np.concatenate([[0.0], np.cumsum(among**2)])
        likeness = products / np.sqrt(sums[size:] - sums[:-size] + FLOOR * size)
        if likeness.max() <= np.sqrt(FLOOR * size):
            return place
        return first + int(likeness.argmax())

    def _slice(self, start: int, size: int) -> np.ndarray:
        return self._held[start - self._start : start - self._start + size]

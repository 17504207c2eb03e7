"""Cuts a recording of any length into windows of speech that a model can hear at once.

Windows begin and end in pauses. Speech without a pause is cut where it is quietest. No two windows overlap, and what
lies between them is no speech, so no word is heard twice, and none is lost.
"""

from collections.abc import Iterator

import numpy as np

from llasa.reference import find_speech, without_rumble

HEARD = 60.0  # seconds of a recording that are looked at together
APART = 1.5  # seconds; a longer pause ends a window
SHORTEST = 0.5  # of the longest window: the least that is cut off from speech without a pause
QUIET = 0.1  # seconds over which the quietest place is sought


def windows(samples: np.ndarray, rate: int, longest: float) -> Iterator[list[tuple[int, int]]]:
    """Yields the windows of speech, (start, stop) in samples, in order: those of the next minute at a time.

    Beyond the recording itself, memory is bounded. Silence and noise have no windows.

    Args:
        samples: (N,) mono.
        rate: Hz.
        longest: seconds that a window may last; at most half of HEARD.
    """
    start, size, ending = 0, round(HEARD * rate), rate
    while start < len(samples):
        stop = min(len(samples), start + size)
        part = without_rumble(samples[start:stop], rate)
        found = [(start + a, start + b) for a, b in cut(part, find_speech(part, rate), rate, longest)]
        start = stop
        if stop < len(samples):
            # What comes near the end of this minute may go on in the next, which therefore begins with it.
            start = found.pop()[0] if found and found[-1][1] > stop - ending else stop - ending
        yield found


def cut(samples: np.ndarray, speech: list[tuple[int, int]], rate: int, longest: float) -> Iterator[tuple[int, int]]:
    """Yields windows of up to `longest` seconds: neighbouring stretches of speech together, long ones in parts.

    Args:
        speech: (start, stop) of each stretch, in order.
    """
    most, pause, window = round(longest * rate), round(APART * rate), list[int]()
    for start, stop in speech:
        if window and stop - window[0] <= most and start - window[1] <= pause:
            window[1] = stop
            continue
        if window:
            yield window[0], window[1]
        while stop - start > most:
            middle = quietest(samples, rate, start + round(SHORTEST * most), start + most)
            yield start, middle
            start = middle
        window = [start, stop]
    if window:
        yield window[0], window[1]


def quietest(samples: np.ndarray, rate: int, first: int, last: int) -> int:
    """The middle of the quietest tenth of a second between two places."""
    width = round(QUIET * rate)
    sums = np.cumsum(np.square(samples[first:last], dtype=np.float64))
    return first + width // 2 + int(np.argmin(sums[width:] - sums[:-width]))

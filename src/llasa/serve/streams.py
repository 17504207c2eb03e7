"""One listener: what is being read to it, what it has heard, and when it would run dry."""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from llasa.speak.rows import Line
from llasa.speak.stream import Part, Reading, Sounding

# What a listener is given: samples (N,) float32; then None, or the error that ended the stream.
Sound = np.ndarray | Exception | None

REAL_TIME = 50.0  # codes a second that are heard
SOON = 0.1  # seconds of sound left, with which a listener comes before one who has heard nothing


@dataclass(eq=False)
class Stream:
    """A request that is read to a client.

    The engine's thread writes `line` and adds to `parts`; the codec's thread takes from `parts` and writes the rest.

    Attributes:
        client: whose it is, for fairness.
        reading: what is left to generate.
        sounding: makes sound of its parts.
        rate: Hz.
        speed: how many times as fast it is played.
        deliver: called with each `Sound`, from the codec's thread.
        line: the take in the engine's rows.
        parts: what is to be decoded; at the end None, or an error.
        made: seconds of sound decoded.
        taken: seconds of sound that the client has got.
        began: when it was asked for, a time of `time.monotonic`.
        start: when its first sound may go out; no time yet to begin with.
        heard: when its first sound went out.
        gaps: how often a sound came later than the one before it was heard out.
        cancelled: whether nobody wants it any more.
    """

    client: str
    reading: Reading
    sounding: Sounding
    rate: int
    speed: float
    deliver: Callable[[Sound], None]
    line: Line | None = None
    parts: deque[Part | Exception | None] = field(default_factory=deque)
    made: float = 0.0
    taken: float = 0.0
    began: float = field(default_factory=time.monotonic)
    start: float = math.inf
    heard: float | None = None
    gaps: int = 0
    cancelled: bool = False
    _held: list[np.ndarray] = field(default_factory=list)

    def urgency(self, now: float) -> tuple[float, float]:
        """Sorts streams, the most urgent first: who would soon run dry, then who has heard nothing, then the rest."""
        return (now + SOON, self.began) if self.heard is None else (self.heard + self.made, 0.0)

    @property
    def ahead(self) -> float:
        """Seconds of sound that wait for the client."""
        return self.made - self.taken

    def slack(self, now: float, pace: float, prefill: float) -> float:
        """Seconds by which the sounds to come are early at the tightest moment, if the first one goes out by now.

        Args:
            pace: codes a second that its row will get.
            prefill: seconds until it gets the first, should its next line not have begun.
        """
        # At the beginning of a piece, the decoder keeps the sound of some codes until more of them come.
        kept = self.sounding.lookahead if not self.made or self.reading.fresh else 0
        waiting = sum(len(part.codes) for part in self.parts if isinstance(part, Part)) - kept
        real = REAL_TIME * self.speed
        ahead = self.made + waiting / real + (0.0 if self.heard is None else self.heard - now)
        if self.reading.line is None:
            return ahead
        needed = self.reading.missing / pace + (prefill if self.reading.line is not self.line else 0.0)
        least = ahead - needed
        for size, following in pairwise(self.reading.sizes):
            ahead, needed = ahead + size / real, needed + following / pace
            least = min(least, ahead - needed)
        return least

    def hear(self, samples: np.ndarray) -> None:
        """Delivers a sound (N,), perhaps of no samples. The first ones are held until it is `start`."""
        if not len(samples):
            return
        before = self.made
        self.made += len(samples) / self.rate
        if self.heard is None:
            self._held.append(samples)
            return
        late = time.monotonic() - self.heard - before
        if late > 0:
            self.gaps += 1
            self.heard += late
        self.deliver(samples)

    def end(self, error: Exception | None) -> None:
        """Delivers the end."""
        self.release()
        self.deliver(error)

    @property
    def held(self) -> bool:
        """Whether it has sound, and has heard nothing."""
        return bool(self._held)

    def release(self) -> None:
        """Delivers what was held."""
        if self._held:
            self.heard = time.monotonic()
            for samples in self._held:
                self.deliver(samples)
        self._held.clear()

"""One listener: what is being read to it, what it has heard, and when it would run dry."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from llasa.speak.rows import Line
from llasa.speak.stream import Part, Reading, Sounding

# What a listener is given: samples (N,) float32; then None, or the error that ended the stream.
Sound = np.ndarray | Exception | None

REAL_TIME = 50.0  # codes a second that are heard
SURE = 1.25  # how much longer the next sound may take than it should, at the start, without a gap


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
    heard: float | None = None
    gaps: int = 0
    cancelled: bool = False
    _held: list[np.ndarray] = field(default_factory=list)

    @property
    def due(self) -> float:
        """When it runs dry; if it has heard nothing, when it began. The least is the most urgent."""
        return self.began if self.heard is None else self.heard + self.made

    @property
    def ahead(self) -> float:
        """Seconds of sound that wait for the client."""
        return self.made - self.taken

    def hear(self, samples: np.ndarray, pace: float) -> None:
        """Delivers a sound. The first waits until the next will surely come before it has been heard out.

        Args:
            samples: (N,), perhaps none.
            pace: codes a second that each row gets now.
        """
        if not len(samples):
            return
        before = self.made
        self.made += len(samples) / self.rate
        if self.heard is None:
            self._held.append(samples)
            # Where codes come slower than they are heard there will be gaps, so waiting does not help.
            if pace < REAL_TIME * self.speed or self.made >= SURE * max(0, self.reading.missing) / pace:
                self._release()
            return
        late = time.monotonic() - self.heard - before
        if late > 0:
            self.gaps += 1
            self.heard += late
        self.deliver(samples)

    def end(self, error: Exception | None) -> None:
        """Delivers the end."""
        self._release()
        self.deliver(error)

    def _release(self) -> None:
        if self.heard is None and self._held:
            self.heard = time.monotonic()
            for samples in self._held:
                self.deliver(samples)
        self._held.clear()

"""What a search did and what it cost: every candidate with its scores, tokens and seconds; which is the best."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

SILENT = np.empty(0, np.float32)


@dataclass(eq=False)
class Candidate:
    """One way of saying a chunk of the text.

    Attributes:
        chunk: number of the chunk in the text, from 0.
        number: of the candidate within its chunk, in the order in which they were sampled.
        codes: (T,) uint16.
        finished: whether the model came to an end by itself.
        distance: how far its length is from what was to be expected (`planning.Piece.distance`).
        condemned: what `sanity` found wrong with it, in words, or None.
        scores: of each verifier, by name.
        stages: of a cascade of verifiers that judged it.
        key: what the scores come to (`verifiers.combine.Judge.key`); (0, 0, 0.0) where nobody judged it.
        chosen: whether it is the one that was taken.
        samples: (N,) float32, as the verifiers heard it, while the search goes on; empty afterwards.
    """

    chunk: int
    number: int
    codes: np.ndarray
    finished: bool
    distance: float = 0.0
    condemned: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    stages: int = 0
    key: tuple[int, int, float] = (0, 0, 0.0)
    chosen: bool = False
    samples: np.ndarray = field(default_factory=lambda: SILENT)

    @property
    def sound(self) -> bool:
        """Whether it came to an end and nothing is wrong with it."""
        return self.finished and self.condemned is None

    @property
    def rank(self) -> tuple[bool, bool, tuple[int, int, float], float, int]:
        """For comparing candidates of a chunk, the greatest is the best: sound ones by their scores, of equals the
        likeliest length, then the first; unfinished ones; and condemned ones, the likeliest length first."""
        condemned = self.condemned is not None
        return not condemned, self.sound, (0, 0, 0.0) if condemned else self.key, -self.distance, -self.number


@dataclass(eq=False)
class Account:
    """A search's account, `Speech.search`.

    Attributes:
        strategy, verify: what was asked for, as it is written on the command line.
        texts: the chunks, in order.
        candidates: of all chunks, in order; those that a beam left behind too, as far as they had got.
        tokens: sampled in all, those of rows that were dropped included.
        rows: sequences begun or forked.
        seconds: spent in "lm", "codec" and "verifier".
        notes: what the user should know, such as a verifier that failed; a line each.
    """

    strategy: str
    verify: str
    texts: list[str] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    tokens: int = 0
    rows: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"lm": 0.0, "codec": 0.0, "verifier": 0.0})
    notes: list[str] = field(default_factory=list)


def best(candidates: Iterable[Candidate]) -> Candidate | None:
    """What a search takes of these: the highest rank that came to an end or is condemned; None if there is none."""
    ended = [one for one in candidates if one.sound or (one.condemned and len(one.codes))]
    return max(ended, key=lambda one: one.rank, default=None)

"""Records what a search did and what it cost: every candidate with its scores, the tokens and the seconds spent.

`best` picks the best of several candidates.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

SILENT = np.empty(0, np.float32)


@dataclass(eq=False)
class Candidate:
    """One spoken version of a chunk of the text.

    Attributes:
        chunk: number of the chunk in the text, from 0.
        number: number of the candidate within its chunk, in the order of sampling.
        codes: (T,) uint16.
        finished: whether the model ended it with the end token.
        distance: how far its length is from the expected one (`speak.plan.Piece.distance`).
        condemned: what `sanity` found wrong with it, in words, or None.
        scores: the score of each verifier, by the verifier's name.
        stages: how many stages of a cascade of verifiers have scored it.
        key: all scores combined, for sorting (`verifiers.combine.Scorer.key`); (0, 0, 0.0) without scores.
        chosen: whether the search chose it.
        samples: (N,) float32, as the verifiers heard it, while the search runs; empty afterwards.
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
        """Whether it is finished and nothing is wrong with it."""
        return self.finished and self.condemned is None

    @property
    def rank(self) -> tuple[bool, bool, tuple[int, int, float], float, int]:
        """Sorts the candidates of a chunk; the greatest is the best.

        Sound candidates come first, then unfinished ones, then condemned ones. Sound and unfinished ones are compared
        by score, then by likeliest length, then by number; condemned ones by length and number only.
        """
        condemned = self.condemned is not None
        return not condemned, self.sound, (0, 0, 0.0) if condemned else self.key, -self.distance, -self.number


@dataclass(eq=False)
class Account:
    """The account of a search; `Speech.search` holds it.

    Attributes:
        strategy, verify: the search and the verifiers asked for, as written on the command line.
        texts: the chunks, in order.
        candidates: the candidates of all chunks, in order, including the unfinished ones that a beam dropped.
        tokens: how many tokens were sampled in all, including those of dropped rows.
        rows: how many sequences were begun or forked.
        seconds: time spent in "lm", "codec" and "verifier".
        notes: lines that the user should read.
        failures: lines that say which verifier failed, for some texts or for the rest of the search.
    """

    strategy: str
    verify: str
    texts: list[str] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    tokens: int = 0
    rows: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"lm": 0.0, "codec": 0.0, "verifier": 0.0})
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def best(candidates: Iterable[Candidate]) -> Candidate | None:
    """The candidate of the highest rank that is sound, or condemned with codes; None if there is none."""
    ended = [one for one in candidates if one.sound or (one.condemned and len(one.codes))]
    return max(ended, key=lambda one: one.rank, default=None)

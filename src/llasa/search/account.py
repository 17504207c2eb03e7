"""What a search did and what it cost: every candidate with its scores, tokens, rows and seconds."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(eq=False)
class Candidate:
    """One way of saying a chunk of the text.

    Attributes:
        chunk: number of the chunk in the text, from 0.
        number: of the candidate within its chunk, in the order in which they were sampled.
        codes: (T,) uint16.
        samples: (N,) float32, as the codec decoded them; empty if it was condemned before that.
        finished: whether the model came to an end by itself.
        condemned: what `sanity` found wrong with it, in words, or None.
        scores: of each verifier, by name.
        total: the scores as they were weighed.
        chosen: whether it is the one that was taken.
    """

    chunk: int
    number: int
    codes: np.ndarray
    samples: np.ndarray
    finished: bool
    condemned: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    total: float = 0.0
    chosen: bool = False


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

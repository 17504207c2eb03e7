"""What a search works with and what it is to say. Knows models, judges and chunks; knows nothing of strategies."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from llasa.codec import Codec
from llasa.engine import Engine, Sampling
from llasa.planning import Piece
from llasa.search.account import Account
from llasa.speaking import take_seed
from llasa.verifiers.combine import Judge
from llasa.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Tools:
    """What searches work with: the models, the judge, how many rows may run at once, and the account to write."""

    engine: Engine
    vocabulary: Vocabulary
    codec: Codec
    judge: Judge
    rows: int
    account: Account


@dataclass(frozen=True, eq=False)
class Task:
    """A chunk to be said.

    Attributes:
        piece: the chunk, with its prompt.
        number: of the chunk in the text.
        reference: (R,) float32 at the codec's rate, whom it should sound like; None if that is open.
        seed: of the whole text; candidate i of a best-of-n is what `say` speaks at its try i.
        sampling: how tokens are picked.
        deadline: of `time.perf_counter`, after which no more is sampled than one candidate needs; None for no hurry.
        on_tokens: called with the number of tokens in the account, those of chunks before this one included.
    """

    piece: Piece
    number: int
    reference: np.ndarray | None
    seed: int
    sampling: Sampling
    deadline: float | None = None
    on_tokens: Callable[[int], None] = lambda count: None

    @property
    def late(self) -> bool:
        """Whether time is up."""
        return self.deadline is not None and time.perf_counter() > self.deadline

    def seeds(self, numbers: Sequence[int]) -> list[int]:
        """Those of candidates."""
        return [take_seed(self.seed, self.number, number) for number in numbers]


@contextmanager
def timed(tools: Tools, what: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        tools.account.seconds[what] += time.perf_counter() - began

"""Defines what a search works with (`Tools`) and what it has to say (`Task`)."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from llasa.codec import Codec
from llasa.engine import Backend, Sampling
from llasa.search.strategy import Strategy
from llasa.speak.account import Account
from llasa.speak.plan import Piece
from llasa.speak.request import take_seed
from llasa.verifiers import Verifier
from llasa.verifiers.combine import Scorer, Verify, make_scorer
from llasa.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Tools:
    """What every search needs: the models, the scorer, and the account to write."""

    backend: Backend
    vocabulary: Vocabulary
    codec: Codec
    scorer: Scorer
    account: Account


@dataclass(frozen=True, eq=False)
class Task:
    """A chunk to be said.

    Attributes:
        piece: the chunk, with its prompt.
        number: number of the chunk in the text, from 0.
        reference: (R,) float32 at the codec's rate, the recording that it should sound like; None without a voice.
        seed: the seed of the whole text; candidate i of a best-of-n is what `say` would speak at attempt i.
        sampling: how tokens are picked.
        deadline: a time of `time.perf_counter`, after which only one candidate is still finished; None for no deadline.
        on_tokens: called with the number of tokens in the account, which include those of earlier chunks.
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
        """The seeds of the candidates of these numbers."""
        return [take_seed(self.seed, self.number, number) for number in numbers]


def make_tools(
    backend: Backend, vocabulary: Vocabulary, codec: Codec, strategy: Strategy, verify: Verify,
    load: Callable[[str], Verifier],
) -> Tools:  # fmt: skip
    """The models, the verifiers and the account for a search.

    Args:
        verify: describes the verifiers.
        load: loads a verifier by its name.

    Raises:
        LlasaError: as `make_scorer`.
    """
    scorer = make_scorer(verify, load, beam=strategy.keep > 0)
    return Tools(backend, vocabulary, codec, scorer, Account(str(strategy), scorer.written))


@contextmanager
def timed(tools: Tools, what: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        tools.account.seconds[what] += time.perf_counter() - began

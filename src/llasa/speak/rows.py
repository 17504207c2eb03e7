"""Runs takes of pieces together, each in a row of one state of the backend.

Speaking a text at once, as a stream and for many clients differ in when a take begins and in what becomes of its codes.
How rows are started, joined, read and dropped is the same, and lies here.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from llasa.engine import Backend, Sampling, State
from llasa.speak.plan import Piece
from llasa.vocabulary import Vocabulary


@dataclass(eq=False)
class Line:
    """A take under way.

    Attributes:
        piece: what is said.
        seed: of its random numbers.
        sampling: how its tokens are picked.
        tokens: ids so far, at most as many as the piece may have.
        finished: whether the model ended it with the end token.
        ended: whether it gets no more tokens.
    """

    piece: Piece
    seed: int
    sampling: Sampling
    tokens: list[int] = field(default_factory=list)
    finished: bool = False
    ended: bool = False

    def codes(self, vocabulary: Vocabulary, first: int = 0) -> np.ndarray:
        """Its codes so far from number `first` on, (T,) uint16."""
        return vocabulary.codes(self.tokens[first:])


class Rows:
    """Lines that run together, and the state of the backend that they are rows of.

    What a line becomes does not depend on the lines beside it.

    Attributes:
        lines: those that have not ended.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._state: State | None = None
        self._places: list[Line | None] = []  # the line of each row of the state; None once it has ended

    @property
    def lines(self) -> list[Line]:
        return [line for line in self._places if line is not None]

    def start(self, lines: Sequence[Line]) -> None:
        """Adds lines without tokens. Raises as `Backend.start`, and then adds none."""
        fresh: State | None = None
        order: list[Line] = []
        for sampling, group in groupby(lines, key=lambda line: line.sampling):
            some = list(group)
            pieces = [line.piece for line in some]
            state = self.backend.start(
                [piece.prompt for piece in pieces], 1, [line.seed for line in some], sampling,
                max(piece.limit for piece in pieces), [piece.least for piece in pieces],
            )  # fmt: skip
            fresh = self.backend.merge(fresh, state) if fresh else state
            order += some
        if fresh is None:
            return
        # Joining may copy every row, so those that have ended are left out before that rather than as each ends.
        if len(self.lines) < len(self._places):
            self._keep(self.lines)
        self._state = self.backend.merge(self._state, fresh) if self._state else fresh
        self._places += order

    def extend(self, tokens: int) -> list[Line]:
        """Samples up to `tokens` more tokens of every line. Returns those that have ended now.

        Raises:
            LlasaError: the model's output is NaN.
        """
        if self._state is None:
            return []
        state = self._state = self.backend.extend(self._state, tokens)
        ended, overdue = [], False
        for place, line in enumerate(self._places):
            if line is None:
                continue
            own, limit = state.tokens[place], line.piece.limit
            line.tokens = own[:limit]
            line.finished = state.finished[place] and len(own) <= limit
            if state.stopped[place] or len(own) >= limit:
                line.ended = True
                overdue = overdue or not state.stopped[place]
                ended.append(line)
                self._places[place] = None
        if overdue or not self.lines:  # the backend would go on with a row that only its piece's limit has stopped
            self._keep(self.lines)
        return ended

    def drop(self, lines: Collection[Line]) -> None:
        """Leaves lines out, wherever they are."""
        if any(line in lines for line in self.lines):
            self._keep([line for line in self.lines if line not in lines])

    def _keep(self, lines: list[Line]) -> None:
        rows = [place for place, line in enumerate(self._places) if line in lines]
        self._state = self.backend.select(self._state, rows) if rows else None
        self._places = list(lines)

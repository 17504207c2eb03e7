"""Generates the codes of pieces of text: several pieces at once, and again those whose take went wrong."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llasa.engine import Backend, State
from llasa.speak.plan import Piece
from llasa.speak.request import Request, take_seed

ATTEMPTS = 3  # how often a piece is spoken before the best take is kept
STEP = 25  # codes between two checks for rows that have stopped
ROWS = 16  # rows that run at once, unless memory is short


@dataclass(frozen=True, eq=False)
class Take:
    """One attempt at a piece: its codes (T,) uint16, and whether the model ended it with the end token."""

    codes: np.ndarray
    finished: bool


def row_count(backend: Backend, width: int) -> int:
    """How many rows of `width` tokens to run at once: `ROWS`, or as many as fit half the free memory; at least 1."""
    return max(1, min(ROWS, backend.rows_that_fit(width) // 2))  # the codec needs some room too


def takes(
    backend: Backend, request: Request, pieces: list[Piece], first: int = 0, spoken: int = 0, before: int = 0
) -> Iterator[Take]:
    """Yields the best take of each piece, in order, each as soon as it and all before it are settled.

    `row_count` pieces run at once; whenever one stops, the next takes its row. A piece that ends too soon, runs away or
    never ends is tried again, `ATTEMPTS` times in all.

    Args:
        pieces: pieces of the request.
        first: number of the first piece in the text, from which the seeds follow.
        spoken: codes of the chunks before them, for the progress.
        before: how many attempts at these pieces there may have been; this makes others.
    """
    sampling, vocabulary = request.sampling, request.planner.vocabulary
    rows = row_count(backend, max((len(piece.prompt) + piece.limit for piece in pieces), default=1))
    attempts = ATTEMPTS if sampling.temperature > 0 else 1  # a greedy take would only repeat itself
    waiting = deque(range(len(pieces)))
    running: list[int] = []  # the index of the piece in each row of the state
    tries = [0] * len(pieces)
    best: dict[int, Take] = {}
    lengths = [0.0] * len(pieces)  # codes: of the best take once a piece is settled, before that so far
    unsettled = set(waiting)
    state: State | None = None
    following = 0
    while following < len(pieces):
        if new := [waiting.popleft() for _ in range(min(len(waiting), rows - len(running)))]:
            seeds = [take_seed(request.seed, first + i, before + tries[i]) for i in new]
            longest = max(pieces[i].limit for i in new)
            least = [pieces[i].least for i in new]
            fresh = backend.start([pieces[i].prompt for i in new], 1, seeds, sampling, longest, least)
            state = backend.merge(state, fresh) if state else fresh
            running += new
        assert state is not None  # a piece is unsettled, so a row is running
        state = backend.extend(state, STEP)
        unfinished = []
        for row, i in enumerate(running):
            piece, tokens = pieces[i], state.tokens[row]
            lengths[i] = min(len(tokens), piece.limit)
            if not state.stopped[row] and len(tokens) < piece.limit:
                unfinished.append(row)
                continue
            tries[i] += 1
            take = Take(vocabulary.codes(tokens[: piece.limit]), state.finished[row] and len(tokens) <= piece.limit)
            best[i] = min(best.get(i, take), take, key=lambda t: piece.distance(len(t.codes), t.finished))
            if tries[i] == attempts or piece.is_plausible(len(take.codes), take.finished):
                unsettled.discard(i)
                lengths[i] = len(best[i].codes)
            else:
                waiting.appendleft(i)
        if len(unfinished) < len(running):
            running = [running[row] for row in unfinished]
            state = backend.select(state, unfinished) if unfinished else None
        rest = sum(max(0.0, pieces[i].expected - lengths[i]) for i in unsettled)
        request.report(spoken + sum(lengths), rest, first + len(pieces))
        while following < len(pieces) and following not in unsettled:
            yield best.pop(following)
            following += 1

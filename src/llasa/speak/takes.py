"""Generates the codes of pieces of text: several pieces at once, and again those whose take went wrong."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llasa.engine import Backend
from llasa.speak.plan import Piece
from llasa.speak.request import Request, take_seed
from llasa.speak.rows import Line, Rows

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
    most = row_count(backend, max((len(piece.prompt) + piece.limit for piece in pieces), default=1))
    attempts = ATTEMPTS if sampling.temperature > 0 else 1  # a greedy take would only repeat itself
    waiting = deque(range(len(pieces)))
    rows = Rows(backend)
    running: dict[int, Line] = {}  # by the index of the piece
    tries = [0] * len(pieces)
    best: dict[int, Take] = {}
    lengths = [0.0] * len(pieces)  # codes: of the best take once a piece is settled, before that so far
    unsettled = set(waiting)
    following = 0
    while following < len(pieces):
        new = [waiting.popleft() for _ in range(min(len(waiting), most - len(running)))]
        fresh = {i: Line(pieces[i], take_seed(request.seed, first + i, before + tries[i]), sampling) for i in new}
        rows.start(list(fresh.values()))
        running |= fresh
        rows.extend(STEP)
        for i, line in list(running.items()):
            piece = pieces[i]
            lengths[i] = len(line.tokens)
            if not line.ended:
                continue
            del running[i]
            tries[i] += 1
            take = Take(line.codes(vocabulary), line.finished)
            best[i] = min(best.get(i, take), take, key=lambda t: piece.distance(len(t.codes), t.finished))
            if tries[i] == attempts or piece.is_plausible(len(take.codes), take.finished):
                unsettled.discard(i)
                lengths[i] = len(best[i].codes)
            else:
                waiting.appendleft(i)
        rest = sum(max(0.0, pieces[i].expected - lengths[i]) for i in unsettled)
        request.report(spoken + sum(lengths), rest, first + len(pieces))
        while following < len(pieces) and following not in unsettled:
            yield best.pop(following)
            following += 1

"""Pieces of text to codes: several at once for a whole text, or one after the other as they are streamed.

Knows the engine's three verbs, seeds, and what to do with a take that went wrong; knows nothing of text or sound.
"""

import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from llasa.engine import Engine, Sampling, State
from llasa.errors import LlasaError
from llasa.planning import Piece
from llasa.vocabulary import Vocabulary

ATTEMPTS = 3  # times that a piece is spoken before the best take is kept
STEP = 25  # codes between two looks at which rows have stopped
ROWS = 16  # rows under way at once, unless their KV caches would take more than
SHARE = 0.25  # of the memory that is free: a row is there twice while it is copied, and the codec needs some too
# Codes between two pieces of streamed audio: the first soon, the later ones cheap.
FIRST_CODES, SECOND_CODES, MORE_CODES = 20, 30, 50


@dataclass(frozen=True, eq=False)
class Take:
    """One try at a piece: codes (T,) uint16, and whether the model came to an end by itself."""

    codes: np.ndarray
    finished: bool


def draw_seed(seed: int | None) -> int:
    """The seed as given, or a random one.

    Raises:
        LlasaError: it is negative.
    """
    if seed is None:
        return secrets.randbits(31)
    if seed < 0:
        raise LlasaError(f"the seed is {seed}: it must be 0 or more")
    return seed


def take_seed(seed: int, piece: int, attempt: int) -> int:
    """The seed of one try at one piece, so that the whole text follows from one number."""
    return int(np.random.SeedSequence([seed, piece, attempt]).generate_state(1)[0])


def row_count(engine: Engine, width: int) -> int:
    """How many rows of `width` tokens to run at once: as many as fit into `SHARE` of the free memory, 16 at most."""
    return max(1, min(ROWS, *(int(SHARE * free) // row for row, free in cache_memory(engine, width))))


def cache_memory(engine: Engine, width: int) -> list[tuple[int, int]]:
    """For each device of the model: bytes that the KV cache of a row of `width` tokens takes there, and bytes free."""
    llama = engine.llama
    layer = 2 * llama.kv_heads * llama.head_size * llama.dtype.itemsize * width
    layers = Counter(part.device for part in llama.layers)
    return [(layer * count, _free_memory(device)) for device, count in layers.items()]


def _free_memory(device: torch.device) -> int:
    """Bytes; on a GPU, those that torch holds and does not use are free too."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + held


def takes(
    engine: Engine,
    vocabulary: Vocabulary,
    pieces: list[Piece],
    seed: int,
    sampling: Sampling,
    rows: int,
    offset: int = 0,
    on_progress: Callable[[float, float], None] | None = None,
) -> Iterator[Take]:
    """The best take of each piece, in order, each as soon as it and all before it are settled.

    Up to `rows` pieces are under way at once, fewer where memory is short; whenever one stops, the next takes its row.
    A piece that ends too soon, runs away or never ends is tried again, `ATTEMPTS` times in all.

    Args:
        seed: of the whole text.
        offset: number of pieces before these, for their seeds.
        on_progress: called with the number of codes so far and about how many there will be.
    """
    rows = min(rows, row_count(engine, max((len(piece.prompt) + piece.limit for piece in pieces), default=1)))
    attempts = ATTEMPTS if sampling.temperature > 0 else 1  # a greedy take would only repeat itself
    waiting = deque(range(len(pieces)))
    running: list[int] = []  # which piece each row of the state is
    tries = [0] * len(pieces)
    best: dict[int, Take] = {}
    lengths = [0.0] * len(pieces)  # codes: of what is settled, else so far
    unsettled = set(waiting)
    state: State | None = None
    following = 0
    while following < len(pieces):
        if new := [waiting.popleft() for _ in range(min(len(waiting), rows - len(running)))]:
            seeds = [take_seed(seed, offset + i, tries[i]) for i in new]
            longest = max(pieces[i].limit for i in new)
            least = [pieces[i].least for i in new]
            fresh = engine.start([pieces[i].prompt for i in new], 1, seeds, sampling, longest, least)
            state = engine.merge(state, fresh) if state else fresh
            running += new
        assert state is not None  # something is unsettled, so something is under way
        state = engine.extend(state, STEP)
        going = []
        for row, i in enumerate(running):
            piece, tokens = pieces[i], state.tokens[row]
            lengths[i] = min(len(tokens), piece.limit)
            if not state.stopped[row] and len(tokens) < piece.limit:
                going.append(row)
                continue
            tries[i] += 1
            take = Take(vocabulary.codes(tokens[: piece.limit]), state.finished[row] and len(tokens) <= piece.limit)
            best[i] = min(best.get(i, take), take, key=lambda t: piece.distance(len(t.codes), t.finished))
            if tries[i] == attempts or piece.is_plausible(len(take.codes), take.finished):
                unsettled.discard(i)
                lengths[i] = len(best[i].codes)
            else:
                waiting.appendleft(i)
        if len(going) < len(running):
            running = [running[row] for row in going]
            state = engine.select(state, going) if going else None
        if on_progress:
            rest = sum(max(0.0, pieces[i].expected - lengths[i]) for i in unsettled)
            on_progress(sum(lengths), sum(lengths) + rest)
        while following < len(pieces) and following not in unsettled:
            yield best.pop(following)
            following += 1


def stream_take(
    engine: Engine, vocabulary: Vocabulary, piece: Piece, seed: int, sampling: Sampling, index: int
) -> Iterator[np.ndarray]:
    """The codes of one piece as they come, in arrays (T,) uint16.

    What was handed out cannot be tried again: a piece that runs away is cut off.
    """
    state = engine.start([piece.prompt], 1, [take_seed(seed, index, 0)], sampling, piece.limit, [piece.least])
    state = engine.extend(state, FIRST_CODES)
    given, step = 0, SECOND_CODES
    while True:
        tokens = state.tokens[0]
        if len(tokens) > given:
            yield vocabulary.codes(tokens[given:])
            given = len(tokens)
        if state.stopped[0]:
            return
        state = engine.extend(state, step)
        step = MORE_CODES

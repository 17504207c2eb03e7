"""What is kept between calls of the engine: rows and their KV cache.

Knows how rows are kept, dropped, duplicated and joined; knows nothing of models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from llasa.engine.sampling import Key, Sampling
from llasa.errors import LlasaError


@dataclass
class Row:
    """One sequence under way.

    Attributes:
        prompt: number of prompt tokens.
        last: the last prompt token, the first that is yet to go through the model.
        limit: the most tokens that it may generate.
        least: tokens that come before it may end.
        sampling: how its tokens are picked.
        key: what its random numbers are made of.
        tokens: ids generated so far, without the end token.
        finished: whether it has come to the end token.
    """

    prompt: int
    last: int
    limit: int
    sampling: Sampling
    key: Key
    least: int = 0
    tokens: list[int] = field(default_factory=list)
    finished: bool = False

    @property
    def stopped(self) -> bool:
        return self.finished or len(self.tokens) >= self.limit

    @property
    def pending(self) -> int:
        """The newest token, whose keys and values are not in the cache yet."""
        return self.tokens[-1] if self.tokens else self.last

    @property
    def cached(self) -> int:
        """Number of tokens whose keys and values are in the cache."""
        return self.prompt - 1 + len(self.tokens)


@dataclass
class State:
    """Rows and their cache, (layers, 2 for keys and values, rows, heads, width, head size).

    The cache is in parts, one for every stretch of layers that share a device: with one device, one part. A row's
    entries begin at column 0; the columns behind `Row.cached` hold no meaning.
    """

    rows: list[Row]
    cache: tuple[Tensor, ...]

    @property
    def layers(self) -> list[Tensor]:
        """The cache of each layer, (2, rows, heads, width, head size), as views."""
        return [layer for part in self.cache for layer in part.unbind(0)]

    @property
    def tokens(self) -> list[list[int]]:
        """New token ids of each row, the end token excluded."""
        return [row.tokens for row in self.rows]

    @property
    def finished(self) -> list[bool]:
        """Which rows have come to the end token."""
        return [row.finished for row in self.rows]

    @property
    def stopped(self) -> list[bool]:
        """Which rows get no more tokens: finished, or out of room."""
        return [row.stopped for row in self.rows]


def pick(state: State, rows: Sequence[int], seeds: Sequence[int] | None = None) -> State:
    """A new state of these rows in this order; the old one is left as it is.

    A row picked more than once goes on differently in each place: the first keeps its random numbers, the others get
    their own, which follow from the seed, the number of tokens and which copy it is. With `seeds`, all get new ones.

    Raises:
        LlasaError: there is no such row, or a number of seeds that is not that of rows.
    """
    if seeds is not None and len(seeds) != len(rows):
        raise LlasaError(f"{len(seeds)} seeds for {len(rows)} rows: give one a row")
    wrong = [i for i in rows if not 0 <= i < len(state.rows)]
    if wrong:
        raise LlasaError(f"row {wrong[0]} was selected, but this state has rows 0 to {len(state.rows) - 1}")
    picked: list[Row] = []
    for place, i in enumerate(rows):
        row = state.rows[i]
        copy = list(rows[:place]).count(i)
        key: Key = (*row.key, len(row.tokens), copy) if copy else row.key
        if seeds is not None:
            key = (seeds[place] % 2**64,)
        picked.append(replace(row, tokens=list(row.tokens), key=key))
    cache = allocate(picked, state.cache)
    filled = max((row.cached for row in picked), default=0)
    for new, old in zip(cache, state.cache, strict=True):
        new[..., :filled, :] = old[:, :, list(rows), :, :filled]
    return State(picked, cache)


def join(first: State, second: State) -> State:
    """A new state of the rows of both; the old ones are left as they are."""
    rows = [replace(row, tokens=list(row.tokens)) for row in (*first.rows, *second.rows)]
    cache = allocate(rows, first.cache)
    place = 0
    for state in (first, second):
        filled = max((row.cached for row in state.rows), default=0)
        for new, old in zip(cache, state.cache, strict=True):
            new[:, :, place : place + len(state.rows), :, :filled] = old[..., :filled, :]
        place += len(state.rows)
    return State(rows, cache)


def allocate(rows: Sequence[Row], like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """An unfilled cache with room for all that these rows may become; layers, heads, type and devices as in `like`."""
    width = max((row.prompt + row.limit for row in rows), default=0)

    def part(old: Tensor) -> Tensor:
        layers, pair, _, heads, _, size = old.shape
        # Not zeroed: on the CPU, pages that are never written to then never take up memory.
        return torch.empty((layers, pair, len(rows), heads, width, size), dtype=old.dtype, device=old.device)

    return tuple(part(old) for old in like)

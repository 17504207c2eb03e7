"""Holds what the engine keeps between calls: rows and their KV cache. Rows can be picked, duplicated and joined."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from llasa.engine.sampling import Key, Sampling
from llasa.errors import LlasaError


@dataclass
class Row:
    """One sequence that is being generated.

    Attributes:
        prompt: number of prompt tokens.
        last: the last prompt token, which goes through the model in the first step.
        limit: the most tokens that it may generate.
        least: the fewest tokens that it must have before it may end.
        sampling: how its tokens are picked.
        key: identifies its random numbers.
        tokens: ids generated so far, without the end token.
        finished: whether it has reached the end token.
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

    The cache has one part for each run of layers on the same device, so one part with one device. A row's entries begin
    at column 0; columns from `Row.cached` on are not filled.
    """

    rows: list[Row]
    cache: tuple[Tensor, ...]
    loop: Any = field(default=None, repr=False)  # the `llasa.engine.replay.Loop` that advances it on a GPU

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
        """Which rows have reached the end token."""
        return [row.finished for row in self.rows]

    @property
    def stopped(self) -> list[bool]:
        """Which rows get no more tokens: they are finished, or have reached their limit."""
        return [row.stopped for row in self.rows]


def pick(state: State, rows: Sequence[int], seeds: Sequence[int] | None = None) -> State:
    """A new state of these rows in this order; the old one does not change.

    Copies of a row continue differently: the first keeps its random numbers, and the others get their own, which follow
    from the seed, the number of tokens and the number of the copy. With `seeds`, all get new random numbers.

    Raises:
        LlasaError: there is no such row, or not one seed a row.
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
    """A new state of the rows of both; the old ones do not change."""
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
    """An empty cache with room for these rows at full length; layers, heads, type and devices are as in `like`."""
    width = max((row.prompt + row.limit for row in rows), default=0)

    def part(old: Tensor) -> Tensor:
        layers, pair, _, heads, _, size = old.shape
        # Not zeroed: on the CPU, pages that are never written then take no memory.
        return torch.empty((layers, pair, len(rows), heads, width, size), dtype=old.dtype, device=old.device)

    return tuple(part(old) for old in like)

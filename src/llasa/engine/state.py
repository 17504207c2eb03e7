"""Holds what the engine keeps between calls: rows and their KV cache. Rows can be picked, duplicated and joined.

On a CPU, states share a store as long as they do not differ: dropping rows copies nothing, and joining copies the new
rows alone. A state that advances first takes its rows elsewhere if another one still has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from llasa.engine.row import Row, Rows, copies

SPARE = 8  # places that a store has at least once rows have joined; on a CPU, places that are not used take no memory
LARGEST = 2**31  # bytes of a store with places to spare
COLUMNS = 256  # its width is a multiple of so many, so that somewhat longer rows can join


@dataclass(eq=False)
class Store:
    """A cache, (layers, 2 for keys and values, places, heads, width, head size), and the living states that use it.

    The cache has one part for each run of layers on the same device, so one part with one device. A row's entries begin
    at column 0 of its place; columns from `Row.cached` on are not filled.
    """

    cache: tuple[Tensor, ...]
    states: "WeakSet[State]" = field(default_factory=WeakSet)

    def taken(self, but: "State | None" = None) -> set[int]:
        """The places that living states use, one of them left out if it is named."""
        return {place for state in self.states if state is not but for place in state.places}


@dataclass(eq=False)
class State(Rows):
    """Rows, and the place of each in a store."""

    rows: list[Row]
    store: Store
    places: list[int]
    loop: Any = field(default=None, repr=False)  # the `llasa.engine.replay.Loop` that advances it on a GPU

    def __post_init__(self) -> None:
        self.store.states.add(self)

    @property
    def cache(self) -> tuple[Tensor, ...]:
        """The store's cache."""
        return self.store.cache

    def own(self, alone: bool = False) -> None:
        """Makes sure that no other state has these rows, so that they can advance.

        Args:
            alone: whether they must be all that is in the store, in their order.
        """
        exact = self.places == list(range(self.cache[0].shape[2]))
        if not exact if alone else not self.store.taken(self).isdisjoint(self.places):
            old, self.places = self.places, list(range(len(self.rows)))
            cache = allocate(self.rows, self.cache)
            _copy(self.rows, old, self.cache, self.places, cache)
            self.store.states.discard(self)
            self.store = Store(cache)
            self.store.states.add(self)

    @property
    def layers(self) -> list[Tensor]:
        """The cache of each layer, (2, rows, heads, width, head size), as views."""
        return [layer for part in self.cache for layer in part.unbind(0)]


def pick(state: State, rows: Sequence[int], seeds: Sequence[int] | None = None) -> State:
    """A new state of these rows in this order; the old one does not change. Raises as `copies`."""
    picked = copies(state.rows, rows, seeds)
    places = [state.places[i] for i in rows]
    if _shares(state.cache) and len(set(places)) == len(places):
        return State(picked, state.store, places)
    cache = allocate(picked, state.cache)
    _copy(picked, places, state.cache, list(range(len(rows))), cache)
    return State(picked, Store(cache), list(range(len(rows))))


def join(first: State, second: State) -> State:
    """A new state of the rows of both; the old ones do not change."""
    rows = [replace(row, tokens=list(row.tokens)) for row in (*first.rows, *second.rows)]
    store, size = first.store, len(first.rows)
    if _shares(first.cache):
        taken = store.taken()
        free = [place for place in range(store.cache[0].shape[2]) if place not in taken]
        if len(free) >= len(second.rows) and store.cache[0].shape[4] >= _width(second.rows):
            new = free[: len(second.rows)]
            _copy(rows[size:], second.places, second.cache, new, store.cache)
            return State(rows, store, [*first.places, *new])
    store = Store(allocate(rows, first.cache, spare=_shares(first.cache)))
    places = list(range(len(rows)))
    _copy(rows[:size], first.places, first.cache, places[:size], store.cache)
    _copy(rows[size:], second.places, second.cache, places[size:], store.cache)
    return State(rows, store, places)


def allocate(rows: Sequence[Row], like: tuple[Tensor, ...], spare: bool = False) -> tuple[Tensor, ...]:
    """An empty cache with room for these rows at full length; layers, heads, type and devices are as in `like`.

    Args:
        spare: whether to leave room for rows that join later.
    """
    count, width = len(rows), _width(rows)
    if spare:
        width = -(-width // COLUMNS) * COLUMNS
        row = sum(old.shape[0] * 2 * old.shape[3] * old.shape[5] * old.element_size() for old in like) * width
        count = max(count, min(max(SPARE, 2 * count), LARGEST // max(1, row)))

    def part(old: Tensor) -> Tensor:
        layers, pair, _, heads, _, size = old.shape
        # Not zeroed: on the CPU, pages that are never written then take no memory.
        return torch.empty((layers, pair, count, heads, width, size), dtype=old.dtype, device=old.device)

    return tuple(part(old) for old in like)


def _width(rows: Sequence[Row]) -> int:
    return max((row.prompt + row.limit for row in rows), default=0)


def _shares(cache: tuple[Tensor, ...]) -> bool:
    """Whether states may share a store. On a GPU they need one of their own, for its graphs, and memory is dear."""
    return all(part.device.type == "cpu" for part in cache)


def _copy(
    rows: Sequence[Row], old: Sequence[int], source: tuple[Tensor, ...], new: Sequence[int], target: tuple[Tensor, ...]
) -> None:
    """Copies what is filled of rows from places `old` of a cache to places `new` of another."""
    if not rows:
        return
    filled = max(row.cached for row in rows)
    for ours, theirs in zip(target, source, strict=True):
        if ours.device.type != "cpu":  # all at once, since each copy is a launch
            ours[:, :, new, :, :filled] = theirs[:, :, old, :, :filled]
            continue
        for row, there, here in zip(rows, old, new, strict=True):
            ours[:, :, here, :, : row.cached] = theirs[:, :, there, :, : row.cached]

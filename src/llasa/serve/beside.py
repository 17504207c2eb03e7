"""Lets a search, or anything else that speaks with a backend, run beside the streams.

It runs in its own thread. Its calls of the backend wait for their turn on the engine's thread, and long ones are cut
into slices, so that a stream never waits for more than one slice.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch

from llasa.engine import Backend, Sampling, State
from llasa.errors import LlasaError

T = TypeVar("T")
SLICE = 4  # tokens


class Cancelled(LlasaError):
    """Nobody wants the result any more."""


@dataclass(frozen=True, eq=False)
class Beside:
    """The backend, as one job beside the streams sees it. `Backend` documents its verbs.

    Attributes:
        backend: the backend itself.
        call: runs a function on the engine's thread and returns its result.
        cancelled: once it is set, every verb raises `Cancelled`.
    """

    backend: Backend
    call: Callable[[Callable[[], Any]], Any]
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def context(self) -> int:
        return self.backend.context

    @property
    def device(self) -> torch.device:
        return self.backend.device

    @property
    def dtype(self) -> torch.dtype:
        return self.backend.dtype

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        samples: int = 1,
        seeds: Sequence[int] | None = None,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        min_tokens: Sequence[int] | None = None,
    ) -> State:
        return self._run(lambda: self.backend.start(prompts, samples, seeds, sampling, max_tokens, min_tokens))

    def extend(self, state: Any, tokens: int = 50) -> State:
        while tokens > 0 and not all(state.stopped):
            state = self._run(partial(self.backend.extend, state, min(SLICE, tokens)))
            tokens -= SLICE
        return state

    def select(self, state: Any, rows: Sequence[int], seeds: Sequence[int] | None = None) -> State:
        return self._run(lambda: self.backend.select(state, rows, seeds))

    def merge(self, first: Any, second: Any) -> State:
        return self._run(lambda: self.backend.merge(first, second))

    @property
    def attends(self) -> bool:
        return self.backend.attends

    def attention(self, ids: Sequence[int], layer: int, head: int) -> np.ndarray:
        return self._run(lambda: self.backend.attention(ids, layer, head))

    def writing(self, first: int, size: int, end: int) -> "Beside":
        return replace(self, backend=self._run(lambda: self.backend.writing(first, size, end)))

    def likelihoods(self, prompt: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        return self._run(lambda: self.backend.likelihoods(prompt, tokens))

    def rows_that_fit(self, width: int) -> int:
        return self.backend.rows_that_fit(width)

    def _run(self, function: Callable[[], T]) -> T:
        if self.cancelled.is_set():
            raise Cancelled("cancelled")
        return self.call(function)

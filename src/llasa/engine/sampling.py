"""Logits in, the next token of every row out.

Knows the sampling settings, their order, and each row's own stream of random numbers; knows nothing of models.

A token is drawn by inverting the cumulative distribution at one uniform number, and that number is a function of the
row's key and of how many tokens the row has, not of a generator shared by the batch. Adding, dropping or reordering
rows therefore never changes what a row draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llasa.errors import LlasaError

# Below this the softmax has all its mass on one token anyway, and dividing by it could overflow.
GREEDY_BELOW = 1e-5
# Keeps a uniform number times a total strictly below the total after rounding to float32.
UNIFORM_LIMIT = 1 - 2**-20

# What makes a row's random numbers its own: the seed, then (tokens, copy) for every time the row was duplicated.
Key = tuple[int, ...]


@dataclass(frozen=True)
class Sampling:
    """How the next token is picked. Applied in this order, as transformers' `generate` does.

    Attributes:
        repetition_penalty: logits of tokens that the row has generated already are divided by it when positive and
            multiplied by it when negative (Keskar et al., arXiv 1909.05858, section 4.1); the prompt does not count.
        temperature: divides the logits; 0 is greedy, and the settings below then change nothing.
        top_k: only the k most probable tokens remain; 0 is off. Ties with the k-th remain too.
        top_p: only the fewest most probable tokens whose probabilities sum to p remain; 1 is off. Ties remain too.
        min_p: only tokens at least this fraction as probable as the most probable one remain; 0 is off.

    Raises:
        LlasaError: a value outside its range.
    """

    temperature: float = 0.8
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        # Written so that a NaN fails too.
        for name, right, wanted in (
            ("temperature", 0 <= self.temperature < float("inf"), "0 (greedy) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "above 0 (1 is off)"),
        ):
            if not right:
                raise LlasaError(f"{name} is {getattr(self, name)}: it must be {wanted}")


def uniforms(key: Key, position: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) of the stream `key` from `position` on, float64; any stretch can be had alone."""
    bits = np.random.PCG64(np.random.SeedSequence(key[0], spawn_key=key[1:])).advance(position)
    return np.random.Generator(bits).random(count) * UNIFORM_LIMIT


class Sampler:
    """`Sampling` settings of n rows as columns of numbers, so that rows with different settings share a batch.

    A setting that is off in every row costs nothing.
    """

    def __init__(self, settings: Sequence[Sampling], device: torch.device) -> None:
        def column(values: Sequence[float], off: float) -> Tensor | None:
            return None if all(v == off for v in values) else torch.tensor(values, device=device)[:, None]

        warm = [s.temperature >= GREEDY_BELOW for s in settings]
        self.greedy = None if all(warm) else ~torch.tensor(warm, device=device)
        self.sampled = any(warm)
        self.temperature = column([s.temperature if w else 1.0 for s, w in zip(settings, warm, strict=True)], 1.0)
        self.top_k = column([s.top_k for s in settings], 0)
        self.top_p = column([s.top_p for s in settings], 1.0)
        self.min_p = column([s.min_p for s in settings], 0.0)
        self.penalty = column([s.repetition_penalty for s in settings], 1.0)

    def choose(self, logits: Tensor, uniform: Tensor, seen: Tensor | None = None) -> Tensor:
        """The next token of every row.

        Args:
            logits: (n, v) float32.
            uniform: (n, 1) float32 in [0, `UNIFORM_LIMIT`), one number a row.
            seen: (n, v) bool, what each row has generated; needed where a repetition penalty is set.

        Returns:
            (n,) int64 in [0, v); v itself where the logits are not numbers.
        """
        if self.penalty is not None and seen is not None:
            logits = torch.where(seen, torch.where(logits > 0, logits / self.penalty, logits * self.penalty), logits)
        if not self.sampled:
            return best(logits)
        cumulative = self.probabilities(logits).cumsum(-1)
        # right=True finds the first value above the target: never a token of probability 0.
        drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
        return drawn if self.greedy is None else torch.where(self.greedy, best(logits), drawn)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Penalised logits (n, v) to probabilities (n, v) with the illegal ones at 0; rows need not sum to 1."""
        if self.temperature is not None:
            logits = logits / self.temperature
        probabilities = logits.softmax(-1)
        if self.top_k is not None or self.top_p is not None:
            probabilities = self._nucleus(probabilities)
        if self.min_p is not None:
            floor = self.min_p * probabilities.amax(-1, keepdim=True)
            probabilities = probabilities.masked_fill(probabilities < floor, 0)
        return probabilities

    def _nucleus(self, probabilities: Tensor) -> Tensor:
        """top_k, then top_p over what it left."""
        ordered = descending(probabilities)
        if self.top_k is not None:
            last = torch.where(self.top_k > 0, self.top_k, ordered.shape[-1]).clamp(max=ordered.shape[-1]) - 1
            floor = ordered.gather(-1, last)
            ordered = ordered.masked_fill(ordered < floor, 0)
            probabilities = probabilities.masked_fill(probabilities < floor, 0)
        if self.top_p is not None:
            sums = ordered.cumsum(-1)
            # A token stays while the mass of those before it is below p; the first always does. At p = 1 rounding of
            # the sums must not cost the tail its place.
            stays = (sums - ordered < self.top_p * sums[:, -1:]) | (self.top_p >= 1)
            floor = ordered.masked_fill(~stays, torch.inf).amin(-1, keepdim=True)
            probabilities = probabilities.masked_fill(probabilities < floor, 0)
        return probabilities


def best(logits: Tensor) -> Tensor:
    """The most probable token of each row of (n, v), the first of equals; v where a logit is not a number."""
    top = logits.max(-1)
    return top.indices.masked_fill(top.values.isnan(), logits.shape[-1])


def descending(values: Tensor) -> Tensor:
    """Rows sorted from the largest. On the CPU by numpy, whose vectorised sort is some thirty times torch's."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=-1)).flip(-1)
    return values.sort(-1, descending=True).values

"""Samples the next token of every row from its logits, with each row's own settings and random numbers.

A token is drawn by inverting the cumulative distribution at one uniform number. That number is a function of the row's
key and of how many tokens the row has; no generator is shared by the batch. Adding, dropping or reordering rows
therefore never changes what a row draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llasa.errors import LlasaError

# Below this temperature the softmax has all its mass on one token anyway, and dividing by it could overflow.
GREEDY_BELOW = 1e-5
# Keeps a uniform number times a total strictly below the total after rounding to float32.
UNIFORM_LIMIT = 1 - 2**-20
LARGEST = 10**9  # of a setting
PENALISED = 64  # newest tokens that a repetition penalty counts, 1.3 s of speech

# Identifies a row's random numbers: the seed, then (tokens, copy) for every time the row was duplicated.
Key = tuple[int, ...]


@dataclass(frozen=True)
class Sampling:
    """How the next token is picked. The settings apply in this order, as in transformers' `generate`.

    Attributes:
        repetition_penalty: logits of the newest 64 tokens that the row has generated are divided by it when positive
            and multiplied by it when negative (Keskar et al., arXiv 1909.05858, section 4.1); the prompt does not
            count. Over the whole history, as transformers has it, long speech runs out of codes and drifts to silence.
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
        # Written so that a NaN fails too. The bounds far out keep huge numbers from overflowing in torch.
        for name, kind in Sampling.__annotations__.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
                wanted = "a whole number" if kind is int else "a number"
                raise LlasaError(f"{name} is {value!r:.40}: it must be {wanted}")
        for name, right, wanted in (
            ("temperature", 0 <= self.temperature <= LARGEST, "0 (greedy) or more, but not huge"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", 0 <= self.top_k <= LARGEST, "0 (off) or more, but not huge"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
            ("repetition_penalty", 0 < self.repetition_penalty <= LARGEST, "above 0 (1 is off), but not huge"),
        ):
            if not right:
                raise LlasaError(f"{name} is {str(getattr(self, name))[:40]}: it must be {wanted}")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken, so that every sample is the same."""
        return self.temperature == 0 or self.top_k == 1


def recent(tokens: Sequence[int], first: int, size: int) -> list[int]:
    """The newest `PENALISED` tokens of a row, counted from `first`, oldest first; `size + 1` where there are fewer."""
    newest = [token - first for token in tokens[-PENALISED:]]
    return [size + 1] * (PENALISED - len(newest)) + newest


def penalised(recent: Tensor, size: int) -> Tensor:
    """Which of `size` tokens and the end token are among `recent`, (n, `PENALISED`) int64: (n, size + 1) bool."""
    seen = torch.zeros(len(recent), size + 2, dtype=torch.bool, device=recent.device)
    return seen.scatter_(1, recent, True)[:, :-1]


def uniforms(key: Key, position: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) of the stream `key`, from `position` on, float64; any part can be computed alone."""
    bits = np.random.PCG64(np.random.SeedSequence(key[0], spawn_key=key[1:])).advance(position)
    return np.random.Generator(bits).random(count) * UNIFORM_LIMIT


class Sampler:
    """The `Sampling` settings of n rows as columns of numbers, so that rows with different settings share a batch.

    A setting that is off in every row takes no time.
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
            seen: (n, v) bool, the tokens to be penalised in each row; needed with a repetition penalty.

        Returns:
            (n,) int64 in [0, v); v itself where a logit is NaN.
        """
        if self.penalty is not None and seen is not None:
            logits = torch.where(seen, torch.where(logits > 0, logits / self.penalty, logits * self.penalty), logits)
        if not self.sampled:
            return best(logits)
        cumulative = self.probabilities(logits).cumsum(-1)
        # right=True finds the first value above the target, which never is a token of probability 0.
        drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
        return drawn if self.greedy is None else torch.where(self.greedy, best(logits), drawn)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (n, v) for penalised logits (n, v); excluded tokens have 0, and rows need not sum to 1."""
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
        """Applies top_k, then top_p to the tokens that remain."""
        ordered = descending(probabilities)
        if self.top_k is not None:
            last = torch.where(self.top_k > 0, self.top_k, ordered.shape[-1]).clamp(max=ordered.shape[-1]) - 1
            floor = ordered.gather(-1, last)
            ordered = ordered.masked_fill(ordered < floor, 0)
            probabilities = probabilities.masked_fill(probabilities < floor, 0)
        if self.top_p is not None:
            sums = ordered.cumsum(-1)
            # A token stays while the mass before it is below p, so the first always stays. At p = 1 all tokens stay,
            # however the sums are rounded.
            stays = (sums - ordered < self.top_p * sums[:, -1:]) | (self.top_p >= 1)
            floor = ordered.masked_fill(~stays, torch.inf).amin(-1, keepdim=True)
            probabilities = probabilities.masked_fill(probabilities < floor, 0)
        return probabilities


def best(logits: Tensor) -> Tensor:
    """The most probable token of each row of (n, v), the first if several are equal; v where a logit is NaN."""
    top = logits.max(-1)
    return top.indices.masked_fill(top.values.isnan(), logits.shape[-1])


def descending(values: Tensor) -> Tensor:
    """Rows sorted from the largest. On the CPU numpy sorts them, some thirty times as fast as torch."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=-1)).flip(-1)
    return values.sort(-1, descending=True).values

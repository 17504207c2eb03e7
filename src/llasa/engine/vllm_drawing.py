"""Draws tokens inside vLLM as the other backends do, so that a seed means the same.

vLLM calls this in its own worker, before it takes the likeliest token of each row: all tokens but the one drawn are
made impossible, and the logit of that one becomes the logarithm of its probability among the legal tokens.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from llasa.engine.row import Row
from llasa.engine.sampling import PENALISED, Sampler, Sampling, penalised, recent, uniforms

KEY = "llasa"  # of our settings among vLLM's


def settings(row: Row, first: int, size: int, end: int) -> dict[str, Any]:
    """What `Drawing` must know of a row: plain values, which reach the process where vLLM computes."""
    return {
        KEY: {
            "legal": [first, size, end], "key": list(row.key), "least": row.least, "before": len(row.tokens),
            "recent": row.tokens[-PENALISED:], "sampling": asdict(row.sampling), "forced": None,
        }
    }  # fmt: skip


def forced(tokens: Sequence[int], first: int, size: int, end: int) -> dict[str, Any]:
    """Settings of a row that says these legal tokens whatever the model finds likely."""
    made = settings(Row(0, 0, len(tokens), Sampling(), (0,)), first, size, end)
    made[KEY]["forced"] = list(tokens)
    return made


class _Request:
    """A request's settings, and what it has said so far, a list that vLLM makes longer."""

    def __init__(self, given: dict[str, Any], most: int, said: list[int]) -> None:
        self.first, self.size, self.end = given["legal"]
        self.least, self.before, self.forced = given["least"], given["before"], given["forced"]
        self.sampling = Sampling(**given["sampling"])
        self.recent, self.said = given["recent"], said
        self.noise = uniforms(tuple(given["key"]), self.before, most)


class Drawing(LogitsProcessor):
    """What vLLM calls once a step for all its rows."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._requests: dict[int, _Request] = {}
        self._sampler: tuple[list[int], Sampler] | None = None

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if process_dict_updates(self._requests, batch_update, _read):
            self._sampler = None

    def apply(self, logits: Tensor) -> Tensor:
        """Leaves one token possible in each row, of logits (rows, vocabulary)."""
        if not self._requests:
            return logits
        if self._sampler is None:
            places = sorted(self._requests)
            settings = [self._requests[place].sampling for place in places]
            self._sampler = places, Sampler(settings, logits.device)
        places, sampler = self._sampler
        rows = [self._requests[place] for place in places]
        first, size, end = rows[0].first, rows[0].size, rows[0].end  # one call of the backend has one set
        ids = _legal(first, size, end, logits.device)
        legal = logits[places][:, ids].float()
        for i, row in enumerate(rows):
            if row.before + len(row.said) < row.least:
                legal[i, -1] = -torch.inf
        noise = torch.tensor([[row.noise[len(row.said)]] for row in rows], dtype=torch.float32, device=logits.device)
        seen = None
        if sampler.penalty is not None:
            newest = [recent([*row.recent, *row.said], first, size) for row in rows]
            seen = penalised(torch.tensor(newest, device=logits.device), size)
        choice = sampler.choose(legal, noise, seen)
        for i, row in enumerate(rows):
            if row.forced is not None:
                token = row.forced[len(row.said)]
                choice[i] = size if token == end else token - first
        broken = choice > size
        choice = choice.masked_fill(broken, 0)
        likely = legal.log_softmax(-1).gather(1, choice[:, None])[:, 0]
        # A token that is not legal says that the logits were NaN: an error raised here would end vLLM.
        chosen = ids[choice].masked_fill(broken, illegal(first, size, end))
        logits.fill_(-torch.inf)
        logits[places, chosen] = likely.masked_fill(broken, 0).to(logits.dtype)
        return logits


@cache
def _legal(first: int, size: int, end: int, device: torch.device) -> Tensor:
    return torch.tensor([*range(first, first + size), end], device=device)


def illegal(first: int, size: int, end: int) -> int:
    """The smallest token that is not legal."""
    return next(token for token in range(size + 2) if token != end and not first <= token < first + size)


def _read(given: SamplingParams, prompt: list[int] | None, said: list[int]) -> _Request | None:
    extra = given.extra_args or {}
    return _Request(extra[KEY], given.max_tokens or 1, said) if KEY in extra else None

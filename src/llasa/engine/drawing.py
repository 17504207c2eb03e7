"""Draws the next token of every row and writes it down, the same in every backend that has logits."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llasa.engine.row import Row
from llasa.engine.sampling import PENALISED, Sampler, penalised, recent, uniforms
from llasa.errors import LlasaError


class Drawing:
    """Some steps of rows that go on together.

    Args:
        rows: rows that have not stopped; each token drawn is added to its row.
        steps: the most steps.
        first: id of the first speech token.
        size: number of speech tokens; the logits have one more, for the end token.
        device: where the logits are.
    """

    def __init__(self, rows: Sequence[Row], steps: int, first: int, size: int, device: torch.device) -> None:
        self.rows, self.first, self.size = rows, first, size
        self._sampler = Sampler([row.sampling for row in rows], device)
        noise = torch.stack([torch.from_numpy(uniforms(row.key, len(row.tokens), steps)) for row in rows], 1)
        self._noise = noise.float().to(device)[:, :, None]
        least = [row.least - len(row.tokens) for row in rows]
        self._least, self._may_not_end = max(least), torch.tensor(least, device=device)
        self._recent: Tensor | None = None  # (rows, PENALISED): the newest tokens of each row, a ring
        if self._sampler.penalty is not None:
            self._recent = torch.tensor([recent(row.tokens, first, size) for row in rows], device=device)

    def draw(self, step: int, logits: Tensor) -> Tensor | None:
        """The tokens (n,) of a step, drawn from logits (n, size + 1) float32; None if a row has ended.

        Raises:
            LlasaError: a logit is NaN.
        """
        if step < self._least:
            logits[:, -1].masked_fill_(self._may_not_end > step, float("-inf"))
        seen = None if self._recent is None else penalised(self._recent, self.size)
        choice = self._sampler.choose(logits, self._noise[step], seen)
        ended = False
        for row, index in zip(self.rows, choice.tolist(), strict=True):
            if index < self.size:
                row.tokens.append(self.first + index)
            elif index == self.size:
                ended = row.finished = True
            else:
                raise LlasaError("the model's output is NaN: its weights are damaged, so fetch or copy it again")
        if ended:
            return None
        if self._recent is not None:
            self._recent[:, step % PENALISED] = choice
        return choice + self.first

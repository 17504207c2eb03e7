"""Decodes on a GPU: one step of all rows is captured as a CUDA graph and replayed.

Launching some twenty small kernels a layer from Python takes longer than the kernels themselves. A replayed graph is
one launch. Its tensors keep their addresses, so the rows of a state stay in their places from its first step to its
last: rows that have stopped are computed too, and what they give is dropped. The host reads tokens every few steps.

The same code runs without a graph on a CPU, where tests compare it with the loop of `torch_engine`.
"""

from functools import partial

import torch
from torch import Tensor

from llasa.engine.llama import Llama, forward
from llasa.engine.sampling import PENALISED, Sampler, penalised, recent, uniforms
from llasa.engine.state import State
from llasa.errors import LlasaError

READ = 8  # steps between two looks at the tokens
BUCKET = 256  # columns of the cache: attention reads a multiple of so many, and every multiple has a graph of its own


class Loop:
    """The steps of one state, whose cache and random numbers it uses.

    Args:
        llama: the model, on one device.
        state: rows that are to go on; no other code may advance them while this is in use.
        size: number of speech tokens.
        first: id of the first of them.
    """

    def __init__(self, llama: Llama, state: State, first: int, size: int) -> None:
        self.llama, self.state, self.first, self.size = llama, state, first, size
        state.own(alone=True)
        rows, (cache,) = state.rows, state.cache
        device = cache.device
        self.cache, self.width = cache, cache.shape[4]
        for i, row in enumerate(rows):  # attention gives unused columns a weight of 0, and 0 times NaN is NaN
            cache[:, :, i, :, row.cached :] = 0
        steps = max(row.limit - len(row.tokens) for row in rows)
        noise = torch.stack([torch.from_numpy(uniforms(row.key, len(row.tokens), steps)) for row in rows], 1)
        self.noise = noise.float().to(device)[:, :, None]
        self.sampler = Sampler([row.sampling for row in rows], device)
        self.ids = torch.tensor([row.pending for row in rows], device=device)
        self.positions = torch.tensor([row.cached for row in rows], device=device)
        self.least = torch.tensor([row.least - len(row.tokens) for row in rows], device=device)
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.choices = torch.zeros(steps, len(rows), dtype=torch.long, device=device)
        self.rows, self.columns = (torch.arange(n, device=device) for n in (len(rows), self.width))
        self.recent = None  # (rows, PENALISED): the newest tokens of each row, a ring
        if self.sampler.penalty is not None:
            self.recent = torch.tensor([recent(row.tokens, first, size) for row in rows], device=device)
        self.longest, self.taken = max(row.cached for row in rows), 0
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def run(self, steps: int) -> None:
        """Takes `steps` steps, or fewer if every row stops before."""
        while steps > 0 and not all(self.state.stopped):
            count = min(steps, READ, len(self.choices) - self.taken)
            for _ in range(count):
                self._advance()
            chosen = self.choices[self.taken - count : self.taken].tolist()
            steps -= count
            for row, own in zip(self.state.rows, zip(*chosen, strict=True), strict=True):
                for index in own:
                    if row.stopped:
                        break
                    if index > self.size:
                        raise LlasaError("the model's output is NaN: its weights are damaged")
                    if index == self.size:
                        row.finished = True
                    else:
                        row.tokens.append(self.first + index)

    def _advance(self) -> None:
        """One step, from the graph of the columns in use; the first of each is computed before it is captured."""
        columns = min(-(-(self.longest + self.taken + 1) // BUCKET) * BUCKET, self.width)
        self.taken += 1
        if self.cache.device.type != "cuda":
            self._compute(columns)
        elif columns in self.graphs:
            self.graphs[columns].replay()
        else:
            self._compute(columns)
            if self.taken < len(self.choices):
                self.graphs[columns] = self._captured(columns)

    def _captured(self, columns: int) -> torch.cuda.CUDAGraph:
        """The graph of a step. Capturing computes nothing."""
        torch.cuda.synchronize(self.cache.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._compute(columns)
        return graph

    def _compute(self, columns: int) -> None:
        """A step in place: the newest tokens go in, the next ones into `choices`."""
        place = self.positions.clamp(max=self.width - 1)
        past = (self.columns[:columns] <= place[:, None])[:, None, None]
        attend = partial(self._attend, columns, place, past)
        logits = self.llama.head(forward(self.llama, self.ids, place, attend)).float()
        logits[:, -1].masked_fill_(self.least > self.step, float("-inf"))
        seen = None if self.recent is None else penalised(self.recent, self.size)
        choice = self.sampler.choose(logits, self.noise.index_select(0, self.step)[0], seen)
        self.choices.index_copy_(0, self.step, choice[None])
        if self.recent is not None:
            self.recent.index_copy_(1, self.step % PENALISED, choice.clamp(max=self.size)[:, None])
        # What rows that have stopped read next does not matter, but it must be a token.
        self.ids.copy_(choice.clamp(max=self.size - 1) + self.first)
        self.positions += 1
        self.step += 1

    def _attend(self, columns: int, place: Tensor, past: Tensor, layer: int, qkv: Tensor) -> Tensor:
        """One new token of each row over the first columns of its cache, (n, heads + 2 kv_heads, size).

        Args:
            place: (n,) the column that each row's key and value go to.
            past: (n, 1, 1, columns) which columns each row may attend to.
        """
        llama = self.llama
        query, key, value = qkv.split((llama.heads, llama.kv_heads, llama.kv_heads), 1)
        keys, values = self.cache[layer]
        keys[self.rows, :, place] = key
        values[self.rows, :, place] = value
        query = query.unflatten(1, (llama.kv_heads, -1))
        scores = (query @ keys[:, :, :columns].transpose(2, 3)).float().masked_fill(~past, float("-inf"))
        return (scores.softmax(-1).to(values.dtype) @ values[:, :, :columns]).flatten(1)

"""The decode engine: `start` prompts, `extend` them token by token, `select` which rows go on.

Knows how rows share a batch and a KV cache; the model's arithmetic is in llama.py, picking a token in sampling.py, the
rows themselves in state.py. Knows nothing of text, codecs or audio: tokens are numbers.

What a row generates depends on its prompt, seed and sampling alone, not on the rows beside it. On CPUs where oneDNN
packs the weights (x86; with AVX-512 for bfloat16) this holds bit for bit at a given number of threads: prompts are
prefilled one by one, every row attends over its own columns without padding, and the matrix products sum each row in
the same order whatever their number. Elsewhere products may differ in their last bits between batch sizes, and a row
may part ways where a draw falls that close between two tokens.
"""

import secrets
from collections.abc import Sequence
from functools import partial
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from llasa.engine.llama import Checkpoint, checkpoint_of, forward, read_llama
from llasa.engine.sampling import Sampler, Sampling, uniforms
from llasa.engine.state import Row, State, allocate, join, pick
from llasa.errors import LlasaError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

# Batch rows that lie side by side in the cache and are equally long: (first and last + 1 in the batch, tokens cached).
Span = tuple[int, int, int]


class Engine:
    """Generates speech tokens with a Llama.

    Only the tokens `first` to `first + size - 1` and `end` are ever computed, hence no other can be sampled. The
    weights are copied into another layout, so a model can be dropped afterwards.

    Attributes:
        context: the most tokens, prompt included, that a row can have.

    Args:
        model: a `Checkpoint`, or a transformers Llama, on whose device and in whose precision the engine stays.
        first: id of the first speech token.
        size: number of speech tokens.
        end: id of the token that ends speech.
        context: caps the configuration's `max_position_embeddings`.

    Raises:
        LlasaError: these tokens are not in the model's vocabulary, or it is a Llama of an unsupported kind.
    """

    def __init__(
        self, model: "Checkpoint | LlamaForCausalLM", first: int, size: int, end: int, context: int | None = None
    ) -> None:
        vocabulary = model.config.vocab_size
        if not (first >= 0 and size > 0 and first + size <= vocabulary and 0 <= end < vocabulary):
            raise LlasaError(
                f"speech tokens {first} to {first + size - 1} and end token {end} do not fit the model's vocabulary of "
                f"{vocabulary}: do model and tokenizer belong together?"
            )
        if first <= end < first + size:
            raise LlasaError(f"the end token {end} is one of the speech tokens {first} to {first + size - 1}")
        longest = model.config.max_position_embeddings
        self.context = longest if context is None else min(context, longest)
        self.first, self.size, self.end = first, size, end
        checkpoint = model if isinstance(model, Checkpoint) else checkpoint_of(model)
        # Where tokens go in, and where logits come out and are sampled from.
        self.device, self._head = checkpoint.devices[0], checkpoint.devices[-1]
        self.llama = read_llama(checkpoint, torch.tensor([*range(first, first + size), end]), self.context)

    @torch.inference_mode()
    def start(
        self,
        prompts: Sequence[Sequence[int]],
        samples: int = 1,
        seeds: Sequence[int] | None = None,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        min_tokens: Sequence[int] | None = None,
    ) -> State:
        """Prefills each prompt once and forks it into `samples` rows: rows 0 to samples - 1 are the first prompt's.

        Args:
            prompts: token ids, of any lengths.
            samples: rows a prompt.
            seeds: one a row; drawn afresh when left out.
            sampling: how tokens are picked; `Sampling()` when left out.
            max_tokens: the most tokens a row may generate; without it, what the context leaves.
            min_tokens: one a prompt: tokens before which none of its rows may end; none by default.

        Raises:
            LlasaError: a prompt that is empty, leaves no room in the context, or holds ids outside the vocabulary;
                a number of seeds that is not the number of rows, or of `min_tokens` that is not that of prompts;
                fewer than one sample or token.
        """
        if samples < 1 or (max_tokens is not None and max_tokens < 1):
            raise LlasaError("samples and max_tokens must be at least 1")
        for prompt in prompts:
            self._check(prompt)
        count = len(prompts) * samples
        if seeds is None:
            seeds = [secrets.randbits(63) for _ in range(count)]
        if len(seeds) != count:
            raise LlasaError(f"{len(seeds)} seeds for {count} rows: give one a row ({samples} a prompt)")
        if min_tokens is None:
            min_tokens = [0] * len(prompts)
        if len(min_tokens) != len(prompts):
            raise LlasaError(f"{len(min_tokens)} values of min_tokens for {len(prompts)} prompts: give one a prompt")
        rows = []
        for i, seed in enumerate(seeds):
            prompt = prompts[i // samples]
            room = self.context - len(prompt)
            limit = room if max_tokens is None else min(room, max_tokens)
            least = min_tokens[i // samples]
            rows.append(Row(len(prompt), prompt[-1], limit, sampling or Sampling(), (seed % 2**64,), least))
        state = State(rows, allocate(rows, self._no_cache()))
        for i, prompt in enumerate(prompts):
            place = slice(i * samples, (i + 1) * samples)
            self._prefill(prompt[:-1], [layer[:, place] for layer in state.layers])
        return state

    @torch.inference_mode()
    def extend(self, state: State, tokens: int = 50) -> State:
        """Samples up to `tokens` more tokens in every row that has not stopped; `state` itself advances.

        Rows that stop are not computed any further, and when all have stopped this returns.

        Raises:
            LlasaError: the model's output is not a number.
        """
        while tokens > 0 and (active := [i for i, row in enumerate(state.rows) if not row.stopped]):
            tokens -= self._run(state, active, tokens)
        return state

    @torch.inference_mode()
    def select(self, state: State, rows: Sequence[int], seeds: Sequence[int] | None = None) -> State:
        """A new state of these rows, in this order: left out is dropped, named twice is duplicated.

        The first of several copies keeps the row's random numbers, the others get their own; with `seeds`, one a row,
        all go on from these. A row that has no tokens yet then does what `start` with that seed would have it do, so
        one prefill serves any number of samples, a few at a time. `state` stays usable.

        Raises:
            LlasaError: there is no such row, or a number of seeds that is not that of rows.
        """
        return pick(state, rows, seeds)

    @torch.inference_mode()
    def merge(self, first: State, second: State) -> State:
        """A new state of the rows of both, in this order; each keeps its sampling. Both stay usable."""
        return join(first, second)

    def _check(self, prompt: Sequence[int]) -> None:
        if not prompt:
            raise LlasaError("the prompt is empty: there is nothing to continue")
        if len(prompt) >= self.context:
            raise LlasaError(
                f"the prompt of {len(prompt)} tokens leaves no room in a context of {self.context}: "
                "use a shorter text or reference"
            )
        vocabulary = self.llama.embedding.shape[0]
        if min(prompt) < 0 or max(prompt) >= vocabulary:
            raise LlasaError(f"the prompt holds token ids outside the model's vocabulary of {vocabulary}")

    def _no_cache(self) -> tuple[Tensor, ...]:
        """A cache of no rows, one part for every stretch of layers that share a device."""
        llama = self.llama
        return tuple(
            torch.empty((len(list(layers)), 2, 0, llama.kv_heads, 0, llama.head_size), dtype=llama.dtype, device=device)
            for device, layers in groupby(llama.layers, key=lambda layer: layer.device)
        )

    def _prefill(self, ids: Sequence[int], cache: list[Tensor]) -> None:
        """Computes keys and values of one prompt into every row of each layer's (2, samples, heads, width, size)."""
        if not ids:
            return
        heads, kv_heads = self.llama.heads, self.llama.kv_heads

        def attend(layer: int, qkv: Tensor) -> Tensor:
            q, k, v = qkv.transpose(0, 1)[None].split((heads, kv_heads, kv_heads), 1)
            cache[layer][0, :, :, : len(ids)] = k
            cache[layer][1, :, :, : len(ids)] = v
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0, enable_gqa=True)
            return out[0].transpose(0, 1).flatten(1)

        forward(self.llama, torch.tensor(ids, device=self.device), torch.arange(len(ids), device=self.device), attend)

    def _run(self, state: State, active: list[int], tokens: int) -> int:
        """Takes up to `tokens` steps with the rows `active`; after the step in which one stops it returns.

        Returns:
            The number of steps taken.
        """
        rows = [state.rows[i] for i in active]
        steps = min(tokens, *(row.limit - len(row.tokens) for row in rows))
        spans = _spans(active, [row.cached for row in rows])
        stores = [[layer[:, active[a] : active[b - 1] + 1] for a, b, _ in spans] for layer in state.layers]
        sampler = Sampler([row.sampling for row in rows], self._head)
        noise = torch.stack([torch.from_numpy(uniforms(row.key, len(row.tokens), steps)) for row in rows], 1)
        noise = noise.float().to(self._head)[:, :, None]
        seen = None if sampler.penalty is None else self._seen(rows)
        ids = torch.tensor([row.pending for row in rows], device=self.device)
        least = [row.least - len(row.tokens) for row in rows]
        may_not_end = torch.tensor(least, device=self._head)
        positions = torch.tensor([row.cached for row in rows], device=self.device)
        for step in range(steps):
            attend = partial(_attend, self.llama.heads, spans, stores, step)
            logits = self.llama.head(forward(self.llama, ids, positions, attend)).float()
            if step < max(least):
                logits[:, -1].masked_fill_(may_not_end > step, float("-inf"))
            choice = sampler.choose(logits, noise[step], seen)
            stop = False
            for row, index in zip(rows, choice.tolist(), strict=True):
                if index < self.size:
                    row.tokens.append(self.first + index)
                elif index == self.size:
                    stop = row.finished = True
                else:
                    raise LlasaError("the model's output is not a number: its weights are damaged")
            if stop:
                return step + 1
            if seen is not None:
                seen.scatter_(1, choice[:, None], True)
            ids = (choice + self.first).to(self.device)
            positions += 1
        return steps

    def _seen(self, rows: list[Row]) -> Tensor:
        """(rows, legal) bool: which tokens each row has generated."""
        seen = torch.zeros(len(rows), self.size + 1, dtype=torch.bool)
        for i, row in enumerate(rows):
            seen[i, [token - self.first for token in row.tokens]] = True
        return seen.to(self._head)


def _spans(active: Sequence[int], cached: Sequence[int]) -> list[Span]:
    """Cuts the batch where rows do not lie side by side in the cache or differ in length."""
    cuts = [i for i in range(1, len(active)) if active[i] != active[i - 1] + 1 or cached[i] != cached[i - 1]]
    bounds = [0, *cuts, len(active)]
    return [(a, b, cached[a]) for a, b in pairwise(bounds)]


def _attend(heads: int, spans: list[Span], stores: list[list[Tensor]], step: int, layer: int, qkv: Tensor) -> Tensor:
    """One new token of each row, (n, heads + 2 kv_heads, size), over its own past; its key and value join the cache.

    Args:
        spans: see `_spans`.
        stores: for every layer, each span's part of the cache, (2, rows of the span, kv_heads, width, size).
        step: steps taken since the spans were cut.
    """
    outputs = []
    for (a, b, cached), store in zip(spans, stores[layer], strict=True):
        part = qkv if len(spans) == 1 else qkv[a:b]
        length = cached + step + 1
        query, new = part.split((heads, part.shape[1] - heads), 1)
        new = new.unflatten(1, (2, -1)).transpose(0, 1)  # (2, rows of the span, kv_heads, size)
        store.select(3, length - 1).copy_(new)
        keys, values = store.narrow(3, 0, length).unbind(0)
        # Two batched products and not scaled_dot_product_attention: for a single query they are as fast, and the CPU's
        # fused kernel sums in an order that depends on how the batch falls to the threads.
        query = query.unflatten(1, (new.shape[2], -1))
        outputs.append(((query @ keys.transpose(2, 3)).softmax(-1) @ values).flatten(1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

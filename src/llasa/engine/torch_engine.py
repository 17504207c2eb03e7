"""The backend in torch: `start` prompts, `extend` them, `select` rows, `merge` two states.

It lets rows share a batch and a KV cache. The model's arithmetic is in llama.py, sampling in sampling.py, and the rows
in state.py.

What a row generates depends on its prompt, seed and sampling alone, not on the rows beside it. On CPUs where oneDNN
packs the weights (x86; with AVX-512 for bfloat16) this holds bit for bit at a given number of threads: prompts are
prefilled one by one, every row attends over its own columns without padding, and the matrix products sum each row in
the same order whatever the number of rows. Elsewhere, products may differ in their last bits between batch sizes, and a
row may then draw another token if the draw falls just between two.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.nn import functional as F

from llasa.engine.drawing import Drawing
from llasa.engine.llama import forward, read_llama, scores, turned, weights_of
from llasa.engine.prompt import Prompt, References
from llasa.engine.replay import Loop
from llasa.engine.row import new_rows, places_of
from llasa.engine.sampling import Sampling
from llasa.engine.state import State, Store, allocate, join, pick
from llasa.errors import LlasaError
from llasa.models.weights import Weights
from llasa.threads import at_most

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

SHARE = 0.5  # share of the free memory for the KV cache, which exists twice while a state is copied
SMALL = 10**8  # parameters; up to here a CPU decodes on one thread (benchmarks/threads.py)
# Batch rows that lie side by side in the cache and are equally long: (first and last + 1 in the batch, tokens cached).
Span = tuple[int, int, int]


class Engine:
    """Generates speech tokens with a Llama: the `Backend` named torch. `Backend` documents its verbs.

    Only the logits of the tokens `first` to `first + size - 1` and `end` are computed, so no other token can be
    sampled. The weights are copied into another layout, so the model can be dropped afterwards; of a transformers Llama
    a copy of the output matrix is kept for `writing`.

    Attributes:
        context: the most tokens, prompt included, that a row can have.
        device: the device that tokens enter.
        dtype: precision of the matrices.
        threads: how many threads a CPU may use; None for torch's number.

    Args:
        model: `Weights`, or a transformers Llama; the engine keeps its device and precision.
        first: id of the first speech token.
        size: number of speech tokens.
        end: id of the token that ends speech.
        context: a limit below the configuration's `max_position_embeddings`; None for that number itself.

    Raises:
        LlasaError: these tokens are not in the model's vocabulary, or the kind of Llama is unsupported.
    """

    def __init__(
        self, model: "Weights | LlamaForCausalLM", first: int, size: int, end: int, context: int | None = None
    ) -> None:
        _check_legal(model.config.vocab_size, first, size, end)
        longest = model.config.max_position_embeddings
        self.context = longest if context is None else min(context, longest)
        self.first, self.size, self.end = first, size, end
        weights = model if isinstance(model, Weights) else weights_of(model)
        # The device that tokens enter, and the one where logits come out and are sampled.
        self.device, self._head = weights.devices[0], weights.devices[-1]
        self.dtype = weights.dtype
        self.llama = read_llama(weights, torch.tensor([*range(first, first + size), end]), self.context)
        small = self.device.type == "cpu" and parameters_read(model.config, size) <= SMALL
        self.threads = 1 if small else None
        self._references = References(self._read_reference)

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
        """See `Backend.start`."""
        vocabulary = self.llama.embedding.shape[0]
        rows = new_rows(prompts, samples, seeds, sampling, max_tokens, min_tokens, self.context, vocabulary)
        state = State(rows, Store(allocate(rows, self._no_cache())), list(range(len(rows))))
        with at_most(self.threads):
            for i, prompt in enumerate(prompts):
                place = slice(i * samples, (i + 1) * samples)
                self._prefill(prompt, [layer[:, place] for layer in state.layers])
        return state

    @torch.inference_mode()
    def extend(self, state: State, tokens: int = 50) -> State:
        """See `Backend.extend`. `state` itself advances. Rows that stop are not computed any further, and once all have
        stopped this returns."""
        if self.device.type == "cuda" and len(state.cache) == 1:
            if not all(state.stopped):
                state.loop = state.loop or Loop(self.llama, state, self.first, self.size)
                state.loop.run(tokens)
            return state
        state.own()
        with at_most(self.threads):
            while tokens > 0 and (active := [i for i, row in enumerate(state.rows) if not row.stopped]):
                tokens -= self._run(state, active, tokens)
        return state

    @torch.inference_mode()
    def select(self, state: State, rows: Sequence[int], seeds: Sequence[int] | None = None) -> State:
        """See `Backend.select`. One prefill serves any number of samples, a few at a time."""
        return pick(state, rows, seeds)

    @torch.inference_mode()
    def merge(self, first: State, second: State) -> State:
        """See `Backend.merge`."""
        return join(first, second)

    attends = True

    @torch.inference_mode()
    def attention(self, ids: Sequence[int], layer: int, head: int) -> np.ndarray:
        """See `Backend.attention`."""
        with at_most(self.threads):
            sequence = torch.tensor(ids, device=self.device)
            return scores(self.llama, sequence, layer, head, self._attend_causally).softmax(-1).cpu().numpy()

    def writing(self, first: int, size: int, end: int) -> "Engine":
        """See `Backend.writing`. Both share all weights but those of the legal tokens."""
        _check_legal(self.llama.embedding.shape[0], first, size, end)
        made = copy.copy(self)
        made.first, made.size, made.end = first, size, end
        made.llama = replace(self.llama, head=self.llama.output(torch.tensor([*range(first, first + size), end])))
        return made

    @torch.inference_mode()
    def likelihoods(self, prompt: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """See `Backend.likelihoods`."""
        places = places_of(prompt, tokens, self.first, self.size, self.end, self.context)
        ids = torch.tensor([*prompt, *tokens[:-1]], device=self.device)
        with at_most(self.threads):
            hidden = forward(self.llama, ids, torch.arange(len(ids), device=self.device), self._attend_causally)
            logs = self.llama.head(hidden[len(prompt) - 1 :]).float().log_softmax(-1)
        return logs.cpu().gather(1, torch.tensor(places)[:, None])[:, 0].numpy()

    def rows_that_fit(self, width: int) -> int:
        """See `Backend.rows_that_fit`. Where layers are spread over devices, the fullest one decides."""
        llama = self.llama
        layer = 2 * llama.kv_heads * llama.head_size * llama.dtype.itemsize * width  # bytes of keys and values
        layers = Counter(part.device for part in llama.layers)
        return min(int(SHARE * _free_memory(device)) // (layer * count) for device, count in layers.items())

    def _no_cache(self) -> tuple[Tensor, ...]:
        """A cache without rows, with one part for each run of layers on the same device."""
        llama = self.llama
        return tuple(
            torch.empty((len(list(layers)), 2, 0, llama.kv_heads, 0, llama.head_size), dtype=llama.dtype, device=device)
            for device, layers in groupby(llama.layers, key=lambda layer: layer.device)
        )

    def _prefill(self, prompt: Sequence[int], cache: list[Tensor]) -> None:
        """Writes the keys and values of a prompt but for its last token into all its rows.

        Args:
            cache: the rows' part of each layer's cache, (2, samples, heads, width, size).
        """
        if not isinstance(prompt, Prompt):
            self._read(prompt[:-1], 0, cache)
            return
        begin, (first, last) = prompt.shared, prompt.reused
        reference = self._references.of(prompt)
        for layer, kept in zip(cache, reference, strict=True):
            layer[:, :, :, :begin] = kept[:, :, :, :begin]
            keys, values = kept[:, :, :, first - prompt.moved : last - prompt.moved]
            layer[0, :, :, first:last] = turned(self.llama, keys, prompt.moved)
            layer[1, :, :, first:last] = values
        self._read(prompt[begin:first], begin, cache)
        self._read(prompt[last:-1], last, cache)

    def _read_reference(self, prompt: Prompt) -> list[Tensor]:
        """Each layer's keys and values of a prompt without its text and its last token, (2, 1, heads, n, size)."""
        llama, shape = self.llama, (2, 1, self.llama.kv_heads, len(prompt.alone) - 1, self.llama.head_size)
        cache = [torch.empty(shape, dtype=llama.dtype, device=layer.device) for layer in llama.layers]
        self._read(prompt.alone[:-1], 0, cache)
        return cache

    def _read(self, ids: Sequence[int], begin: int, cache: list[Tensor]) -> None:
        """Computes the keys and values of tokens of one sequence, and writes them into all its rows.

        Args:
            begin: number of tokens before these, which the cache holds.
            cache: see `_prefill`.
        """
        if not ids:
            return
        end = begin + len(ids)

        def attend(layer: int, qkv: Tensor) -> Tensor:
            keys, values = qkv[:, self.llama.heads :].transpose(0, 1).chunk(2)
            cache[layer][0, :, :, begin:end] = keys
            cache[layer][1, :, :, begin:end] = values
            if begin == 0:
                return self._attend_causally(layer, qkv)
            query, (keys, values) = qkv[:, : self.llama.heads].transpose(0, 1), cache[layer][:, 0, :, :end]
            before = torch.ones(len(ids), end, dtype=torch.bool, device=qkv.device).tril(begin)
            out = F.scaled_dot_product_attention(
                query[None], keys[None], values[None], before, scale=1.0, enable_gqa=True
            )
            return out[0].transpose(0, 1).flatten(1)

        places = torch.arange(begin, end, device=self.device)
        forward(self.llama, torch.tensor(ids, device=self.device), places, attend)

    def _attend_causally(self, layer: int, qkv: Tensor) -> Tensor:
        """Attention in one sequence: each token attends to itself and those before it."""
        heads, kv_heads = self.llama.heads, self.llama.kv_heads
        q, k, v = qkv.transpose(0, 1)[None].split((heads, kv_heads, kv_heads), 1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0, enable_gqa=True)
        return out[0].transpose(0, 1).flatten(1)

    def _run(self, state: State, active: list[int], tokens: int) -> int:
        """Takes up to `tokens` steps with the rows `active`, and returns after the step in which a row ends.

        Returns:
            The number of steps taken.
        """
        rows = [state.rows[i] for i in active]
        steps = min(tokens, *(row.limit - len(row.tokens) for row in rows))
        places = [state.places[i] for i in active]
        spans = _spans(places, [row.cached for row in rows])
        stores = [[layer[:, places[a] : places[b - 1] + 1] for a, b, _ in spans] for layer in state.layers]
        drawing = Drawing(rows, steps, self.first, self.size, self._head)
        ids = torch.tensor([row.pending for row in rows], device=self.device)
        positions = torch.tensor([row.cached for row in rows], device=self.device)
        for step in range(steps):
            attend = partial(_attend, self.llama.heads, spans, stores, step)
            drawn = drawing.draw(step, self.llama.head(forward(self.llama, ids, positions, attend)).float())
            if drawn is None:
                return step + 1
            ids = drawn.to(self.device)
            positions += 1
        return steps


def _check_legal(vocabulary: int, first: int, size: int, end: int) -> None:
    """Refuses legal tokens that a model does not have."""
    if not (first >= 0 and size > 0 and first + size <= vocabulary and 0 <= end < vocabulary):
        raise LlasaError(
            f"tokens {first} to {first + size - 1} and end token {end} do not fit the model's vocabulary of "
            f"{vocabulary}: check that model and tokenizer belong together"
        )
    if first <= end < first + size:
        raise LlasaError(
            f"the end token {end} is one of the tokens {first} to {first + size - 1} that it ends: check that model "
            "and tokenizer belong together"
        )


def parameters_read(config: Any, legal: int) -> int:
    """About how many parameters a step reads: the layers' matrices, and the rows of the head for the legal tokens."""
    wide: int = config.hidden_size
    return wide * (config.num_hidden_layers * (4 * wide + 3 * config.intermediate_size) + legal)


def _free_memory(device: torch.device) -> int:
    """Free memory in bytes; on a GPU it includes what torch has reserved and does not use."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + held


def _spans(places: Sequence[int], cached: Sequence[int]) -> list[Span]:
    """Splits the batch wherever neighbours do not lie side by side in the cache or differ in length."""
    cuts = [i for i in range(1, len(places)) if places[i] != places[i - 1] + 1 or cached[i] != cached[i - 1]]
    bounds = [0, *cuts, len(places)]
    return [(a, b, cached[a]) for a, b in pairwise(bounds)]


def _attend(heads: int, spans: list[Span], stores: list[list[Tensor]], step: int, layer: int, qkv: Tensor) -> Tensor:
    """Attention of one new token of each row over the row's past; adds the token's key and value to the cache.

    Args:
        qkv: the new tokens' queries, keys and values, (n, heads + 2 kv_heads, size).
        spans: see `_spans`.
        stores: for every layer, each span's part of the cache, (2, rows of the span, kv_heads, width, size).
        step: steps taken since the spans were made.
    """
    outputs = []
    for (a, b, cached), store in zip(spans, stores[layer], strict=True):
        part = qkv if len(spans) == 1 else qkv[a:b]
        length = cached + step + 1
        query, new = part.split((heads, part.shape[1] - heads), 1)
        new = new.unflatten(1, (2, -1)).transpose(0, 1)  # (2, rows of the span, kv_heads, size)
        store.select(3, length - 1).copy_(new)
        keys, values = store.narrow(3, 0, length).unbind(0)
        # Two batched products instead of scaled_dot_product_attention: for a single query they are as fast, and the
        # CPU's fused kernel sums in an order that depends on how the batch is split among the threads.
        query = query.unflatten(1, (new.shape[2], -1))
        outputs.append(((query @ keys.transpose(2, 3)).softmax(-1) @ values).flatten(1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

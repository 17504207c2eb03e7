"""Samples from a model in training, and computes how probable it finds the samples.

The engine samples: a prompt is prefilled once and forked into a group. The learner computes probabilities with
gradients, also with the prompt computed once, and under the same sampling settings as the engine: temperature, and the
tokens that top_k, top_p or min_p leave out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llasa.engine import Backend, Sampling, backend_of
from llasa.engine.sampling import GREEDY_BELOW, Sampler
from llasa.models.defaults import dtype_of
from llasa.models.weights import Weights, all_on
from llasa.speak.request import take_seed
from llasa.speak.takes import row_count
from llasa.train.rl.data import Prompt
from llasa.vocabulary import Vocabulary

STEP = 50  # tokens between two looks at whether all rows have stopped


@dataclass(frozen=True, eq=False)
class Sample:
    """One way to say a prompt.

    Attributes:
        tokens: ids, the end token included if it was reached.
        codes: (T,) uint16.
        finished: whether the end token was reached.
    """

    tokens: list[int]
    codes: np.ndarray
    finished: bool


def backend_for(model: Any, vocabulary: Vocabulary, device: torch.device) -> Backend:
    """A backend with a copy of a Llama's present weights, into which a LoRA on its matrices is merged.

    Args:
        model: a `LlamaForCausalLM`, maybe with peft's LoRA layers in it.
    """
    modules = dict(model.named_modules())

    def tensor(name: str) -> Tensor:
        owner, _, kind = name.rpartition(".")
        module = modules[owner]
        if not hasattr(module, "get_delta_weight"):
            return getattr(module, kind).detach().clone()
        value = getattr(module.base_layer, kind).detach()
        return (value + module.get_delta_weight("default").detach()) if kind == "weight" else value.clone()

    dtype = dtype_of(None, device.type)
    return backend_of(Weights(model.config, tensor, dtype, all_on(model.config, str(device))), vocabulary)


def sample(
    backend: Backend, vocabulary: Vocabulary, prompts: Sequence[Prompt], group: int, sampling: Sampling, seed: int
) -> list[list[Sample]]:
    """Samples every prompt `group` times, as many rows at once as fit the memory."""
    jobs = [(place, take_seed(seed, prompt.number, i)) for place, prompt in enumerate(prompts) for i in range(group)]
    found: list[list[Sample]] = [[] for _ in prompts]
    pieces = [prompt.piece for prompt in prompts]
    most = row_count(backend, max(len(piece.prompt) + piece.limit for piece in pieces))
    for start in range(0, len(jobs), most):
        part = jobs[start : start + most]
        places = sorted({place for place, _ in part})
        own = [pieces[place] for place in places]
        limit, least = max(piece.limit for piece in own), [piece.least for piece in own]
        state = backend.start([piece.prompt for piece in own], 1, [0] * len(own), sampling, limit, least)
        rows = backend.select(state, [places.index(place) for place, _ in part], [seed for _, seed in part])
        while not all(rows.stopped):
            rows = backend.extend(rows, STEP)
        for (place, _), tokens, finished in zip(part, rows.tokens, rows.finished, strict=True):
            tokens, finished = tokens[: pieces[place].limit], finished and len(tokens) <= pieces[place].limit
            ids = [*tokens, vocabulary.end] if finished else tokens
            found[place].append(Sample(ids, vocabulary.codes(tokens), finished))
    return found


def log_probabilities(
    model: Any, vocabulary: Vocabulary, prompt: Sequence[int], samples: Sequence[Sample], least: int, sampling: Sampling
) -> Tensor:
    """Log-probabilities of the samples' tokens as they are sampled, (N, L) float32; 0 beyond a sample's end.

    Args:
        model: a transformers Llama.
        prompt: the token ids that all samples follow.
        least: how many tokens must come before the end token.
    """
    device = model.device
    longest = max(len(each.tokens) for each in samples)
    ids = torch.full((len(samples), longest), vocabulary.end)
    for row, each in zip(ids, samples, strict=True):
        row[: len(each.tokens)] = torch.tensor(each.tokens)
    ids = ids.to(device)
    lengths = torch.tensor([len(each.tokens) for each in samples], device=device)
    inside = torch.arange(longest, device=device) < lengths[:, None]
    before = torch.tensor([prompt], device=device)
    cache = model.model(input_ids=before[:, :-1], use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(samples))
    # Rows are padded at their ends, where nothing that counts attends to.
    inputs = torch.cat([before[:, -1:].expand(len(samples), 1), ids[:, :-1]], 1)
    hidden = model.model(input_ids=inputs, cache=cache, use_cache=True).last_hidden_state[inside]
    legal = torch.tensor([*vocabulary.speech, vocabulary.end], device=device)
    logits = F.linear(hidden, model.lm_head.weight[legal].to(hidden.dtype)).float()
    early = (torch.arange(longest, device=device) < least).expand_as(inside)[inside]
    logits[:, -1] = logits[:, -1].masked_fill(early, -torch.inf)
    targets = ids[inside]
    places = torch.where(targets == vocabulary.end, vocabulary.size, targets - vocabulary.first)[:, None]
    logits = logits / max(sampling.temperature, GREEDY_BELOW)
    with torch.no_grad():
        sampler = Sampler([replace(sampling, temperature=1.0)] * len(logits), device)
        left_out = sampler.probabilities(logits) == 0
        left_out.scatter_(1, places, False)  # what was drawn can be drawn, however the engine rounds
    drawn = logits.gather(1, places)[:, 0] - logits.masked_fill(left_out, -torch.inf).logsumexp(-1)
    return torch.zeros(inside.shape, device=device).masked_scatter(inside, drawn)

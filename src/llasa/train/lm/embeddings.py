"""Parametrises embeddings and outputs of speech tokens as sums over the digits of their codes, during training."""

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from transformers import LlamaForCausalLM

from llasa.errors import LlasaError


class DigitTable(nn.Module):
    """Parametrises an embedding: adds a learned vector for each level of each digit to the rows of speech tokens.

    The vectors start at zero, so the table does not change at first.
    """

    def __init__(self, levels: list[int], first: int, rows: int, width: int) -> None:
        super().__init__()
        index, digits = torch.arange(math.prod(levels)), []
        for count in levels:
            digits.append(F.one_hot(index % count, count))
            index = index // count
        self.first, self.after = first, rows - first - len(index)
        self.digits: torch.Tensor
        self.register_buffer("digits", torch.cat(digits, 1).float(), persistent=False)
        self.vectors = nn.Parameter(torch.zeros(sum(levels), width))

    def forward(self, table: torch.Tensor) -> torch.Tensor:
        return table + F.pad(self.digits @ self.vectors, (0, 0, self.first, self.after))


class GroupTable(nn.Module):
    """Parametrises an output: the row of a speech token is the sum of one learned vector for each group of digits.

    Args:
        sizes: the number of vectors of each group; their product is the number of speech tokens.
        table: (rows, width); the vectors start as its closest approximation by such sums.
    """

    def __init__(self, sizes: list[int], first: int, table: torch.Tensor) -> None:
        super().__init__()
        self.sizes, self.first, self.count = sizes, first, math.prod(sizes)
        index, places = torch.arange(self.count), []
        for i, size in enumerate(sizes):
            places.append(index % size + sum(sizes[:i]))
            index = index // size
        self.places: torch.Tensor
        self.register_buffer("places", torch.stack(places, 1), persistent=False)
        rows = table.detach()[first : first + self.count]
        added = rows.new_zeros(sum(sizes), table.shape[1])
        for place in places:
            added.index_add_(0, place, rows)
        each = torch.tensor([self.count / size for size in sizes for _ in range(size)])
        self.vectors = nn.Parameter(added / each[:, None] - rows.mean(0) * (1 - 1 / len(sizes)))

    def forward(self, table: torch.Tensor) -> torch.Tensor:
        rows = F.embedding(self.places, self.vectors).sum(1)
        return torch.cat([table[: self.first], rows, table[self.first + self.count :]])

    def entropies(self, table: torch.Tensor, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each label under the softmax over all rows, (n,) float32, without computing all logits."""
        groups = F.linear(hidden, self.vectors).float()
        others = F.linear(hidden, torch.cat([table[: self.first], table[self.first + self.count :]])).float()
        codes = torch.stack([group.logsumexp(1) for group in groups.split(self.sizes, 1)]).sum(0)
        total = torch.logaddexp(codes, others.logsumexp(1))
        code = labels - self.first
        is_speech = (code >= 0) & (code < self.count)
        speech = groups.gather(1, self.places[code * is_speech]).sum(1)
        text = others.gather(1, torch.where(code < 0, labels, labels - self.count).mul(~is_speech)[:, None])[:, 0]
        return total - torch.where(is_speech, speech, text)


def parametrise(
    model: LlamaForCausalLM, levels: list[int], first: int, factored: bool, groups: list[int], fresh: bool
) -> None:
    """Makes embeddings and outputs of speech tokens sums over digits. Tied tables stay tied.

    Args:
        levels: the codec's levels.
        first: id of the first speech token.
        factored: whether each is a table plus a sum over all digits.
        groups: how many of the levels make up each group of an output; if empty, `factored` decides about outputs.
        fresh: whether the sums start at random, rather than so that the tables do not change.

    Raises:
        LlasaError: the groups do not add up to the levels.
    """
    into, out = model.get_input_embeddings(), model.get_output_embeddings()
    tied = into.weight is out.weight
    tables: dict[nn.Module, Any] = {}
    if factored:
        rows, width = model.config.vocab_size, model.config.hidden_size
        tables = {part: DigitTable(levels, first, rows, width) for part in (into, out)}
    if groups:
        tables[out] = GroupTable(group_sizes(groups, levels), first, out.weight)
    if tied and tables:
        tables[into] = tables[out]
    for part, table in tables.items():
        if fresh:
            nn.init.normal_(table.vectors, std=0.02)
        parametrize.register_parametrization(part, "weight", table)


def group_sizes(groups: list[int], levels: list[int]) -> list[int]:
    """How many combinations of digits each group has.

    Raises:
        LlasaError: the groups do not add up to the levels.
    """
    if sum(groups) != len(levels) or min(groups) < 1:
        raise LlasaError(
            f"`embeddings.output_groups` is {groups}: the numbers must be 1 or more and add up to the codec's "
            f"{len(levels)} levels, {levels}"
        )
    rest = iter(levels)
    return [math.prod(itertools.islice(rest, count)) for count in groups]

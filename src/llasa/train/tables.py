"""Embeddings and outputs of speech tokens as sums over the digits of their codes, while a model is trained.

Knows tables of a codebook's size; knows nothing of samples or losses other than that of such an output.
"""

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
    """Parametrisation of an embedding: the rows of speech tokens get a learned vector for each level of each digit.

    The vectors start at zero, where the table is what it was.
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
    """Parametrisation of an output: the row of a speech token is the sum of one learned vector for each of its groups.

    Args:
        sizes: how many there are of each group; their product is the number of speech tokens.
        table: (rows, width), whose speech tokens' part that is such a sum the vectors start as.
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
        """Cross-entropy of each label under the softmax over all rows, (n,) float32, without computing their logits."""
        groups = F.linear(hidden, self.vectors).float()
        others = F.linear(hidden, torch.cat([table[: self.first], table[self.first + self.count :]])).float()
        codes = torch.stack([group.logsumexp(1) for group in groups.split(self.sizes, 1)]).sum(0)
        total = torch.logaddexp(codes, others.logsumexp(1))
        code = labels - self.first
        spoken = (code >= 0) & (code < self.count)
        said = groups.gather(1, self.places[code * spoken]).sum(1)
        written = others.gather(1, torch.where(code < 0, labels, labels - self.count).mul(~spoken)[:, None])[:, 0]
        return total - torch.where(spoken, said, written)


def parametrise(
    model: LlamaForCausalLM, levels: list[int], first: int, factored: bool, groups: list[int], fresh: bool
) -> None:
    """Makes embeddings and outputs of speech tokens sums over digits. Tied, they stay one table.

    Args:
        levels: the codec's; first: id of the first speech token.
        factored: each is a table plus a sum over all digits.
        groups: how many of the levels make up each group of an output; empty: outputs as `factored` says.
        fresh: the sums start at random; else at what the tables are.

    Raises:
        LlasaError: the groups do not share out the levels.
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
    """How many combinations of digits each of the groups has.

    Raises:
        LlasaError: they do not share out the levels.
    """
    if sum(groups) != len(levels) or min(groups) < 1:
        raise LlasaError(f"`output_groups: {groups}` do not share out the codec's {len(levels)} levels, {levels}")
    rest = iter(levels)
    return [math.prod(itertools.islice(rest, count)) for count in groups]

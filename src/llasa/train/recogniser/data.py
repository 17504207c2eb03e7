"""Reads batches of equally long utterances for training the recogniser, in an order that a resumed run continues."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llasa.data.shards import read_rows
from llasa.errors import LlasaError

GRID = 2  # seconds


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of one length.

    Attributes:
        place: the stream's place after it, from which `batches` can continue. It describes the start of the current
            shard: the random generator's state, the order of the shards, the shard's place in it, and the rows that
            waited for others of their length, by shard and number; and how many batches were taken since.
    """

    rows: list[dict[str, Any]]
    place: dict[str, Any]


def batches(
    files: list[Path], seed: int, batch_seconds: float, longest: float, place: dict[str, Any] | None = None
) -> Iterator[Batch]:
    """Endless full batches of rows of one length, in steps of `GRID` seconds, over reshuffled shards.

    All batches of a length have the same shape, because the CPU's matrix library takes seconds to plan each new shape.

    Args:
        place: `Batch.place` of the batch before; by default the batches start from the beginning.

    Raises:
        LlasaError: no utterance is as long as one must be.
    """
    rng, order, waiting, first, skipped = random.Random(seed), list(range(len(files))), dict[int, list[Any]](), 0, 0
    if place:
        version, numbers, gauss = place["rng"]
        rng.setstate((version, tuple(numbers), gauss))
        order, first, skipped = list(place["order"]), place["shard"], place["taken"]
        for shard in {shard for shard, _ in place["waiting"]}:
            rows = list(read_rows(files[shard]))
            for number in (number for other, number in place["waiting"] if other == shard):
                waiting.setdefault(_size(rows[number]), []).append((shard, number, rows[number]))
        rank = {tuple(at): count for count, at in enumerate(place["waiting"])}
        for group in waiting.values():  # in their former order
            group.sort(key=lambda item: rank[item[0], item[1]])
    resuming = place is not None
    suitable = resuming  # whether there is an utterance of a length that is taken
    while True:
        if not resuming:
            rng.shuffle(order)
        resuming = False
        for at in range(first, len(order)):
            shard = order[at]
            lines = [[item[0], item[1]] for group in waiting.values() for item in group]
            begun = {"rng": rng.getstate(), "order": list(order), "shard": at, "waiting": lines}
            ready = []
            for number, row in enumerate(read_rows(files[shard])):
                if not 0.5 <= row["seconds"] <= longest:
                    continue
                suitable, size = True, _size(row)
                group = waiting.setdefault(size, [])
                group.append((shard, number, row))
                if len(group) == max(1, int(batch_seconds / (size * GRID))):
                    ready.append([item[2] for item in waiting.pop(size)])
            rng.shuffle(ready)
            for taken, rows in enumerate(ready, 1):
                if taken > skipped:
                    yield Batch(rows, begun | {"taken": taken})
            skipped = 0
        if not suitable:
            raise LlasaError(f"no utterance in `data.corpus` lasts 0.5 to {longest:g} s: see `data.longest`")
        first = 0


def _size(row: dict[str, Any]) -> int:
    return math.ceil(row["seconds"] / GRID)

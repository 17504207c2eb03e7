"""Packs of the language model, put together."""

from dataclasses import replace

import torch

from llasa.train.lm.data import Pack


def union(left: Pack, right: Pack) -> Pack:
    """Both packs in one row."""
    size = len(left.ids)
    shifted = torch.where(right.pointers >= 0, right.pointers + size, right.pointers)
    joined = {
        name: torch.cat([getattr(left, name), getattr(right, name)]) for name in ("ids", "labels", "positions", "chat")
    }
    bounds = [*left.bounds, *(bound + size for bound in right.bounds[1:])]
    joined["pointers"], joined["starts"] = torch.cat([left.pointers, shifted]), torch.tensor(bounds, dtype=torch.int32)
    taught = [*left.taught, *(index + len(left.bounds) - 1 for index in right.taught)]
    return replace(left, **joined, bounds=bounds, taught=taught)

"""Provides the learning rate's schedule, the optimisers, and the running average of the weights."""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import nn

from llasa.train.settings import Schedule


def learning_rate(step: int, peak: float, warmup: int, total: int, floor: float = 0.05) -> float:
    """The learning rate of a step: a linear warm-up, then a cosine from `peak` down to `floor` times `peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def scheduled_rate(step: int, peak: float, schedule: Schedule) -> float:
    """The learning rate of a step: a linear warm-up, then a cosine, or with `lr_fall` a line down to the floor."""
    if schedule.lr_fall is None or step < schedule.warmup:
        return learning_rate(step, peak, schedule.warmup, schedule.steps, schedule.lr_floor)
    return peak * (1 - (1 - schedule.lr_floor) * min(1.0, (step - schedule.warmup) / schedule.lr_fall))


def set_learning_rate(optimisers: list[torch.optim.Optimizer], step: int, schedule: Schedule) -> None:
    """Sets the learning rate of every group, each according to its own peak."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = scheduled_rate(step, group["peak"], schedule)


def make_optimisers(
    model: nn.Module, lr: float, muon_lr: float = 0.0, betas: tuple[float, float] = (0.9, 0.95), decay: float = 0.01
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or with `muon_lr` Muon for the matrices inside the layers and AdamW for the rest.

    Muon (Jordan et al. 2024) orthogonalises each matrix' update, which finds the alignment of text to speech in fewer
    steps. Embeddings, outputs, norms and biases stay with AdamW. Each group has its peak learning rate in `peak`.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inner = muon_lr and parameter.ndim == 2 and "layers." in name
            (matrices if inner else rest).append(parameter)
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.ndim > 1], "weight_decay": decay},
                {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=lr,
            betas=betas,
        )
    ]
    if matrices:
        made.append(torch.optim.Muon(matrices, lr=muon_lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    for optimiser in made:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return made


def scheduled_optimisers(model: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """The optimisers for a stage's schedule."""
    s = schedule
    return make_optimisers(model, s.lr, s.muon_lr, (s.betas[0], s.betas[1]), s.decay)


class Average:
    """Exponential moving average of a model's parameters, with a warm-up so that it forgets the start quickly.

    With a decay of 0 it is empty and does nothing.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters() if decay and p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        names = [(self.weights[name], p) for name, p in model.named_parameters() if name in self.weights]
        if not names:
            return
        torch._foreach_lerp_([a for a, _ in names], [p.detach() for _, p in names], 1 - decay)

    @torch.no_grad()
    def load(self, weights: dict[str, torch.Tensor], model: nn.Module) -> None:
        """Restores a checkpoint's average; weights that it lacks start at the model's own."""
        own = dict(model.named_parameters())
        for name, weight in self.weights.items():
            weight.copy_(weights.get(name, own[name]))

    @contextlib.contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """A context in which the model has the averaged weights, for validation and export."""
        own = {name: p.detach().clone() for name, p in model.named_parameters() if name in self.weights}
        self._copy(model, self.weights)
        try:
            yield
        finally:
            self._copy(model, own)

    @staticmethod
    @torch.no_grad()
    def _copy(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])

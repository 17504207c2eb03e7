"""What every training stage shares: settings from YAML, schedule, optimiser, EMA, checkpoints, logs.

A stage is a folder. `checkpoint.pt` in it holds all that is needed to go on; it is replaced whole, every few minutes
and at the end, and the same command started again continues from it.
"""

import contextlib
import json
import math
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import nn

from llasa.errors import LlasaError
from llasa.loading import first_line

T = TypeVar("T")
CHECKPOINT = "checkpoint.pt"
_KINDS = {
    int: "a whole number", float: "a number", str: "a text", bool: "true or false", list: "a list",
    dict: "`name: value`",
}  # fmt: skip
LOWER = "lower `lr` in the recipe and start the same command again"


def read_settings(kind: type[T], path: Path, **changes: Any) -> T:
    """A settings dataclass from a YAML file; `changes` that are not None win over the file.

    Raises:
        LlasaError: the file is missing, is not YAML, or has a key or a value that the stage doesn't know.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LlasaError(f"cannot read the settings {path}: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise LlasaError(f"{path} is not a recipe: a recipe has lines like `steps: 100`")
    changes = {key: value for key, value in changes.items() if value is not None}
    return make_settings(kind, values | changes, str(path))


def make_settings(kind: type[T], values: dict[str, Any], where: str) -> T:
    """A settings dataclass of values that somebody wrote, each of the kind that its key has.

    Raises:
        LlasaError: a key is unknown or missing, or a value of another kind; the message begins with `where`.
    """
    hints, fitting = get_type_hints(kind), {}
    for key, value in values.items():
        try:
            fitting[key] = _fit(value, hints.get(key, Any))
        except ValueError as error:
            raise LlasaError(f"{where}: `{key}: {value}` has {error}") from error
    try:
        return kind(**fitting)
    except TypeError as error:
        raise LlasaError(f"{where}: {str(error).split('__init__() ')[-1]}") from error


def _fit(value: Any, hint: Any) -> Any:
    """A value as its key's type has it. A number may be text: to PyYAML `5e-5` is, for want of a point."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if hint is Any:
        return value
    if kind is UnionType:  # all of ours are `X | None`
        return None if value is None else _fit(value, parts[0])
    if kind in (int, float) and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{value!r} where {_KINDS[kind]} belongs")
    if kind is list:
        return [_fit(each, parts[0]) for each in value]
    return {str(name): _fit(each, parts[1]) for name, each in value.items()} if kind is dict else value


def learning_rate(step: int, peak: float, warmup: int, total: int, floor: float = 0.05) -> float:
    """Linear warm-up, then a cosine from `peak` to `floor` times it."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def optimisers(
    model: nn.Module, lr: float, muon_lr: float = 0.0, betas: tuple[float, float] = (0.9, 0.95), decay: float = 0.01
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or, with `muon_lr`, Muon for the matrices inside the layers and AdamW for the rest.

    Muon (Jordan et al. 2024) orthogonalises each matrix' update, which finds the alignment of text to speech in fewer
    steps; embeddings, outputs, norms and biases stay with AdamW. Each group remembers its peak in `peak`.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inner = muon_lr and parameter.ndim == 2 and "layers." in name
            (matrices if inner else rest).append(parameter)
    groups: list[torch.optim.Optimizer] = [
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
        groups.append(torch.optim.Muon(matrices, lr=muon_lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    for optimiser in groups:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return groups


def set_learning_rate(
    groups: list[torch.optim.Optimizer], step: int, warmup: int, total: int, floor: float = 0.05
) -> None:
    """Moves every group along the schedule from its own peak."""
    for optimiser in groups:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, group["peak"], warmup, total, floor)


class Average:
    """Exponential moving average of a model's parameters, with a warm-up so that the start is forgotten fast.

    With a decay of 0 it holds nothing and changes nothing.
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
        """Goes on from a checkpoint's average; of what it has none of, begins with the model's own weights."""
        own = dict(model.named_parameters())
        for name, weight in self.weights.items():
            weight.copy_(weights.get(name, own[name]))

    @contextlib.contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """The model with the averaged weights, for validation and export."""
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


@contextlib.contextmanager
def saving(folder: Path, half: Path | None = None) -> Iterator[None]:
    """Around what writes into a stage's folder: a full disk is one line, and `half`, what it left half written, goes.

    Raises:
        LlasaError: it could not be written.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        kept = "the last good checkpoint is kept" if any(folder.glob("checkpoint*")) else "there is no checkpoint yet"
        reason = getattr(error, "strerror", None) or str(error)
        raise LlasaError(
            f"cannot write into {folder}: {reason}; {kept}: make room and start the same command again"
        ) from error
    finally:
        if half is not None and half.is_dir():
            shutil.rmtree(half, ignore_errors=True)
        elif half is not None:
            half.unlink(missing_ok=True)


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Replaces the stage's checkpoint in one step, so that a kill or a full disk leaves the old one or the new one.

    Raises:
        LlasaError: the disk is full.
    """
    temporary = folder / f".{CHECKPOINT}.tmp"
    with saving(folder, temporary):
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch's archive writer, of whatever the system said
            free = shutil.disk_usage(folder).free / 2**30
            raise OSError(0, f"the checkpoint could not be written ({free:.1f} GB are free)") from error
        os.replace(temporary, folder / CHECKPOINT)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The stage's checkpoint, or None at a first start.

    Raises:
        LlasaError: the file is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise LlasaError(f"{path} is damaged ({type(error).__name__}): delete it to start this stage over") from error


@contextlib.contextmanager
def resuming(folder: Path, groups: list[torch.optim.Optimizer]) -> Iterator[None]:
    """Around what puts a checkpoint back; the recipe's own rates and decays stay, for those may have changed.

    Raises:
        LlasaError: the checkpoint is of a model of other sizes, or of a run in which something else learnt.
    """
    own = [[{k: v for k, v in group.items() if k != "params"} for group in one.param_groups] for one in groups]
    try:
        yield
    except (KeyError, RuntimeError, ValueError) as error:
        raise LlasaError(
            f"{folder} has the checkpoint of another recipe ({first_line(error)}): set sizes and what learns as they "
            "were, or another `out`"
        ) from error
    for one, kept in zip(groups, own, strict=True):
        for group, values in zip(one.param_groups, kept, strict=True):
            group.update(values)


def require_same(folder: Path, before: dict[str, Any], now: dict[str, Any], keys: Iterable[str]) -> None:
    """Refuses to go on with other settings where the rest of the run would not be the rest of what was begun.

    Args:
        before: the settings in the checkpoint; those that it lacks are taken for the same.
        keys: of the settings that must stay.

    Raises:
        LlasaError: one has changed.
    """
    for key in keys:
        if before.get(key, now[key]) != now[key]:
            raise LlasaError(
                f"{folder} was begun with `{key}: {before[key]}`, which must stay until its end: set it back, or name "
                "another `out`"
            )


class Log:
    """Losses to TensorBoard, to `log.jsonl`, and as a line on the terminal: every so many steps, their means.

    Attributes:
        sums: the losses since the last row. A stage that keeps them in its checkpoint writes the same rows, stopped or
            not.
    """

    def __init__(self, folder: Path, name: str, total: int, every: int = 20, after: int | None = None) -> None:
        """With `after`, a checkpoint's step, the rows of later steps go: they were lost and will come again."""
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self.name, self.total = folder, name, total
        self.every = max(1, min(every, total // 10))
        with saving(folder):
            if after is not None:
                forget(folder / "log.jsonl", after)
            self.board = SummaryWriter(folder / "tensorboard", purge_step=None if after is None else after + 1)
        self.sums: dict[str, list[float]] = {}
        self.mark, self.seconds = time.perf_counter(), 0.0

    def step(self, step: int, audio_seconds: float, losses: dict[str, float]) -> None:
        """Adds one step's losses; every so often writes their means and the hours of audio trained on per hour."""
        check_finite(self.name, step, losses)
        for key, value in losses.items():
            self.sums.setdefault(key, []).append(value)
        self.seconds += audio_seconds
        if step % self.every and step != self.total:
            return
        now = time.perf_counter()
        means = {key: sum(values) / len(values) for key, values in self.sums.items()}
        speed = self.seconds / (now - self.mark)
        left = (self.total - step) * (now - self.mark) / self.every / 60
        self.write(step, means | {"realtime": speed})
        shown = "  ".join(f"{key} {value:.4g}" for key, value in means.items())
        print(f"{self.name} {step}/{self.total}  {shown}  {speed:.0f}x real time  {left:.0f} min left", flush=True)
        self.sums, self.mark, self.seconds = {}, now, 0.0

    def write(self, step: int, values: dict[str, float]) -> None:
        """One row of figures, at once."""
        with saving(self.folder):
            for key, value in values.items():
                self.board.add_scalar(f"{self.name}/{key}", value, step)
            with (self.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps({"step": step} | {k: round(v, 5) for k, v in values.items()}) + "\n")


def check_finite(name: str, step: int, losses: dict[str, float], remedy: str = LOWER) -> None:
    """Ends a run that has diverged, before it can overwrite its last good checkpoint.

    Args:
        remedy: what may help.

    Raises:
        LlasaError: a loss is not a number, or infinite.
    """
    for key, value in losses.items():
        if not math.isfinite(value):
            raise LlasaError(f"{name}: {key} is {value} at step {step}; the last good checkpoint is kept: {remedy}")


def forget(path: Path, after: int) -> None:
    """Drops a log's rows of later steps, and a last row that a kill left unfinished."""
    if path.exists():
        rows = [(re.match(r'\{"step": (\d+).*\}$', line), line) for line in path.read_text().splitlines()]
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text("".join(f"{line}\n" for match, line in rows if match and int(match[1]) <= after))
        os.replace(temporary, path)


class Clock:
    """Says when to checkpoint, and when a signal asks the run to stop after this step."""

    def __init__(self, minutes: float, quiet: bool = False) -> None:
        self.interval, self.last, self.stop, self.quiet = minutes * 60, time.monotonic(), False, quiet
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._asked)

    def _asked(self, number: int, frame: Any) -> None:
        if not self.quiet and not self.stop:
            print("stopping after this step; the same command goes on from here", file=sys.stderr, flush=True)
        self.stop = True

    def due(self) -> bool:
        if self.stop or time.monotonic() - self.last >= self.interval:
            self.last = time.monotonic()
            return True
        return False


def clip(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Clips the gradient's norm; returns what it was."""
    return float(nn.utils.clip_grad_norm_(parameters, limit))

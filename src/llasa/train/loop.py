"""Runs the training loop that all stages share: the language model, the codec, the recogniser and fine-tuning.

A stage has a folder. Its `model/` can be used at any time. The checkpoint beside it holds all that resuming needs, and
is written last, so that whatever a kill interrupts is done again. The same command resumes a run, which then ends
exactly like a run that was never stopped: batches and random numbers follow from the seed, the step and the place in
the stream of batches.
"""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from llasa.errors import LlasaError
from llasa.train import parts
from llasa.train.checkpoint import load_checkpoint, require_same, resuming, save_checkpoint, saving
from llasa.train.log import LOWER, Log, check_finite
from llasa.train.processes import is_main, mean, rank, together
from llasa.train.schedule import Average, set_learning_rate
from llasa.train.settings import Schedule


class StageSettings(Protocol):
    """The settings that the loop needs from a stage's settings dataclass: the run's folder and its schedule."""

    out: str
    schedule: Schedule


class Stage(Protocol):
    """A stage of the training: its model, its data and its losses.

    Attributes:
        name: its name in the log.
        learner: the weights that learn. The loop clips their gradients, averages them, and swaps the average in for
            `validate` and `save`.
        optimisers: the loop sets their learning rates and steps them. If a stage steps one itself, it leaves that one's
            parameters without gradients.
        fixed: dotted keys of the settings that must not change during a run.
        every: steps between validations; None for one with every checkpoint.
        in_parts: whether each process holds a part of the learner (FSDP2) instead of a copy.
        finished: whether to end before the last step.
        remedy: advice for a loss that is NaN.
    """

    name: str
    learner: nn.Module
    optimisers: list[torch.optim.Optimizer]
    fixed: Sequence[str] = ()
    every: int | None = None
    in_parts: bool = False
    finished: bool = False
    remedy: str = LOWER

    def batches(self, step: int, place: Any) -> Iterator[Any]:
        """This process' endless batches from a step on; `place` is the last batch's `place`, or None at the start."""
        ...

    def place(self, batch: Any) -> Any:
        """The stream's place after a batch, in plain values. All processes call this and get the same."""
        ...

    def seconds(self, batch: Any) -> float:
        """Seconds of audio in this process' batch."""
        ...

    def step(self, batch: Any, step: int) -> dict[str, torch.Tensor]:
        """Computes gradients. Returns the losses as scalars, whose means over the processes are logged."""
        ...

    def validate(self, step: int) -> dict[str, float]:
        """Measures on held-out data."""
        ...

    def save(self) -> None:
        """Writes the model. It is complete before it replaces an older one."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The state to save, tensors and plain values, without optimisers and average."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state."""
        ...


def run(
    stage: Stage,
    settings: StageSettings,
    after: Callable[[int, Average], None] | None = None,
    log: Callable[..., Log] = Log,
) -> bool:
    """Trains or resumes training, to the last step or until a signal asks it to stop.

    Args:
        after: called by every process after every step, with the step's number and the average.
        log: makes the log, with the arguments of `Log`.

    Returns:
        Whether the run reached its end.

    Raises:
        LlasaError: the checkpoint is damaged or of other settings, the disk is full, or a loss is NaN or infinite.
    """
    schedule, out, written = settings.schedule, Path(settings.out), asdict(settings)  # type: ignore[call-overload]
    average = Average(stage.learner, schedule.ema if is_main() or stage.in_parts else 0.0)
    writer: Log | None = None
    with together():
        at = _resume(stage, average, out, written)
        if is_main():
            writer = log(out, stage.name, schedule.steps, after=at["step"])
            writer.sums = at["log"]
    step, batch = at["step"], None

    def keep(validating: bool) -> None:
        place = at["place"] if batch is None else stage.place(batch)
        if validating:
            _validate(stage, average, out, step, writer)
        # Last of all, so that whatever a kill interrupts before this is done again.
        state = {"step": step, "place": place, "log": writer.sums if writer else {}, "settings": written}
        _checkpoint(stage, average, out, state)

    closed = closing(writer) if writer else nullcontext()
    with closed, Clock(schedule.checkpoint_minutes, quiet=not is_main()) as clock:
        if at["new"] and stage.every:
            keep(validating=True)
        stream = stage.batches(step, at["place"])
        while step < schedule.steps and not stage.finished:
            batch = next(stream)
            torch.manual_seed(schedule.seed + 1_000_003 * step + rank())  # for dropout
            set_learning_rate(stage.optimisers, step, schedule)
            losses = stage.step(batch, step)
            values, seconds, stop, due = _agree(losses, stage.seconds(batch), clock)
            values["gradient"] = clip(stage.learner.parameters(), schedule.clip)
            step += 1
            if not all(map(math.isfinite, values.values())):  # true in all processes; one of them reports it
                with together():
                    check_finite(stage.name, step, values, stage.remedy)
            for optimiser in stage.optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            average.update(stage.learner, step)
            if after:
                after(step, average)
            if writer:
                writer.step(step, seconds, values)
            ended = step == schedule.steps
            validating = ended or (step % stage.every == 0 if stage.every else stop or due)
            if validating or stop or due:
                keep(validating)
            if stop:
                break
    return step == schedule.steps or stage.finished


def _resume(stage: Stage, average: Average, out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Restores the stage, its optimisers and the average from the checkpoint in `out`, if there is one.

    Returns:
        The rest of the checkpoint: `step`, `place` and `log`; and `new`, whether there is no checkpoint.

    Raises:
        LlasaError: the checkpoint is damaged, `memory.shard` has changed, or another setting that must not change.
    """
    newest = max(out.glob("checkpoint-*"), default=None)
    if newest and not stage.in_parts:
        raise LlasaError(f"{out} has a checkpoint of a run with `memory.shard: true`: set that, or another `out`")
    saved = load_checkpoint(out)
    if saved and stage.in_parts:
        raise LlasaError(f"{out} has a checkpoint of a run with `memory.shard: false`: set that, or another `out`")
    if newest:
        run = parts.read_run(newest)
        with resuming(out, stage.optimisers):
            _require_same(stage, out, run["settings"], settings)
            parts.read_parts(newest, stage.learner, stage.optimisers, average)
        return run | {"new": False}
    if saved is None:
        return {"step": 0, "place": None, "log": {}, "new": True}
    with resuming(out, stage.optimisers):
        _require_same(stage, out, saved["settings"], settings)
        stage.load_state_dict(saved["model"])
        for optimiser, state in zip(stage.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        average.load(saved["average"], stage.learner)
    return {key: saved[key] for key in ("step", "place", "log")} | {"new": False}


def _require_same(stage: Stage, out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    require_same(out, before, now, stage.fixed)
    key = "schedule.muon_lr"  # it may change as long as it stays above 0
    if bool(before["schedule"]["muon_lr"]) != bool(now["schedule"]["muon_lr"]):
        require_same(out, before, now, [key])


def _agree(
    losses: dict[str, torch.Tensor], seconds: float, clock: "Clock"
) -> tuple[dict[str, float], float, bool, bool]:
    """Agrees with the other processes: mean losses, seconds of audio, whether to stop, and whether to save."""
    due = is_main() and clock.due()
    terms = torch.stack([loss.detach().float() for loss in losses.values()])
    *means, audio, stop, save = mean(torch.cat([terms, terms.new_tensor([seconds, clock.stop, due])])).tolist()
    count = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    return dict(zip(losses, means, strict=True)), audio * count, stop > 0, save > 0


def _validate(stage: Stage, average: Average, out: Path, step: int, log: Log | None) -> None:
    with together():
        if log or stage.in_parts:
            with average.swapped(stage.learner), saving(out):
                figures = stage.validate(step)
                stage.save()
            if log:
                log.validated(step, figures)


def _checkpoint(stage: Stage, average: Average, out: Path, state: dict[str, Any]) -> None:
    if stage.in_parts:
        parts.write_parts(out, stage.learner, stage.optimisers, average, state)
        return
    with together():
        if is_main():
            states = [optimiser.state_dict() for optimiser in stage.optimisers]
            learnt = {"model": stage.state_dict(), "optimisers": states, "average": average.weights}
            save_checkpoint(out, learnt | state)


class Clock:
    """Decides when to save a checkpoint, and notices when a signal asks the run to stop after this step.

    It handles SIGINT and SIGTERM from its creation on, and restores their handlers when its context ends.
    """

    def __init__(self, minutes: float, quiet: bool = False) -> None:
        self.interval, self.last, self.stop, self.quiet = minutes * 60, time.monotonic(), False, quiet
        self.before = {number: signal.signal(number, self._asked) for number in (signal.SIGINT, signal.SIGTERM)}

    def __enter__(self) -> "Clock":
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, frame: Any) -> None:
        if not self.quiet and not self.stop:
            print("stopping after this step; the same command resumes from here", file=sys.stderr, flush=True)
        self.stop = True

    def due(self) -> bool:
        if self.stop or time.monotonic() - self.last >= self.interval:
            self.last = time.monotonic()
            return True
        return False


def clip(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Clips the gradient's norm; returns the norm before."""
    return float(nn.utils.clip_grad_norm_(parameters, limit))

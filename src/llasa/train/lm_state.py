"""Where a run of the language model stands, on disk and back: whole models, or models in parts, one a process.

In parts (FSDP2), each process holds a share of every weight, of its gradient and of the optimiser's state, and gathers
a layer when it computes. Such a run's checkpoint is a folder that all write and that any number of processes can read.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from llasa.errors import LlasaError
from llasa.train import loop
from llasa.train.lm import Settings, Trainer
from llasa.train.processes import together

# What the order of the samples follows from, and the sizes of the model.
MUST_STAY = (
    "corpus", "chat", "seed", "tokens", "longest", "joined", "spell", "model", "factored", "output_groups",
    "pointing_heads",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Learner:
    """What learns in a run: the model with its losses, its optimisers, and the running average of its weights."""

    trainer: Trainer
    groups: list[torch.optim.Optimizer]
    average: loop.Average


def require_plain(settings: Settings) -> None:
    """Refuses in parts what reads weights outside the layer that they are gathered for.

    Raises:
        LlasaError: the recipe asks for both.
    """
    aids = (settings.factored, settings.output_groups, settings.muon_lr, settings.pointing_heads)
    if settings.shard and any(aids):
        raise LlasaError(
            "`shard: true` trains a plain Llama with AdamW: set `factored: false`, `output_groups: []`, `muon_lr: 0`, "
            "`pointing_heads: []`"
        )


def shard(trainer: Trainer) -> None:
    """Leaves each process its part of the weights, in place; optimisers are made of what is then there."""
    from torch.distributed.fsdp import fully_shard

    for layer in trainer.model.model.layers:
        fully_shard(layer)
    # The rest goes back into parts too, or a step after a validation would compute with what was gathered for that.
    fully_shard(trainer, reshard_after_forward=True)


def restore(settings: Settings, learner: Learner) -> dict[str, Any]:
    """Puts all back where the checkpoint in `out` was made.

    Returns:
        The rest of it: `step`, `streams` (where each row's samples stood) and `log`; of a first start if there is none.

    Raises:
        LlasaError: the checkpoint is damaged, or of a run that was sharded and is no longer, or the other way round; or
            settings have changed that must not.
    """
    out = Path(settings.out)
    newest = max(out.glob("checkpoint-*"), default=None)
    if (out / loop.CHECKPOINT).exists() if settings.shard else newest:
        was = str(not settings.shard).lower()
        raise LlasaError(f"{out} has a checkpoint of a run with `shard: {was}`: set that, or another `out`")
    if newest is not None:
        return _read_parts(newest, settings, learner)
    saved = loop.load_checkpoint(out)
    if saved is None:
        return {"step": 0, "streams": [], "log": {}}
    _require_same(settings, saved["settings"])
    with loop.resuming(out, learner.groups):
        learner.trainer.load_state_dict(saved["model"])
        for optimiser, state in zip(learner.groups, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        learner.average.load(saved["average"], learner.trainer)
    return {key: saved[key] for key in ("step", "streams", "log")}


def _require_same(settings: Settings, before: dict[str, Any]) -> None:
    now = asdict(settings)
    loop.require_same(Path(settings.out), before, now, MUST_STAY)
    if bool(before["muon_lr"]) != bool(settings.muon_lr):  # from one that is above 0 to another, it may change
        loop.require_same(Path(settings.out), before, now, ["muon_lr"])


def _read_parts(folder: Path, settings: Settings, learner: Learner) -> dict[str, Any]:
    import torch.distributed.checkpoint as parts
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    alone = not torch.distributed.is_initialized()
    text: dict[str, Any] = {"run": ""}
    model, states = get_state_dict(learner.trainer, learner.groups)
    state = {"model": model, "optimisers": states, "average": learner.average.weights}
    try:
        parts.load(text, checkpoint_id=folder, no_dist=alone)
        run = json.loads(text["run"])
        _require_same(settings, run["settings"])
        parts.load(state, checkpoint_id=folder, no_dist=alone)
    except CheckpointException as error:
        raise LlasaError(f"cannot go on from {folder}: {_reason(error)}: delete it to start this stage over") from error
    with loop.resuming(folder.parent, learner.groups):
        set_state_dict(learner.trainer, learner.groups, model_state_dict=model, optim_state_dict=states)
    return run


def keep(out: Path, settings: dict[str, Any], learner: Learner, run: dict[str, Any], main: bool) -> None:
    """Replaces the checkpoint, by one process or, of a sharded run, by all: after a kill it is the old one or the new.

    Args:
        run: `step`, `streams` and `log`.
        main: whether this is the main process.

    Raises:
        LlasaError: the disk is full.
    """
    if settings["shard"]:
        _write_parts(out, learner, run | {"settings": settings}, main)
        return
    with together():
        if main:
            states = [optimiser.state_dict() for optimiser in learner.groups]
            state = {"model": learner.trainer.state_dict(), "optimisers": states, "average": learner.average.weights}
            loop.save_checkpoint(out, state | run | {"settings": settings})


def _write_parts(out: Path, learner: Learner, run: dict[str, Any], main: bool) -> None:
    import torch.distributed.checkpoint as parts
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict import get_state_dict

    name = f"checkpoint-{run['step']:08d}"
    half = out / f".{name}.tmp"
    with together():
        if main:
            for left in out.glob(".checkpoint-*.tmp"):  # by a run that was killed
                shutil.rmtree(left, ignore_errors=True)
    with together(), loop.saving(out, half if main else None):
        model, states = get_state_dict(learner.trainer, learner.groups)
        # What is neither a tensor nor known beforehand goes as one text, or it would be taken apart.
        state = {"model": model, "optimisers": states, "average": learner.average.weights, "run": json.dumps(run)}
        try:
            parts.save(state, checkpoint_id=half, no_dist=not torch.distributed.is_initialized())
        except CheckpointException as error:
            raise OSError(0, f"the checkpoint could not be written ({_reason(error)})") from error
        if main:
            half.rename(out / name)
            for old in out.glob("checkpoint-*"):
                if old.name != name:
                    shutil.rmtree(old, ignore_errors=True)


def _reason(error: Any) -> str:
    """What went wrong in the first process where something did."""
    first = next(iter(error.failures.values()))[0]
    return getattr(first, "strerror", None) or (str(first).splitlines() or [type(first).__name__])[0]

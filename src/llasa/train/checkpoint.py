"""Saves and loads a stage's checkpoint: one file with all that resuming needs. Reading it runs no code."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from llasa.errors import LlasaError, first_line
from llasa.files import exists, is_folder, set_modes

CHECKPOINT = "checkpoint.pt"


@contextlib.contextmanager
def saving(folder: Path, half: Path | None = None) -> Iterator[None]:
    """A context for writing into a stage's folder: errors become one line, and `half`, a half-written file, is deleted.

    Raises:
        LlasaError: writing failed, for example because the disk is full.
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
        if half is not None and is_folder(half):
            shutil.rmtree(half, ignore_errors=True)
        elif half is not None:
            half.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A context that gives a fresh folder to write a model into. At its end that replaces `out`, as a whole.

    Raises:
        LlasaError: writing failed, for example because the disk is full.
    """
    fresh = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    with saving(out.parent, fresh):
        yield fresh
        set_modes(fresh, out)
        shutil.rmtree(out, ignore_errors=True)
        fresh.rename(out)


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Replaces the stage's checkpoint in one step: after a kill or a full disk, either the old or the new one is there.

    Raises:
        LlasaError: the disk is full.
    """
    temporary = folder / f".{CHECKPOINT}.tmp"
    with saving(folder, temporary):
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch's archive writer raises this for any system error
            free = shutil.disk_usage(folder).free / 2**30
            raise OSError(0, f"the checkpoint could not be written ({free:.1f} GB are free)") from error
        os.replace(temporary, folder / CHECKPOINT)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The stage's checkpoint, or None at a first start.

    Raises:
        LlasaError: the file is damaged, or holds anything but tensors and plain values.
    """
    path = folder / CHECKPOINT
    return load_tensors(path, "delete it to start this stage over") if exists(path) else None


def load_tensors(path: Path, remedy: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Loads tensors and plain values that `torch.save` wrote. No code that a pickle may hold runs.

    Raises:
        LlasaError: the file is damaged, or holds anything else; the message ends with `remedy`.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch's zip reader and unpickler may raise anything
        raise LlasaError(f"{path} is damaged ({type(error).__name__}): {remedy}") from error


@contextlib.contextmanager
def resuming(folder: Path, optimisers: list[torch.optim.Optimizer]) -> Iterator[None]:
    """A context for loading a checkpoint. Learning rates and decays stay the recipe's, since they may have changed.

    Raises:
        LlasaError: the checkpoint is of a model of other sizes, or of a run that trained other weights.
    """
    own = [[{k: v for k, v in group.items() if k != "params"} for group in one.param_groups] for one in optimisers]
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise LlasaError(
            f"{folder} has the checkpoint of another recipe ({first_line(error)}): restore the sizes and the choice of "
            "weights that learn, or set another `out`"
        ) from error
    for one, kept in zip(optimisers, own, strict=True):
        for group, values in zip(one.param_groups, kept, strict=True):
            group.update(values)


def require_same(folder: Path, before: dict[str, Any], now: dict[str, Any], keys: Iterable[str]) -> None:
    """Refuses to resume a run with other settings, if they would make it another run.

    Args:
        before: the settings in the checkpoint, nested.
        keys: dotted keys of the settings that must not change; a section's name stands for all keys in it.

    Raises:
        LlasaError: one has changed.
    """
    for key in keys:
        was, wanted = _value(before, key), _value(now, key)
        if was != wanted:
            raise LlasaError(
                f"{folder} was begun with `{key}: {was}`, which must stay until its end: set it back, or set another "
                "`out`"
            )


def _value(settings: dict[str, Any], key: str) -> Any:
    found: Any = settings
    for name in key.split("."):
        found = found[name]
    return found

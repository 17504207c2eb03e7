"""Saves and loads the checkpoint of a model in parts: a folder that all processes write and any number can read.

With FSDP2, each process holds a part of every weight, of its gradient and of the optimiser's state. torch reads such
folders with a plain unpickler. The unpickler here accepts only the classes of the metadata, so no code in a checkpoint
runs.
"""

import io
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader

from llasa.errors import LlasaError
from llasa.train.checkpoint import saving
from llasa.train.processes import is_main, together
from llasa.train.schedule import Average

Optimisers = list[torch.optim.Optimizer]
# The classes in the metadata that torch writes beside the parts.
METADATA = "torch.distributed.checkpoint.metadata"
PLAIN = {
    *(
        (METADATA, name)
        for name in (
            "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties", "TensorStorageMetadata",
            "ChunkStorageMetadata", "BytesStorageMetadata", "_MEM_FORMAT_ENCODING",
        )
    ),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"), ("torch.serialization", "_get_layout"),
    ("torch", "Size"), ("pathlib", "PosixPath"), ("pathlib._local", "PosixPath"),
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Finds a class of the metadata, and refuses any other."""
        is_type = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not is_type and (module, name) not in PLAIN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint does")
        return super().find_class(module, name)


class _Reader(FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
        """Like torch's own, with the unpickler above."""
        from torch.distributed.checkpoint.metadata import StorageMeta

        with self.fs.create_stream(self._get_metadata_path(kwargs.get("rank")), "rb") as file:
            metadata = _Unpickler(file).load()
        if getattr(metadata, "storage_meta", None) is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Planner(DefaultLoadPlanner):
    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        """Like torch's own, but refuses values that are not plain."""
        safe = io.BytesIO()
        torch.save(torch.load(value, weights_only=True), safe)
        safe.seek(0)
        super().load_bytes(read_item, safe)


def read_run(folder: Path) -> dict[str, Any]:
    """The plain values that `write_parts` saved as `run`.

    Raises:
        LlasaError: the checkpoint is damaged.
    """
    text = {"run": ""}
    _load(folder, text)
    return json.loads(text["run"])


def read_parts(folder: Path, model: torch.nn.Module, optimisers: Optimisers, average: Average) -> None:
    """Restores weights, optimisers and average. All processes must call it.

    Raises:
        LlasaError: the checkpoint is damaged, or of another model.
    """
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    weights, states = get_state_dict(model, optimisers)
    _load(folder, {"model": weights, "optimisers": states, "average": average.weights})
    set_state_dict(model, optimisers, model_state_dict=weights, optim_state_dict=states)


def _load(folder: Path, state: dict[str, Any]) -> None:
    import torch.distributed.checkpoint as parts
    from torch.distributed.checkpoint.api import CheckpointException

    alone = not torch.distributed.is_initialized()
    try:
        parts.load(state, storage_reader=_Reader(folder), planner=_Planner(), no_dist=alone)
    except CheckpointException as error:
        raise LlasaError(f"cannot resume from {folder} ({_reason(error)}): delete it to start over") from error


def write_parts(
    out: Path, model: torch.nn.Module, optimisers: Optimisers, average: Average, run: dict[str, Any]
) -> None:
    """Replaces the checkpoint in `out`: after a kill, the old or the new one is there. All processes must call it.

    Args:
        run: other plain values to save; `step` is among them.

    Raises:
        LlasaError: the disk is full.
    """
    import torch.distributed.checkpoint as parts
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict import get_state_dict

    name = f"checkpoint-{run['step']:08d}"
    half = out / f".{name}.tmp"
    with together():
        if is_main():
            for left in out.glob(".checkpoint-*.tmp"):  # left by a run that was killed
                shutil.rmtree(left, ignore_errors=True)
    with together(), saving(out, half if is_main() else None):
        weights, states = get_state_dict(model, optimisers)
        # Plain values are saved as one text, since torch would split them up.
        state = {"model": weights, "optimisers": states, "average": average.weights, "run": json.dumps(run)}
        try:
            parts.save(state, checkpoint_id=half, no_dist=not torch.distributed.is_initialized())
        except CheckpointException as error:
            raise OSError(0, f"the checkpoint could not be written ({_reason(error)})") from error
        if is_main():
            half.rename(out / name)
            for old in out.glob("checkpoint-*"):
                if old.name != name:
                    shutil.rmtree(old, ignore_errors=True)


def _reason(error: Any) -> str:
    """The error of the first process that failed."""
    first = next(iter(error.failures.values()))[0]
    return getattr(first, "strerror", None) or (str(first).splitlines() or [type(first).__name__])[0]

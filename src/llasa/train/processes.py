"""Connects the processes of a training that runs on several.

`torchrun` and `accelerate launch` describe the processes in environment variables. accelerate reads these and connects
the processes, over NCCL with GPUs and over gloo without.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from llasa.errors import LlasaError
from llasa.models.defaults import is_half

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def make_accelerator() -> Any:
    """An accelerate.Accelerator in bfloat16, with DDP for a whole copy of the model in each process.

    Raises:
        LlasaError: the launcher asks for something unsupported, or started one process instead of several.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    def on(name: str) -> bool:
        return os.environ.get(name, "").lower() in ("1", "true", "yes")

    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if on(f"ACCELERATE_USE_{name}"):
            raise LlasaError(
                f"launch without {name.replace('_', '-')}: the recipe's `memory.shard: true` is FSDP2 here"
            )
    if os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1") != "1":
        raise LlasaError(
            "the launcher cannot accumulate gradients: launch without it and set `data.rows` in the recipe"
        )
    # On CPUs accelerate's launcher starts several processes through MPI only; without MPI it silently starts one.
    if on("ACCELERATE_USE_CPU") and "MASTER_ADDR" in os.environ and not any(size in os.environ for size in _SIZES):
        raise LlasaError(
            "`accelerate launch --cpu` starts one process only where there is no MPI: use "
            "`torchrun --standalone --nproc-per-node 2 -m llasa train lm RECIPE`"
        )
    # Buffers are constants, so they need no broadcast. Gradients are views of the buckets, so they exist only once.
    plain = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    precision = "bf16" if torch.accelerator.is_available() or is_half("cpu") else "no"
    return Accelerator(mixed_precision=precision, cpu=not torch.accelerator.is_available(), kwargs_handlers=[plain])


def rank() -> int:
    """The number of this process; 0 if there is only one."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that prints and writes files."""
    return rank() == 0


def gather(value: Any) -> list[Any]:
    """The plain values of all processes, in their order."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def mean(values: torch.Tensor) -> torch.Tensor:
    """The mean over the processes, element by element."""
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
        values = values / torch.distributed.get_world_size()
    return values


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A context for code that may fail in some processes: if it fails in one, all end, and the first one reports why.

    Raises:
        LlasaError: this is the first process in which it failed.
        SystemExit: another process reports the error.
    """
    problem = ""
    try:
        yield
    except LlasaError as error:
        problem = str(error)
    problems = gather(problem)
    failed = [number for number, problem in enumerate(problems) if problem]
    if failed and failed[0] == rank():
        raise LlasaError(problem)
    if failed:
        raise SystemExit(1)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Gives all processes the mean of their gradients. All must have gradients of the same parameters."""
    if not torch.distributed.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))

"""How a training finds out that it is one process of several.

`torchrun` and `accelerate launch` say so in the environment; accelerate reads it and joins the processes, over NCCL
where there are GPUs and over gloo where there are none.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from llasa.errors import LlasaError

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def make_accelerator() -> Any:
    """An accelerate.Accelerator in bfloat16, and DDP for a whole copy of the model in each process.

    Raises:
        LlasaError: the launcher asked for what this training doesn't do, or started one process where several were
            asked for.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    def on(name: str) -> bool:
        return os.environ.get(name, "").lower() in ("1", "true", "yes")

    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if on(f"ACCELERATE_USE_{name}"):
            raise LlasaError(f"launch without {name.replace('_', '-')}: the recipe's `shard: true` is FSDP2 here")
    if os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1") != "1":
        raise LlasaError("the launcher cannot accumulate gradients: launch without it and set `rows` in the recipe")
    # On CPUs accelerate's launcher leaves the starting of processes to MPI, and without it quietly starts one alone.
    if on("ACCELERATE_USE_CPU") and "MASTER_ADDR" in os.environ and not any(size in os.environ for size in _SIZES):
        raise LlasaError(
            "`accelerate launch --cpu` starts one process only where there is no MPI: use "
            "`torchrun --standalone --nproc-per-node 2 -m llasa.cli train lm RECIPE`"
        )
    # The model's buffers are constants: nothing to broadcast. Gradients live in the buckets that are sent, once.
    plain = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    return Accelerator(mixed_precision="bf16", cpu=not torch.accelerator.is_available(), kwargs_handlers=[plain])


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Around what one process does for all, or what fails in all alike: all end, and the first that failed says why.

    Raises:
        LlasaError: it failed in this process.
        SystemExit: it failed in another, which says so.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object

    problem = ""
    try:
        yield
    except LlasaError as error:
        problem = str(error)
    problems = gather_object([problem])
    failed = [number for number, problem in enumerate(problems) if problem]
    if failed and failed[0] == PartialState().process_index:
        raise LlasaError(problem)
    if failed:
        raise SystemExit(1)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Gives all processes the mean of their gradients; of a single one nothing changes. All must have the same ones."""
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

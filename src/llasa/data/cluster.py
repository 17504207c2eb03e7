"""The shard tasks of `llasa data encode` on a Ray cluster.

Each task is one block of a Ray data set, mapped by a stateless function, which Ray Data retries without end. So a task
whose worker or node dies is run again wherever there is room; with actors, calls would wait for their own actor to come
back. A worker keeps its codec from one task to the next. Shards are renamed into place, so one that is made twice is
the same file twice.
"""

import pickle
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from llasa.codec import Codec
from llasa.data.encode import Job, Step, encode_task
from llasa.data.sources import Task
from llasa.errors import LlasaError, need_extra
from llasa.loading import check_device, first_line


def run_on_ray(job: Job, todo: list[Task], address: str) -> Iterator[Step]:
    """Runs tasks on a cluster; yields a step for each that is finished.

    Every node needs the package, and the source and the output folder under the same paths.

    Raises:
        LlasaError: ray is not installed, there is no such cluster, or what a task has raised.
    """
    with connected(address):
        yield from _map(job, todo)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Around work on a cluster, whose own errors it turns into one line.

    Raises:
        LlasaError: ray is not installed, there is no such cluster, or it cannot go on.
    """
    need_extra("cluster", "ray")
    _check_address(address)
    import logging

    import ray

    began_here = not ray.is_initialized()
    try:
        if began_here:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        yield
    except (ray.exceptions.RayError, ConnectionError, ValueError) as error:
        raise LlasaError(f"the Ray cluster at {address} cannot go on ({first_line(error)})") from error
    finally:
        if began_here:
            ray.shutdown()


def _check_address(address: str) -> None:
    """Makes sure that someone listens at `host:port`, for which Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise LlasaError(f"no Ray cluster answers at {address} ({reason.lower()}): see `ray status` there") from error


def _map(job: Job, todo: list[Task]) -> Iterator[Step]:
    import logging

    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    gpus = 1 if ray.cluster_resources().get("GPU") and job.device != "cpu" else None
    blocks = ray.data.from_items([{"task": pickle.dumps((job, task))} for task in todo], override_num_blocks=len(todo))
    for row in blocks.map_batches(_work, batch_size=1, num_cpus=1, num_gpus=gpus).iter_rows():
        if row["error"]:
            raise LlasaError(row["error"])
        yield Step(row["shard"], row["seconds"], row["forward"])


def _work(batch: dict[str, Any]) -> dict[str, list[Any]]:
    """One task, on a node. What is wrong with the input is told, not raised, for Ray would wrap it in a traceback."""
    job, task = pickle.loads(batch["task"][0])
    seconds = forward = 0.0
    error = ""
    try:
        # Made already, when its block was lost with a node after that.
        if not (job.out / task.shard).exists():
            for step in encode_task(_codec(job.model, check_device(job.device)), job, task):
                seconds, forward = seconds + step.seconds, forward + step.forward
    except LlasaError as problem:
        error = str(problem)
    return {"shard": [task.index], "seconds": [seconds], "forward": [forward], "error": [error]}


@lru_cache(maxsize=1)
def _codec(model: str, device: str) -> Codec:
    return Codec.load(model, device=device)

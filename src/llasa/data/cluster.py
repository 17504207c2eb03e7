"""Runs the shard tasks of `llasa data encode` on a Ray cluster.

Each task is one block of a Ray data set and is mapped by a stateless function, which Ray Data retries without limit. So
a task whose worker or node dies runs again wherever there is room; with actors, calls would wait for their own actor to
return. A worker keeps its codec from one task to the next. Shards are renamed into place, so making one twice does no
harm.
"""

import pickle
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from llasa.codec import Codec, load_codec
from llasa.data.encode import EncodeJob, Step, encode_task
from llasa.data.sources import Task
from llasa.errors import LlasaError, first_line, need_extra
from llasa.files import exists
from llasa.models.defaults import check_device


def run_on_ray(address: str, job: EncodeJob, todo: list[Task]) -> Iterator[Step]:
    """Runs tasks on a cluster and yields a step for each finished one.

    Every node needs the package, and the source and the output folder under the same paths.

    Raises:
        LlasaError: ray is not installed, there is no such cluster, or a task raised it.
    """
    if todo:
        with connected(address):
            yield from _map(job, todo)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connects to a cluster for the work inside, and turns Ray's errors into one line.

    Raises:
        LlasaError: ray is not installed, there is no such cluster, or the cluster fails.
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
        raise LlasaError(
            f"the Ray cluster at {address} failed ({first_line(error)}): run the same command again"
        ) from error
    finally:
        if began_here:
            ray.shutdown()


def _check_address(address: str) -> None:
    """Checks that something listens at `host:port`; Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise LlasaError(f"no Ray cluster answers at {address} ({reason.lower()}): see `ray status` there") from error


def _map(job: EncodeJob, todo: list[Task]) -> Iterator[Step]:
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
    """Runs one task on a node. Errors in the input are returned, because Ray would wrap a raised one in a traceback."""
    job, task = pickle.loads(batch["task"][0])
    seconds = forward = 0.0
    error = ""
    try:
        # The shard may exist already, if its block was lost with a node afterwards.
        if not exists(job.out / task.shard):
            for step in encode_task(_codec(job.model, check_device(job.device)), job, task):
                seconds, forward = seconds + step.seconds, forward + step.forward
    except LlasaError as problem:
        error = str(problem)
    return {"shard": [task.index], "seconds": [seconds], "forward": [forward], "error": [error]}


@lru_cache(maxsize=1)
def _codec(model: str, device: str) -> Codec:
    return load_codec(model, device=device)

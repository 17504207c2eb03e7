"""Shares work among processes of one thread each, which end when their parent ends, or among the nodes of a cluster."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

from llasa.errors import LlasaError

T = TypeVar("T")
R = TypeVar("R")


def share(
    work: Callable[[T], R], jobs: Sequence[T], processes: int = 1, ray: str | None = None
) -> Iterator[tuple[int, R]]:
    """Calls `work` with every job and yields each job's index and result as it finishes.

    Args:
        processes: how many run at once; one is this one, with all its threads.
        ray: the address of a Ray cluster. Each job is a task there, on its own GPU if the cluster has any. A task whose
            node dies runs again elsewhere. Every node needs the same files under the same paths.

    Raises:
        LlasaError: a process died, there is no such cluster; or whatever `work` raises.
    """
    if not jobs:
        return iter(())
    if ray is not None:
        return _on_ray(work, jobs, ray)
    return enumerate(map(work, jobs)) if processes == 1 else spread(work, jobs, processes)


def spread(
    work: Callable[[T], R],
    jobs: Sequence[T],
    processes: int,
    begin: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[tuple[int, R]]:
    """Calls `work` with every job, several at once, and yields each job's index and result as it finishes.

    Args:
        begin: called with `arguments` at the start of each process.

    Raises:
        LlasaError: a process died; or whatever `work` raises.
    """
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    # Not forked: a forked process would wait for threads that it does not have.
    pool = ProcessPoolExecutor(
        min(processes, len(jobs)), get_context("spawn"), initializer=_begin, initargs=(begin, arguments)
    )
    try:
        places = {pool.submit(work, job): place for place, job in enumerate(jobs)}
        for future in as_completed(places):
            yield places[future], future.result()
    except BrokenProcessPool as error:
        raise LlasaError("a process of the study died, perhaps because memory ran out: run it again") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent reports Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    if begin is not None:
        begin(*arguments)


def _end_with_parent() -> None:
    """Ends this process when its parent is killed. Otherwise it would finish the queue and wait for ever."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _on_ray(work: Callable[[T], R], jobs: Sequence[T], address: str) -> Iterator[tuple[int, R]]:
    from llasa.data.cluster import connected

    with connected(address):
        import ray

        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        task: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=-1)(_told)
        pending = {task.remote(work, job): place for place, job in enumerate(jobs)}
        while pending:
            (ready,), _ = ray.wait(list(pending))
            result, problem = ray.get(ready)
            if problem:
                raise LlasaError(problem)
            yield pending.pop(ready), result


def _told(work: Callable[[T], R], job: T) -> tuple[R | None, str]:
    """Does one job on a node. Errors are returned, because Ray would wrap a raised one in a traceback."""
    import torch

    torch.set_num_threads(1)
    try:
        return work(job), ""
    except LlasaError as problem:
        return None, str(problem)

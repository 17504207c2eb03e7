"""Shares work among processes of one thread each, which end when their parent ends, however it ends."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

from llasa.errors import LlasaError

T = TypeVar("T")
R = TypeVar("R")


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

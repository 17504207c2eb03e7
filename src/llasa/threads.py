"""How many threads torch computes with.

OpenMP's threads wait for one another by spinning, several times in every layer. That pays where a layer is much work. A
small model gains little on idle cores, and on busy ones two threads can take several times as long, since each waits
for another that the system has put aside (`benchmarks/threads.py`).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def at_most(count: int | None) -> Iterator[None]:
    """Inside, torch uses at most `count` threads; None changes nothing. It is a decorator, too."""
    before = torch.get_num_threads()
    if count is None or count >= before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# The threads of a process are not in its forks, which would wait for them for ever.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

"""Gives clients their turns: whoever has least under way is next, so that nobody waits behind another's pile."""

from collections import Counter, deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """What waits, by client. It is not locked."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}  # the client whose last turn is longest ago comes first

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, client: str, item: T) -> None:
        self._waiting.setdefault(client, deque()).append(item)

    def remove(self, client: str, item: T) -> None:
        """Takes an item out, if it still waits."""
        queue = self._waiting.get(client)
        if queue and item in queue:
            queue.remove(item)
            if not queue:
                del self._waiting[client]

    def next(self, busy: Iterable[str]) -> tuple[str, T]:
        """Takes the next item, and tells whose it is.

        Args:
            busy: the client of each item that is under way.

        Raises:
            IndexError: nothing waits.
        """
        if not self._waiting:
            raise IndexError("nothing waits")
        counts = Counter(busy)
        client = min(self._waiting, key=lambda name: counts[name])
        queue = self._waiting.pop(client)
        item = queue.popleft()
        if queue:
            self._waiting[client] = queue  # at the end
        return client, item

"""A training that is asked to stop at a certain step, as a signal would ask it."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llasa.train import loop


@contextmanager
def stopping_at(step: int) -> Iterator[None]:
    """Around trainings, which are asked to stop at this step, counted over all of them."""
    looks = itertools.count(1)  # the clock is looked at once a step

    class Stopping(loop.Clock):
        def due(self) -> bool:
            self.stop = next(looks) >= step
            return super().due()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Clock", Stopping)
        yield

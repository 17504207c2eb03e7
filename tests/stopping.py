"""Asking work to stop: a training at a certain step, a command at a certain import."""

import itertools
import signal
import subprocess
import sys
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


def interrupted(arguments: list[object], number: int, module: str, **options: object) -> tuple[int, str]:
    """Runs `llasa ARGUMENTS`, signals it once it has imported a module, and returns its exit status and its messages.

    An import is the same moment on every machine; a number of seconds is not.
    """
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "llasa", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell without job control starts its background jobs with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,  # type: ignore[call-overload]
    )
    with process:
        assert process.stderr is not None
        lines = iter(process.stderr)
        assert any(line.split("|")[-1].strip() == module for line in lines), f"{module} was not imported"
        process.send_signal(number)
        told = "".join(line for line in lines if not line.startswith("import time:"))
        return process.wait(60), told

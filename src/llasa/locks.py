"""One writer a folder: what keeps two runs of a long job from mixing their files."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llasa.errors import LlasaError, reason


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """A run's folder, made if need be, for this run alone.

    The lock is the kernel's, on a file that says whose it is: whoever held it and died, however it died, holds it no
    more.

    Raises:
        LlasaError: another run is writing into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as error:
        raise LlasaError(f"cannot write to {folder}: {reason(error)}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another one"
            raise LlasaError(
                f"a run ({holder}) is writing into {folder}: wait for it, stop it, or choose another folder"
            ) from error
        file.truncate(0)
        print(f"process {os.getpid()} on {platform.node()}", file=file, flush=True)
        yield

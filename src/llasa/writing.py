"""Files and folders that appear whole or not at all, whatever happens while they are written.

Knows names and what can go wrong with a disk; knows nothing of what is written.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from llasa.errors import LlasaError, reason, shown


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new name beside `path`; the file or folder that is made there takes the place of `path` at the end.

    A file may be there already, a folder only if it is empty. If anything is raised, what was made is removed.

    Raises:
        LlasaError: it cannot be written.
    """
    # A name has room for 255 bytes; part of the target's says what a killed process left.
    temporary = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:  # safetensors' own, of whatever the system said
        raise LlasaError(f"cannot write {shown(path)}: {reason(error)}") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError, ValueError):  # gone if all went well; never there if the path is none
                temporary.unlink()

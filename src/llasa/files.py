"""Looks at paths, reads files up to a limit, and writes files and folders whole or not at all.

It also gives each folder of a long job a single writer.
"""

import errno
import fcntl
import json
import os
import platform
import shutil
import stat
import tempfile
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

from llasa.errors import LlasaError, reason, shown

MB = 1 << 20
RECORDING_LIMIT = 256 * MB  # of a recording in an archive or a pipe: two hours of 16-bit speech at 16 kHz
TEXT_LIMIT = 256 * MB  # the most that is read of a text or a table; a corpus larger than this comes in shards


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder at this path.

    Raises:
        LlasaError: the system does not tell, because a folder above may not be entered or the path is too long. Of
            these, `Path.is_dir` makes a traceback, and `os.path.isdir` a false "no".
    """
    return stat.S_ISDIR(_mode(path))


def is_file(path: str | Path) -> bool:
    """Whether there is a regular file at this path, not a pipe or a device. Raises as `is_folder`."""
    return stat.S_ISREG(_mode(path))


def exists(path: str | Path) -> bool:
    """Whether there is anything at this path. Raises as `is_folder`."""
    return _mode(path) != 0


def absolute(path: str | Path) -> Path:
    """The path from the root, its links followed as far as they lead. Unlike for `Path.resolve`, a loop is no error."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # no file can have such a name, as whoever opens it will find
        return Path(path)


def _mode(path: str | Path) -> int:
    """Type and mode of what a path leads to; 0 if there is nothing."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no file can have such a name
        return 0
    except OSError as error:
        if error.errno == errno.ELOOP:
            return 0
        raise LlasaError(f"cannot read {shown(path)}: {reason(error)}") from error


def read_bytes(path: str | Path, most: int = TEXT_LIMIT) -> bytes:
    """The content of a file, a pipe or a device.

    Args:
        most: the most bytes that it may have.

    Raises:
        LlasaError: it does not exist, cannot be read, or has more bytes.
    """
    try:
        with open(path, "rb") as file:
            return read_limited(file, shown(path), most)
    except FileNotFoundError as error:
        raise LlasaError(f"there is no file {shown(path)}") from error
    except (OSError, ValueError) as error:
        raise LlasaError(f"cannot read {shown(path)}: {reason(error)}") from error


def read_text(path: str | Path, most: int = TEXT_LIMIT) -> str:
    """The content of a text file, without a byte order mark.

    Raises:
        LlasaError: as `read_bytes`, or it is not UTF-8.
    """
    return decode(read_bytes(path, most), shown(path))


def decode(data: bytes, name: str) -> str:
    """Bytes as text, without a byte order mark and with one kind of line end.

    Raises:
        LlasaError: they are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise LlasaError(f"{name} is not UTF-8 text: save it as such") from error


def parse_json(text: str | bytes) -> Any:
    """The value in a JSON text.

    Raises:
        ValueError: it is not JSON, or nested more deeply than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_limited(file: BinaryIO, name: str, most: int = TEXT_LIMIT) -> bytes:
    """What is left in an open file.

    Args:
        name: what to call it in an error.
        most: the most bytes that may be left.

    Raises:
        LlasaError: there are more.
    """
    pieces, count = list[bytes](), 0
    while piece := file.read(min(MB, most + 1 - count)):  # in pieces, so that a device that never ends costs no more
        pieces.append(piece)
        count += len(piece)
        if count > most:
            raise LlasaError(
                f"{name} has more than the {most // MB} MB that are read of such a file: pass a smaller one"
            )
    return b"".join(pieces)


def listed(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files with certain suffixes below a folder, sorted, without hidden ones, which macOS leaves beside the real.

    Pipes and devices are left out. What cannot be looked at is listed, so that whoever opens it can say why not.
    """
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return sorted(path for path in found if os.path.isfile(path) or not os.path.exists(path))


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`. What is written there replaces `path` at the end.

    `path` may be an existing file, whose mode and owner stay; an empty folder; or a link, which is followed. A pipe or
    a device cannot be replaced, so the file is copied into it. New files get the mode that the umask gives. If an
    exception is raised, the temporary file is removed.

    Raises:
        LlasaError: the file cannot be written, or is read-only.
    """
    _refuse_read_only(path)
    replaces, target = _is_replaced(path), _target(path)
    # A name has room for 255 bytes. Part of the target's name shows what a killed process left behind.
    folder = target.parent if replaces else Path(tempfile.gettempdir())
    temporary = folder / f".{target.name[:40]}.{uuid.uuid4().hex}.tmp"
    try:
        yield temporary
        if replaces:
            set_modes(temporary, target)
            os.replace(temporary, target)
        else:
            with temporary.open("rb") as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink)
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's errors in its own
        raise LlasaError(f"cannot write {shown(path)}: {reason(error)}") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError, ValueError):  # it is gone if all went well, and never existed if the name is invalid
                temporary.unlink()


def check_target(path: Path) -> None:
    """Checks that `whole` can write a file, before any work is done.

    Raises:
        LlasaError: the folder does not exist or cannot be written to, or the path is a folder or a read-only file.
    """
    if is_folder(path):
        raise LlasaError(f"cannot write {shown(path)}: it is a folder")
    _refuse_read_only(path)
    try:
        if _is_replaced(path):
            with tempfile.NamedTemporaryFile(dir=_target(path).parent, prefix=".llasa"):
                pass
        elif not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "")
    except OSError as error:
        raise LlasaError(f"cannot write {shown(path)}: {reason(error)}") from error


def _refuse_read_only(path: Path) -> None:
    mode = _mode(path)
    if stat.S_ISREG(mode) and not (mode & 0o222 and os.access(path, os.W_OK)):  # root may write to any
        raise LlasaError(f"cannot write {shown(path)}: it is read-only")


def _is_replaced(path: Path) -> bool:
    """Whether a new file can take the path's place; a pipe or a device is written to instead."""
    mode = _mode(path)
    return not mode or stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _target(path: Path) -> Path:
    """The path itself, or where it leads if it is a link."""
    return absolute(path) if os.path.islink(path) else path


def set_modes(made: Path, target: Path) -> None:
    """Gives new files the mode that the umask gives, since some libraries write for the owner alone.

    A file that replaces another gets the other's mode, and its owner as far as the system allows.
    """
    if made.is_dir():
        probe = made / f".{uuid.uuid4().hex}"
        probe.touch()
        mode = stat.S_IMODE(probe.stat().st_mode)
        probe.unlink()
        for path in made.rglob("*"):
            if path.is_file() and not path.is_symlink():
                path.chmod(mode)
    elif target.is_file():
        before = target.stat()
        with suppress(OSError):
            os.chown(made, before.st_uid, before.st_gid)
        made.chmod(stat.S_IMODE(before.st_mode))
    else:
        probe = made.with_suffix(".mode")
        probe.touch()
        made.chmod(stat.S_IMODE(probe.stat().st_mode))
        probe.unlink()


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Makes a run's folder if need be, and locks it for this run.

    The kernel holds the lock, on a file that names the owner. It releases the lock when the process ends, however it
    ends.

    Raises:
        LlasaError: another run is writing into the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except (OSError, ValueError) as error:  # ValueError: no folder can have such a name
        raise LlasaError(f"cannot write to {shown(folder)}: {reason(error)}") from error
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

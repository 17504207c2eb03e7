"""What lies where something was to be written: all of the new, or all of the old, and nothing beside it."""

import errno
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file
from warm import kill

from llasa.errors import LlasaError
from llasa.files import claimed, exists, is_file, is_folder, read_bytes, read_text, whole


def write(path: Path, make: Callable[[Path], object] = Path.touch, error: BaseException | None = None) -> None:
    with whole(path) as temporary:
        make(temporary)
        if error:
            raise error


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text("{}")


def test_a_file_takes_the_place_of_the_old_one_at_the_end(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_takes_the_place_of_none_or_of_an_empty_one(tmp_path: Path, there: bool):
    if there:
        (tmp_path / "model").mkdir()
    write(tmp_path / "model", make_folder)
    assert os.listdir(tmp_path / "model") == ["config.json"]
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a row is no row"), LlasaError("of its own")])
@pytest.mark.parametrize("make", [Path.touch, make_folder])
def test_what_is_raised_passes_and_leaves_the_old(tmp_path: Path, make: Callable, error: BaseException):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(type(error)):
        write(tmp_path / "a.txt", make, error)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "wrapped"), SafetensorError("I/O error: No space left on device")]
)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, error: Exception):
    with pytest.raises(LlasaError, match=r"cannot write .*a\.txt: .*no space left on device") as raised:
        write(tmp_path / "a.txt", error=error)
    assert "wrapped" not in str(raised.value)
    assert os.listdir(tmp_path) == []


def test_a_folder_with_something_in_it_stays(tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    for make in (Path.touch, make_folder):
        with pytest.raises(LlasaError, match=r"cannot write .*model: (is a directory|directory not empty)"):
            write(tmp_path / "model", make)
    assert os.listdir(tmp_path) == ["model"]
    assert os.listdir(tmp_path / "model") == ["mine"]


def test_a_folder_that_is_none_is_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "gone" / "a", tmp_path / "file" / "a", tmp_path / "gone\nand" / "a"):
        with pytest.raises(LlasaError, match=r"cannot write .*(no such file|not a directory)") as raised:
            write(path)
        assert "\n" not in str(raised.value)


def test_a_name_may_be_as_long_as_names_may_be(tmp_path: Path):
    for name in ("a" * 255, "ш" * 127):
        write(tmp_path / name)
        assert (tmp_path / name).exists()


def as_nobody(act: Callable[[], object]) -> str:
    """Runs `act` in a child process of another user, since root may enter any folder; returns its LlasaError."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            act()
            told = "nothing was raised"
        except LlasaError as error:
            told = f"LlasaError: {error}"
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader) as file:
        return file.read()


@pytest.mark.parametrize("ask", [is_folder, is_file, exists, read_bytes, read_text])
def test_a_path_that_may_not_be_looked_at_is_one_line(tmp_path: Path, ask: Callable):
    tmp_path.chmod(0o700)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    told = as_nobody(lambda: ask(closed / "file"))
    assert told.startswith("LlasaError: cannot ")
    assert "permission denied" in told
    with pytest.raises(LlasaError, match="file name too long"):
        ask(tmp_path / ("n" * 300))
    with pytest.raises(LlasaError, match="file name too long"):
        ask("/".join(["folder"] * 1000))


@pytest.mark.parametrize("ask", [is_folder, is_file, exists])
@pytest.mark.parametrize("name", ["gone", "file/below", "loop", "a\0b", "a\ud800b", ""])
def test_a_path_with_nothing_there_is_no(tmp_path: Path, ask: Callable, name: str):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert ask(f"{tmp_path}/{name}" if name else "") is False


def test_devices_and_pipes_are_no_files(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    assert exists(tmp_path / "pipe")
    assert not is_file(tmp_path / "pipe")
    assert not is_file("/dev/zero")


def test_no_more_is_read_than_the_limit(tmp_path: Path):
    (tmp_path / "some").write_bytes(b"a" * 3_000_000)
    assert read_bytes(tmp_path / "some", 3_000_000) == b"a" * 3_000_000
    for path in (tmp_path / "some", Path("/dev/zero")):
        with pytest.raises(LlasaError, match=f"{path} has more than the 2 MB that are read"):
            read_bytes(path, 2_999_999)


def test_text_comes_without_its_mark_and_with_plain_line_ends(tmp_path: Path):
    (tmp_path / "text").write_bytes("\ufeffa\r\nb\rc\n".encode())
    assert read_text(tmp_path / "text") == "a\nb\nc\n"
    (tmp_path / "text").write_bytes(b"caf\xe9")
    with pytest.raises(LlasaError, match="is not UTF-8 text"):
        read_text(tmp_path / "text")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path, mode: int):
    (tmp_path / "a").touch()
    (tmp_path / "a").chmod(mode)
    write(tmp_path / "a", lambda path: path.write_text("new"))
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
def test_new_files_get_the_mode_of_the_umask(tmp_path: Path, mask: int):
    """Whatever the library that writes them chooses: safetensors writes for the owner alone."""

    def both(path: Path) -> None:
        path.mkdir()
        save_file({"a": np.zeros(3)}, path / "a.safetensors")
        (path / "b.txt").touch()

    before = os.umask(mask)
    try:
        write(tmp_path / "file", lambda path: save_file({"a": np.zeros(3)}, path))
        write(tmp_path / "folder", both)
    finally:
        os.umask(before)
    for path in (tmp_path / "file", tmp_path / "folder" / "a.safetensors", tmp_path / "folder" / "b.txt"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert sorted(os.listdir(tmp_path / "folder")) == ["a.safetensors", "b.txt"]


def test_a_read_only_file_is_not_replaced(tmp_path: Path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o444)
    with pytest.raises(LlasaError, match="it is read-only"):
        write(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed(tmp_path: Path, there: bool):
    (tmp_path / "far").mkdir()
    if there:
        (tmp_path / "far" / "a").write_text("old")
    (tmp_path / "link").symlink_to("far/a")
    write(tmp_path / "link", lambda path: path.write_text("new"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "a").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["far", "link"]


def test_a_pipe_is_written_to(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    thread.start()
    write(pipe, lambda path: path.write_bytes(b"new" * 100_000))
    thread.join(10)
    assert read == [b"new" * 100_000]
    assert os.listdir(tmp_path) == ["pipe"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_that_is_full_is_one_line():
    with pytest.raises(LlasaError, match="cannot write /dev/full: no space left on device"):
        write(Path("/dev/full"), lambda path: path.write_bytes(b"new"))


HOLD = """
import sys
from pathlib import Path
from llasa.files import claimed
with claimed(Path(sys.argv[1])):
    print("mine", file=sys.stderr, flush=True)
    sum(range(10**8))  # no other thread of the process runs meanwhile
"""


def test_what_a_killed_process_held_is_free(python: list[str], tmp_path: Path):
    process = subprocess.Popen([*python, "-c", HOLD, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "mine\n"
    with pytest.raises(LlasaError, match=r"a run \(process \d+ on .*\) is writing into"), claimed(tmp_path):
        pass
    kill(process)
    with claimed(tmp_path):
        pass

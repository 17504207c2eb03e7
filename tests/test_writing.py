"""What lies where something was to be written: all of the new, or all of the old, and nothing beside it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from llasa.errors import LlasaError
from llasa.writing import whole


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

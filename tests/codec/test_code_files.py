"""Codes survive their file; what is no file of codes is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llasa.codec import load_codes, load_length, save_codes
from llasa.errors import LlasaError


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 65535), min_size=1, max_size=50))
def test_saving_and_loading(tmp_path: Path, codes: list[int]) -> None:
    save_codes(tmp_path / "codes.npy", np.array(codes))
    loaded = load_codes(tmp_path / "codes.npy")
    assert loaded.dtype == np.uint16
    assert loaded.tolist() == codes
    assert [path.name for path in tmp_path.iterdir()] == ["codes.npy"]


def test_the_length_lies_after_the_codes(tmp_path: Path) -> None:
    path = tmp_path / "codes.npy"
    save_codes(path, np.arange(50), 16000)
    assert (load_length(path), load_codes(path).tolist()) == (16000, list(range(50)))
    np.testing.assert_array_equal(np.load(path), np.arange(50))  # as others read it
    whole = path.read_bytes()
    save_codes(path, np.arange(50))
    assert load_length(path) is None
    for size in range(len(path.read_bytes()), len(whole)):  # a file that was cut off, or has something else behind it
        path.write_bytes(whole[:size])
        assert load_length(path) is None
        assert len(load_codes(path)) == 50


def test_a_missing_suffix_is_not_added(tmp_path: Path) -> None:
    save_codes(tmp_path / "codes", np.array([1]))
    assert load_codes(tmp_path / "codes").tolist() == [1]


def test_any_integer_type_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([5, 63], dtype=np.int64))
    assert load_codes(tmp_path / "a.npy", 64).tolist() == [5, 63]


def refuse(path: Path, message: str) -> None:
    with pytest.raises(LlasaError, match=message) as caught:
        load_codes(path, 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([64]), "code 64 is outside"),
        (np.array([-5]), "code -5 is outside"),
        (np.array([0.5]), "whole numbers"),
        (np.array([True]), "whole numbers"),
        (np.zeros((2, 2), dtype=int), "one row"),
        (np.zeros(0, dtype=int), "no codes"),
        (np.array([{"a": 1}], dtype=object), "damaged or not"),
    ],
)
def test_bad_arrays_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "bad.npy", array)
    refuse(tmp_path / "bad.npy", message)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    refuse(tmp_path / "nothing.npy", "there is no file")
    (tmp_path / "text.npy").write_text("not an array")
    refuse(tmp_path / "text.npy", "damaged or not")
    (tmp_path / "empty.npy").touch()
    refuse(tmp_path / "empty.npy", "damaged or not")
    np.save(tmp_path / "long.npy", np.arange(60))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "long.npy").read_bytes()[:200])
    refuse(tmp_path / "cut.npy", "damaged or not")
    np.savez(tmp_path / "many.npz", a=np.arange(3))
    refuse(tmp_path / "many.npz", "archive")
    refuse(tmp_path, "cannot read")


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match="cannot write"):
        save_codes(tmp_path / "no" / "such" / "folder.npy", np.array([1]))
    with pytest.raises(LlasaError, match="outside"):
        save_codes(tmp_path / "big.npy", np.array([70000]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("header", [b"{'descr': '<u2', 'shape': (" + b"(" * 5000, b"\x00" * 64, b"{'descr': '<u2'",
                                    b"[" * 9999,
                                    b"{'descr': '<u2', 'fortran_order': False, 'shape': (%d,)}" % 10**30])  # fmt: skip
def test_a_header_that_is_none_is_one_line(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100))
    with pytest.raises(LlasaError, match=r"a\.npy is damaged or not a \.npy file"):
        load_codes(path)

"""Runs the command line and reads what it puts out."""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import soundfile


class Result(NamedTuple):
    code: int
    out: bytes
    err: str


Run = Callable[..., Result]


def fails(result: Result, message: str) -> None:
    """One line on standard error that says `message`, and nothing on standard output."""
    assert result.code == 1
    assert result.out == b""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert message in result.err


def read_wav(data: bytes) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == 16000
    assert samples.ndim == 1
    return samples

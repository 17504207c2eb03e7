"""Reads the recordings that clients send: bounded in bytes and seconds, and decoded in a process of their own.

A damaged or hostile file can crash a decoder, or make it take all memory. That process has little memory and little
time (`decoding.py`), and nothing else is lost with it.
"""

import asyncio
import base64
import binascii
import os
import sys
from urllib.parse import unquote_to_bytes

import numpy as np

from llasa.reference import READ
from llasa.serve.decoding import BYTES, PATIENCE
from llasa.serve.problems import Problem


def data_of(url: str) -> bytes:
    """The content of a data URL.

    Raises:
        Problem: it is none, or is too large.
    """
    head, comma, body = url.partition(",")
    if not head.startswith("data:") or not comma:
        raise Problem("ref_audio must be a data URL, or the id of a voice: nothing is fetched", param="ref_audio")
    if len(body) > 2 * BYTES:
        raise _large()
    try:
        data = base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
    except binascii.Error as error:
        raise Problem("ref_audio is not base64: encode it again", param="ref_audio") from error
    return check_size(data)


def check_size(data: bytes, param: str = "ref_audio") -> bytes:
    """Refuses what is too large to be a recording, or empty."""
    if len(data) > BYTES:
        raise _large(param)
    if not data:
        raise Problem("the recording is empty (0 bytes)", param=param)
    return data


def _large(param: str = "ref_audio") -> Problem:
    return Problem(f"the recording has more than {BYTES >> 20} MB: send a shorter one", 413, param, "too_large")


async def samples_of(data: bytes, seconds: float = READ, param: str = "ref_audio") -> np.ndarray:
    """The samples (N,) float32 at `decoding.RATE` Hz of a recording in any format.

    Args:
        seconds: the longest that it may last.
        param: the field that it came in.

    Raises:
        Problem: it is not audio, is too long, or takes too much memory or time to decode.
    """
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llasa.serve.decoding", str(seconds), env=environment,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        out, _ = await asyncio.wait_for(process.communicate(data), PATIENCE)
    except TimeoutError:
        out = b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    kind, body = out[:1], out[1:]
    if kind == b"+":
        return np.frombuffer(body, np.float32)
    if kind == b"-":
        raise Problem(body.decode(), param=param)
    raise Problem("the recording takes too much memory or time to decode: send it as WAV", param=param)

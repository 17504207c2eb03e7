"""Codes on disk: NumPy's .npy with one dimension of uint16, which array libraries of most languages can read.

After the codes, a file may hold a second array, the number of samples that they were made of. Codes alone stand for
whole hops, so a recording would come back longer, and longer with each time. Readers of one array pass it over.
"""

from pathlib import Path

import numpy as np

from llasa.errors import LlasaError
from llasa.files import whole


def check_codes(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """Checks codes and returns them as (T,) int64.

    Raises:
        LlasaError: they are not whole numbers in one dimension, or one lies outside the codebook.
    """
    array = np.asarray(codes)
    if array.ndim != 1:
        raise LlasaError(
            f"codes must be one row of numbers, not an array of shape {array.shape}: pass one clip at a time"
        )
    if array.size and array.dtype.kind not in "iu":
        raise LlasaError(f"codes must be whole numbers, not {array.dtype}: are these samples instead of codes?")
    if array.size and not 0 <= array.min() <= array.max() < codebook_size:
        bad = array.min() if array.min() < 0 else array.max()
        raise LlasaError(
            f"code {bad} is outside this codec's codebook of {codebook_size}: was it made by another codec?"
        )
    return array.astype(np.int64)


def save_codes(path: str | Path, codes: np.ndarray, samples: int | None = None) -> None:
    """Writes codes to a .npy file as uint16. The file appears whole or not at all.

    Args:
        samples: how many samples they were made of, if `load_length` is to know.

    Raises:
        LlasaError: the codes do not fit uint16, or the file cannot be written.
    """
    array = check_codes(codes, 1 << 16).astype(np.uint16)
    with whole(Path(path)) as temporary, temporary.open("wb") as file:
        np.save(file, array)
        if samples is not None:
            np.save(file, np.int64(samples))


def load_codes(path: str | Path, codebook_size: int = 1 << 16) -> np.ndarray:
    """Reads codes from a .npy file of any integer type.

    Returns:
        (T,) uint16.

    Raises:
        LlasaError: the file is missing, damaged, empty or not one row of whole numbers, or a code lies outside the
            codebook.
    """
    try:
        # Mapped, because a header that promises more than the file holds then fails before anything is allocated.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise LlasaError(f"there is no file {path}") from error
    except OSError as error:
        raise LlasaError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # numpy reads the header as Python source, whose tokenizer and parser raise anything
        raise LlasaError(
            f"{path} is damaged or not a .npy file of codes: write it again with `llasa encode`"
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise LlasaError(f"{path} is an archive of several arrays, not a .npy file of codes")
    try:
        codes = check_codes(array, codebook_size).astype(np.uint16)
    except LlasaError as error:
        raise LlasaError(f"{path}: {error}") from error
    if not codes.size:
        raise LlasaError(f"{path} holds no codes: encode the audio again")
    return codes


def load_length(path: str | Path) -> int | None:
    """The number of samples that the codes in a .npy file were made of, or None if it does not say so.

    Call it after `load_codes`, which tells what is wrong with a file.
    """
    try:
        with open(path, "rb") as file:
            np.load(file, allow_pickle=False)
            length = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return int(length) if isinstance(length, np.ndarray) and not length.ndim and length.dtype.kind in "iu" else None

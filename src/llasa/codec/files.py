"""Codes on disk: NumPy's .npy, one dimension of uint16, readable from every language that has an array library.

Knows the file; knows nothing of what the codes sound like.
"""

from pathlib import Path

import numpy as np

from llasa.errors import LlasaError
from llasa.writing import whole


def check_codes(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """Codes as (T,) int64, known to be in range.

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


def save_codes(path: str | Path, codes: np.ndarray) -> None:
    """Writes codes to a .npy file as uint16, whole or not at all.

    Raises:
        LlasaError: they do not fit uint16, or the file cannot be written.
    """
    array = check_codes(codes, 1 << 16).astype(np.uint16)
    with whole(Path(path)) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def load_codes(path: str | Path, codebook_size: int = 1 << 16) -> np.ndarray:
    """Reads codes from a .npy file of any integer type.

    Returns:
        (T,) uint16.

    Raises:
        LlasaError: the file is missing, damaged, not one row of whole numbers, empty, or holds codes outside the
            codebook.
    """
    try:
        # Mapped, a header that promises more than the file holds fails at once, not after allocating what it promises.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise LlasaError(f"there is no file {path}") from error
    except OSError as error:
        raise LlasaError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
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

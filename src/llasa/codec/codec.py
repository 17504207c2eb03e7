"""A codec as one object: 16 kHz sound to codes, 50 a second, and back.

This module checks sound and codes and cuts long ones into windows. Each kind of codec computes a window in its own way:
`Xcodec2` in `xcodec2.py`, `Harmonic` in `harmonic_codec.py`. Every window has real context on both sides, so the codes
have no seams, and memory grows with the window instead of the file.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from llasa.codec.code_files import check_codes
from llasa.codec.features import HOP, RATE
from llasa.errors import LlasaError

WHOLE = 3000  # most codes in one pass, 60 s; attention's memory grows with their square
WINDOW = 1000  # codes in a window of a longer recording, 20 s
CONTEXT = 100  # codes of context on either side of a window, 2 s
LOUDEST = 1000.0  # full scale is 1: resampling exceeds it slightly, 16-bit integers mistaken for floats by far


class Stream(Protocol):
    """Codes in, samples out: in all, `hop` samples a code. One codec can serve several streams at once."""

    def push(self, codes: np.ndarray) -> np.ndarray:
        """Takes (T,) more codes. Returns the float32 samples that later codes cannot change, perhaps none.

        Raises:
            LlasaError: a code is out of range; the stream continues as if this push had not happened.
        """

    def finish(self) -> np.ndarray:
        """Returns the samples still held back, and resets the stream."""


class Codec(ABC):
    """A codec ready for inference.

    Attributes:
        model: the transformers model.
        rate: sample rate, Hz.
        hop: samples a code.
        levels: number of levels in each dimension of the quantiser.
        codebook_size: number of codes, the product of the levels.
        lookahead: how many codes after a piece its sound depends on.
    """

    lookahead: int

    def __init__(self, model: Any) -> None:
        config = model.config
        if config.sampling_rate != RATE or config.hop_length != HOP:
            raise LlasaError(
                f"this codec works at {config.sampling_rate} Hz with {config.hop_length} samples a code; "
                f"only {RATE} Hz and {HOP} are supported"
            )
        self.model = model.eval()
        self.rate, self.hop = RATE, HOP
        self.levels = [int(level) for level in config.quantization_levels]
        self.codebook_size = int(np.prod(self.levels))
        if self.codebook_size > 1 << 16:
            raise LlasaError(f"this codec has {self.codebook_size} codes; at most {1 << 16} fit the formats of codes")

    @property
    def for_autocast(self) -> "Codec":
        """The same codec, prepared to decode under `torch.autocast` to bfloat16."""
        return self

    @abstractmethod
    def count(self, samples: int) -> int:
        """The number of codes that a number of samples becomes."""

    @abstractmethod
    def encode_window(self, samples: np.ndarray, first: int, last: int) -> np.ndarray:
        """Encodes the part of the samples (N,) from code `first` to code `last`, as if it were the whole recording.

        Returns:
            (last - first,) codes.
        """

    @abstractmethod
    def encode_batch(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Encodes several clips at once. Each gets the codes that it would get alone.

        Args:
            clips: (N_i,) arrays as for `encode`.

        Returns:
            the codes of each clip, uint16, in the same order.

        Raises:
            LlasaError: as `encode`, for any of the clips.
        """

    @abstractmethod
    def decode_pieces(self, codes: np.ndarray) -> Iterator[np.ndarray]:
        """Decodes a window at a time and yields consecutive pieces of sound, for what is too long to hold in memory."""

    @abstractmethod
    def decode_stream(self, before: np.ndarray | None = None) -> Stream:
        """A decoder for codes as they come.

        Args:
            before: the codes that these continue, such as those of a reference.

        Raises:
            LlasaError: a code of `before` is out of range.
        """

    @abstractmethod
    def decode_window(self, codes: np.ndarray) -> np.ndarray:
        """Decodes (T,) int64 codes, known to be in range, to (T * hop,) float32 in one pass; memory grows with T.

        Rows of one length, (B, T), become (B, T * hop).
        """

    def encode(self, samples: np.ndarray, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Sound of any length to codes. More than a minute is encoded in windows.

        Args:
            samples: (N,) float, 16 kHz mono, -1 to 1. It may be a memory map, which is never copied whole.
            progress: called after every window with the number of samples encoded so far.

        Returns:
            (`count(N)`,) uint16.

        Raises:
            LlasaError: there are no samples, they are not one row of floats, or some are NaN or far beyond full scale.
        """
        check_samples(samples)
        total = self.count(len(samples))
        codes = np.empty(total, dtype=np.uint16)
        for start, stop in windows(total):
            first, last = max(0, start - CONTEXT), min(total, stop + CONTEXT)
            codes[start:stop] = self.encode_window(samples, first, last)[start - first : stop - first]
            if progress:
                progress(min(stop * HOP, len(samples)))
        return codes

    def decode(self, codes: np.ndarray, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Any number of codes to sound. More than a minute is decoded in windows.

        Args:
            codes: (T,) integers.
            progress: called after every window with the number of codes decoded so far.

        Returns:
            (T * hop,) float32.

        Raises:
            LlasaError: they are not one row of integers, or some are out of range.
        """
        array = check_codes(codes, self.codebook_size)
        samples = np.empty(len(array) * HOP, dtype=np.float32)
        done = 0
        for piece in self.decode_pieces(array):
            samples[done : done + len(piece)] = piece
            done += len(piece)
            if progress:
                progress(done // HOP)
        return samples

    def slice(self, samples: np.ndarray, start: int, stop: int) -> torch.Tensor:
        """(stop - start,) samples on the model's device, with zeros beyond either end of the recording."""
        piece = np.array(samples[max(0, start) : stop], dtype=np.float32)
        padded = np.pad(piece, (max(0, -start), stop - max(0, start) - len(piece)))
        return torch.from_numpy(padded).to(self.model.device)


def windows(total: int) -> list[tuple[int, int]]:
    """The range 0 to `total`: whole, or cut into as few equal parts of at most WINDOW as possible."""
    parts = 1 if 0 < total <= WHOLE else -(-total // WINDOW)
    return [(total * i // parts, total * (i + 1) // parts) for i in range(parts)]


def check_samples(samples: np.ndarray) -> None:
    """Refuses arrays that are not sound.

    Raises:
        LlasaError: there are no samples, they are not one row of floats, or some are NaN or far beyond full scale.
    """
    if samples.ndim != 1:
        raise LlasaError(f"the codec takes one channel, not an array of shape {samples.shape}: mix it down to mono")
    if samples.dtype.kind != "f":
        raise LlasaError(
            f"the codec takes samples from -1.0 to 1.0, not {samples.dtype}: load audio with llasa.audio.load"
        )
    if not len(samples):
        raise LlasaError("the recording is empty: record it again")
    block = WINDOW * HOP
    for start in range(0, len(samples), block):
        # Not `peak > LOUDEST`: comparing with NaN is always false.
        if not np.abs(samples[start : start + block]).max() <= LOUDEST:
            raise LlasaError("some samples of the audio are NaN, or far beyond -1 to 1: save the recording again")

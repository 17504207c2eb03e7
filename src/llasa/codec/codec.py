"""A codec as one object: 16 kHz sound to codes, 50 a second, and back.

Knows windows, and what can be wrong with sound and codes. What becomes of a window is each kind's own affair: `Xcodec2`
in `xcodec2.py`, `Harmonic` in `harmonic_codec.py`. Whatever is longer than a window is cut into windows with real
context on both sides, so memory is bounded by a window, not by the file, and the codes have no seams.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from llasa.codec.convert import find, read
from llasa.codec.features import HOP, RATE
from llasa.codec.files import check_codes
from llasa.codec.harmonic import HarmonicCodecConfig
from llasa.errors import LlasaError
from llasa.loading import first_line, hush_transformers

WHOLE = 3000  # most codes, 60 s, that go through in one pass; attention's memory grows with their square
WINDOW = 1000  # codes, 20 s, of which longer recordings are made up
CONTEXT = 100  # codes on either side of a window, 2 s
LOUDEST = 1000.0  # full scale is 1; resampling may overshoot it a little, 16-bit integers mistaken for floats by far


class Stream(Protocol):
    """Codes in, samples out, `hop` samples a code in all. Several may run over one codec at once."""

    def push(self, codes: np.ndarray) -> np.ndarray:
        """Takes (T,) more codes; returns the float32 samples that are now certain, perhaps none.

        Raises:
            LlasaError: a code is out of range; the stream goes on as if this push had not been.
        """

    def finish(self) -> np.ndarray:
        """The samples still held back. The stream is then as new."""


class Codec(ABC):
    """A codec ready for inference.

    Attributes:
        model: the transformers model.
        rate: sample rate, Hz.
        hop: samples a code.
        levels: levels of each of the quantiser's dimensions; codebook_size is their product.
        lookahead: codes after a piece that its sound depends on.
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

    @staticmethod
    def load(name: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> "Codec":
        """Loads a codec.

        Args:
            name: a codec's folder or hub id, a checkpoint of X-codec2's training (see `convert` for the layouts), or a
                language model's name, which stands for the codec that the model uses.
            device, dtype: where and as what the weights are to lie. Codes made in half precision differ from those
                made in float32 wherever a latent lies near the edge of a level.

        Raises:
            LlasaError: it does not exist, cannot be fetched, is damaged or of another architecture; or no such device.
        """
        from llasa.codec.harmonic_codec import Harmonic
        from llasa.codec.xcodec2 import Xcodec2

        source = find(name)
        config, tensors = read(source)
        kind = Harmonic if isinstance(config, HarmonicCodecConfig) else Xcodec2
        hush_transformers()
        try:
            # Not from the folder: transformers knows one layout, and fills what is missing with random numbers.
            load: Any = kind.architecture.from_pretrained
            model = load(None, config=config, state_dict=tensors, dtype=dtype)
        except Exception as error:  # whatever a damaged file makes torch, safetensors or transformers raise
            raise LlasaError(f"the codec in {source} cannot be loaded ({first_line(error)}): copy it again") from error
        try:
            model.to(device)
        except (RuntimeError, AssertionError) as error:
            raise LlasaError(f"cannot use the device {device} ({first_line(error)})") from error
        return kind(model)

    @property
    def for_autocast(self) -> "Codec":
        """The same codec, to decode with under `torch.autocast` to bfloat16."""
        return self

    @abstractmethod
    def count(self, samples: int) -> int:
        """How many codes so many samples become."""

    @abstractmethod
    def encode_window(self, samples: np.ndarray, first: int, last: int) -> np.ndarray:
        """(last - first,) codes of the samples (N,) between those two codes, which are taken for the whole."""

    @abstractmethod
    def encode_batch(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """`encode` of several clips at once, each with the codes that it would have alone.

        Args:
            clips: (N_i,) arrays as for `encode`.

        Returns:
            their codes, uint16, in the clips' order.

        Raises:
            LlasaError: as `encode`, for any of the clips.
        """

    @abstractmethod
    def decode_pieces(self, codes: np.ndarray) -> Iterator[np.ndarray]:
        """`decode`, a window at a time, for what is too long to hold: pieces of sound that follow one another."""

    @abstractmethod
    def decode_stream(self, before: np.ndarray | None = None) -> Stream:
        """A decoder to push codes into as they come; `before` are codes that they continue, such as a reference's.

        Raises:
            LlasaError: a code of `before` is out of range.
        """

    @abstractmethod
    def decode_window(self, codes: np.ndarray) -> np.ndarray:
        """(T,) int64 codes known to be in range to (T * hop,) float32, in one pass whose memory grows with T.

        (B, T) codes, of rows of one length, become (B, T * hop).
        """

    def encode(self, samples: np.ndarray, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Sound to codes. Any length; beyond a minute in windows.

        Args:
            samples: (N,) float, 16 kHz mono, -1 to 1. A memory map does, and is never copied whole.
            progress: called after every window with the number of samples encoded so far.

        Returns:
            (`count(N)`,) uint16.

        Raises:
            LlasaError: no samples, not one row of floats, or some are not numbers or far beyond full scale.
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
        """Codes to sound. Any length; beyond a minute in windows.

        Args:
            codes: (T,) integers.
            progress: called after every window with the number of codes decoded so far.

        Returns:
            (T * hop,) float32.

        Raises:
            LlasaError: not one row of integers, or some are out of range.
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
        """(stop - start,) of the samples on the model's device, zeros beyond either end of the file."""
        piece = np.array(samples[max(0, start) : stop], dtype=np.float32)
        padded = np.pad(piece, (max(0, -start), stop - max(0, start) - len(piece)))
        return torch.from_numpy(padded).to(self.model.device)


def windows(total: int) -> list[tuple[int, int]]:
    """0 to `total` in one, or cut into the fewest equal parts of at most WINDOW, so that no window is a crumb."""
    parts = 1 if 0 < total <= WHOLE else -(-total // WINDOW)
    return [(total * i // parts, total * (i + 1) // parts) for i in range(parts)]


def check_samples(samples: np.ndarray) -> None:
    """Refuses what is not sound.

    Raises:
        LlasaError: no samples, not one row of floats, or some are not numbers or far beyond full scale.
    """
    if samples.ndim != 1:
        raise LlasaError(f"the codec takes one channel, not an array of shape {samples.shape}: mix it down to mono")
    if samples.dtype.kind != "f":
        raise LlasaError(
            f"the codec takes samples from -1.0 to 1.0, not {samples.dtype}: load audio with llasa.audio.load"
        )
    if not len(samples):
        raise LlasaError("there is no audio: the recording is empty")
    block = WINDOW * HOP
    for start in range(0, len(samples), block):
        # Not `peak > LOUDEST`: comparing with NaN is always false.
        if not np.abs(samples[start : start + block]).max() <= LOUDEST:
            raise LlasaError(
                "the audio holds samples that are not numbers, or far beyond -1 to 1: save the recording again"
            )

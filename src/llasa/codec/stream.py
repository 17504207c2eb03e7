"""Decoding codes as they come, in pieces whose joins cannot be heard.

Knows overlaps and crossfades; knows the codec only as something that turns a run of codes into samples. The decoder's
attention and group normalisation look at the whole run, its convolutions a few codes to both sides. So every piece is
decoded together with codes before it (context) and after it (look-ahead), both thrown away, and faded into its
predecessor's version of the same moment. `benchmarks/codec_stream.py` measures what remains of the difference to
decoding all at once.
"""

from typing import TYPE_CHECKING

import numpy as np

from llasa.codec.files import check_codes

if TYPE_CHECKING:
    from llasa.codec.xcodec2 import Xcodec2

CONTEXT = 100  # codes, 2 s
LOOKAHEAD = 10  # codes: the reach of the decoder's convolutions, 11 codes, less what hardly counts
PIECE = 1000  # most codes decoded at once besides context, so that memory does not grow with what is pushed


class StreamDecoder:
    """Codes in, samples out, `hop` samples a code in all. Several may run over one codec at once.

    The samples of the last `lookahead` codes are held back until more codes, or `finish`, come.

    Args:
        codec: decodes the runs.
        context, lookahead: codes decoded along with a piece, before and after it.
        before: (T,) codes that what is pushed continues, such as the reference when cloning: context from the first
            piece on, never heard. Without it the decoder normalises the first piece by nothing but itself.

    Raises:
        LlasaError: a code of `before` is out of range.
    """

    def __init__(
        self, codec: "Xcodec2", context: int = CONTEXT, lookahead: int = LOOKAHEAD, before: np.ndarray | None = None
    ) -> None:
        self._codec, self._context, self._lookahead = codec, context, lookahead
        known = np.empty(0, dtype=np.int64) if before is None else check_codes(before, codec.codebook_size)
        self._before = known[max(0, len(known) - context) :]
        self._clear()

    def _clear(self) -> None:
        self._codes = self._before  # context, then the codes whose samples are still held back
        self._old = len(self._codes)  # how many of them are context
        self._tail = np.empty(0, dtype=np.float32)  # the last piece's version of the samples that come next

    def push(self, codes: np.ndarray) -> np.ndarray:
        """Takes (T,) more codes; returns the float32 samples that are now certain, perhaps none.

        Each call that returns samples decodes the context anew: push tens of codes at a time, not one.

        Raises:
            LlasaError: a code is out of range; the stream goes on as if this push had not been.
        """
        return self._take(check_codes(codes, self._codec.codebook_size), self._lookahead)

    def finish(self) -> np.ndarray:
        """The samples still held back. The decoder is then as new."""
        samples = self._take(np.empty(0, dtype=np.int64), 0)
        self._clear()
        return samples

    def _take(self, codes: np.ndarray, held: int) -> np.ndarray:
        """Adds codes and emits all but the last `held` of those not emitted yet."""
        pieces = [np.empty(0, dtype=np.float32)]
        for start in range(0, max(1, len(codes)), PIECE):
            self._codes = np.concatenate([self._codes, codes[start : start + PIECE]])
            if len(self._codes) - held > self._old:
                pieces.append(self._decode(len(self._codes) - held))
        return np.concatenate(pieces)

    def _decode(self, stop: int) -> np.ndarray:
        """Decodes everything kept, emits from the end of the context to `stop`, and makes that the context's end."""
        hop = self._codec.hop
        samples = self._codec.decode_window(self._codes)
        piece = crossfade(self._tail, samples[self._old * hop : stop * hop])
        self._tail = samples[stop * hop : (stop + 1) * hop]
        kept = max(0, stop - self._context)
        self._codes, self._old = self._codes[kept:], stop - kept
        return piece


def crossfade(tail: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """`piece` (N,) with its beginning faded in from `tail` (M <= N,), another version of the same moment.

    Linear, since the two versions are nearly the same wave: their sum keeps its level.
    """
    fade = (np.arange(len(tail), dtype=np.float32) + 0.5) / max(1, len(tail))
    return np.concatenate([piece[: len(tail)] * fade + tail * (1 - fade), piece[len(tail) :]])

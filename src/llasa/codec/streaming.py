"""Decodes X-codec2's codes as they come, in pieces whose joins cannot be heard.

The decoder's attention and group normalisation look at everything that is decoded at once, its convolutions at a few
codes on both sides. So each piece is decoded together with codes before it (context) and after it (look-ahead), whose
sound is discarded, and crossfaded with the previous piece's version of the same moment. `benchmarks/codec_stream.py`
measures the remaining difference to decoding all at once.
"""

from typing import TYPE_CHECKING

import numpy as np

from llasa.codec.code_files import check_codes

if TYPE_CHECKING:
    from llasa.codec.xcodec2 import Xcodec2

CONTEXT = 100  # codes, 2 s
LOOKAHEAD = 10  # codes: the convolutions reach 11 codes ahead, but the last one hardly matters
PIECE = 1000  # most codes decoded at once besides context, so that a large push needs no more memory


class StreamDecoder:
    """Codes in, samples out: in all, `hop` samples a code. One codec can serve several streams at once.

    The samples of the last `lookahead` codes are held back until more codes come, or `finish` is called.

    Args:
        codec: decodes each piece with its context.
        context, lookahead: how many codes before and after a piece are decoded with it.
        before: (T,) codes that the stream continues, such as the reference when cloning. They are context from the
            first piece on and are never heard. Without them the first piece is normalised by itself alone.

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
        self._old = len(self._codes)  # how many of these codes are context
        self._tail = np.empty(0, dtype=np.float32)  # the last piece's version of the samples that come next

    def push(self, codes: np.ndarray) -> np.ndarray:
        """Takes (T,) more codes. Returns the float32 samples that later codes cannot change, perhaps none.

        Each call that returns samples decodes the context again, so push tens of codes at a time rather than one.

        Raises:
            LlasaError: a code is out of range; the stream continues as if this push had not happened.
        """
        return self._take(check_codes(codes, self._codec.codebook_size), self._lookahead)

    def finish(self) -> np.ndarray:
        """Returns the samples still held back, and resets the decoder."""
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
        """Decodes all codes kept and emits from the end of the context to `stop`, where the context then ends."""
        hop = self._codec.hop
        samples = self._codec.decode_window(self._codes)
        piece = crossfade(self._tail, samples[self._old * hop : stop * hop])
        self._tail = samples[stop * hop : (stop + 1) * hop]
        kept = max(0, stop - self._context)
        self._codes, self._old = self._codes[kept:], stop - kept
        return piece


def crossfade(tail: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """Crossfades `tail` (M <= N,) into the beginning of `piece` (N,), another version of the same moment.

    The fade is linear: the two waves are nearly the same, so their sum keeps its level.
    """
    fade = (np.arange(len(tail), dtype=np.float32) + 0.5) / max(1, len(tail))
    return np.concatenate([piece[: len(tail)] * fade + tail * (1 - fade), piece[len(tail) :]])

"""A `HarmonicCodec` as a `Codec`.

Each frame of the model sees a fixed number of frames before and after it, so a window with that much context gives the
same result as the whole. Only the phase of the pulses is carried over. A stream therefore equals decoding at once, up
to rounding. Decoding takes one thread, since the model is small.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from llasa.codec import codec as base
from llasa.codec.code_files import check_codes
from llasa.codec.codec import Codec, check_samples
from llasa.codec.features import HOP
from llasa.codec.harmonic import HarmonicCodec
from llasa.threads import at_most

LEAD = 2  # codes synthesised before the emitted ones, so that filters overlap as in the whole
BATCH = 8000  # most codes that go through the model at once


class Harmonic(Codec):
    """The codec with a harmonic-plus-noise head. N samples become ceil(N / hop) codes."""

    architecture = HarmonicCodec

    def __init__(self, model: HarmonicCodec) -> None:
        super().__init__(model)
        before, self.lookahead = model.reach
        self.context = before + LEAD

    def count(self, samples: int) -> int:
        return -(-samples // HOP)

    @torch.inference_mode()
    def encode_window(self, samples: np.ndarray, first: int, last: int) -> np.ndarray:
        wave = self.slice(samples, first * HOP, last * HOP)
        return self.model.encode(wave[None])[0].cpu().numpy().astype(np.uint16)

    @torch.inference_mode()
    def encode_batch(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        for clip in clips:
            check_samples(clip)
        result: dict[int, np.ndarray] = {}
        counts = np.array([self.count(len(clip)) for clip in clips])
        # Padding would change a clip's last codes, so only clips of one length share a batch.
        for count in np.unique(counts):
            alike = np.flatnonzero(counts == count)
            if count > base.WHOLE:
                result |= {int(i): self.encode(clips[int(i)]) for i in alike}
                continue
            for some in np.array_split(alike, -(-len(alike) * count // BATCH)):
                waves = torch.stack([self.slice(clips[int(i)], 0, count * HOP) for i in some])
                found = self.model.encode(waves).cpu().numpy().astype(np.uint16)
                result |= zip(some.tolist(), found, strict=True)
        return [result[i] for i in range(len(clips))]

    def decode_pieces(self, codes: np.ndarray) -> Iterator[np.ndarray]:
        array = check_codes(codes, self.codebook_size)
        stream = HarmonicStream(self)
        for start, stop in base.windows(len(array)):
            piece = stream.push(array[start:stop])
            yield piece if stop < len(array) else np.concatenate([piece, stream.finish()])

    def decode_stream(self, before: np.ndarray | None = None) -> "HarmonicStream":
        return HarmonicStream(self, before)

    @at_most(1)
    @torch.inference_mode()
    def decode_window(self, codes: np.ndarray) -> np.ndarray:
        if not codes.size:
            return np.empty((*codes.shape[:-1], 0), dtype=np.float32)
        samples = self.model.decode(torch.from_numpy(np.atleast_2d(codes)).to(self.model.device))
        found = samples.float().cpu().numpy()
        return found if codes.ndim == 2 else found[0]


class HarmonicStream:
    """Decodes codes as they come; see `llasa.codec.codec.Stream`.

    Codes whose sound may still change wait for those after them. Emitted codes stay as context, together with the phase
    of the pulses LEAD codes before their end.
    """

    def __init__(self, codec: Harmonic, before: np.ndarray | None = None) -> None:
        self._codec, self._model = codec, codec.model
        known = np.empty(0, dtype=np.int64) if before is None else check_codes(before, codec.codebook_size)
        self._before = known[max(0, len(known) - codec.context) :]
        self._clear()

    def _clear(self) -> None:
        self._codes = self._before  # context, then the codes whose samples are still held back
        self._old = len(self._codes)  # how many of these codes are context
        self._place = 0  # position of the first of them in the whole stream
        self._phase = torch.zeros(1, dtype=torch.float64, device=self._model.device)

    def push(self, codes: np.ndarray) -> np.ndarray:
        more = check_codes(codes, self._codec.codebook_size)
        pieces = [np.empty(0, dtype=np.float32)]
        for start in range(0, len(more), base.WINDOW):
            self._codes = np.concatenate([self._codes, more[start : start + base.WINDOW]])
            pieces.append(self._emit(len(self._codes) - self._codec.lookahead))
        return np.concatenate(pieces)

    def finish(self) -> np.ndarray:
        samples = self._emit(len(self._codes))
        self._clear()
        return samples

    @at_most(1)
    @torch.inference_mode()
    def _emit(self, stop: int) -> np.ndarray:
        """Returns the sound from the end of the context to code `stop`, where the context then ends."""
        if stop <= self._old:
            return np.empty(0, dtype=np.float32)
        model, fine = self._model, self._model.config.fine
        latents = model.quantizer.from_codes(torch.from_numpy(self._codes).to(model.device))
        shapes, _ = model.decoder(latents[None].to(model.dtype))
        first, last = max(0, self._old - LEAD), min(len(self._codes), stop + LEAD)
        made, phases = model.sound(shapes[:, first * fine : last * fine], self._phase, (self._place + first) * HOP)
        piece = made[0, (self._old - first) * HOP : (stop - first) * HOP]
        kept = max(0, stop - self._codec.context)
        self._phase = phases[:, (max(0, stop - LEAD) - first) * fine]
        self._codes, self._old, self._place = self._codes[kept:], stop - kept, self._place + kept
        return piece.float().cpu().numpy()

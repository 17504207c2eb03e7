"""X-codec2 as a `Codec`: transformers' `Xcodec2Model`, exact in batches and nearly so in windows.

Features come from `features.py`, streams from `streaming.py`. Up to a minute is encoded in one pass, as in upstream's
code. Longer recordings are encoded in windows:

- The acoustic encoder sees a fraction of a second, less than a window's context. Inside a window it computes what it
  would compute over the whole file.
- The semantic encoder's attention is global. In a window it sees 2 s beyond either end instead of everything, and its
  features are normalised by the window's statistics, like those of a recording of that length. These are the only
  differences.

In a batch, rows of different lengths share the semantic encoder under an attention mask, which is exact. The adapter
and the acoustic encoder have no mask: their biases would leak from the padding into a row's last codes. They run on
rows of one length together, without padding. So a row gets the codes that it would get alone, up to rounding: in a
batch matrix products sum in another order, and a latent within about 1e-6 of the edge between two levels may fall to
the other side (less than 1e-4 of the codes).
"""

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from transformers import Xcodec2Model

from llasa.codec import codec as base
from llasa.codec.code_files import check_codes
from llasa.codec.codec import Codec, check_samples
from llasa.codec.features import HOP, frame_count, log_mel, mel_features, normalise, stack
from llasa.codec.streaming import LOOKAHEAD, StreamDecoder, crossfade

BATCH = 8000  # most codes in a batch, padding included


class Xcodec2(Codec):
    """The codec of the official models. N samples become N // hop + 1 codes."""

    architecture = Xcodec2Model
    lookahead = LOOKAHEAD

    @cached_property
    def for_autocast(self) -> "Xcodec2":  # type: ignore[override]
        """The same codec, prepared to decode under `torch.autocast` to bfloat16.

        Its decoder holds its matrices in bfloat16. Autocast would convert them at every call, which takes a fifth of
        the time for a few seconds of speech. The sound is the same, and all other parts are shared.
        """
        shared = {id(part): part for name, part in self.model.named_children() if name != "acoustic_decoder"}
        model = copy.deepcopy(self.model, shared)
        for part in model.acoustic_decoder.modules():
            if isinstance(part, torch.nn.Linear | torch.nn.Conv1d):
                part.to(torch.bfloat16)
        return Xcodec2(model)

    def count(self, samples: int) -> int:
        return frame_count(samples)

    def encode_window(self, samples: np.ndarray, first: int, last: int) -> np.ndarray:
        mels = self._mels(samples, first, last)
        features = stack(normalise(mels, mels.mean(1, keepdim=True), mels.var(1, keepdim=True)))
        return self._quantise(self.slice(samples, first * HOP, last * HOP)[None, None], features, None)[0]

    def encode_batch(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        for clip in clips:
            check_samples(clip)
        result: dict[int, np.ndarray] = {}
        # Clips of similar length share a batch: this needs little padding, and the first one bounds the memory.
        order = sorted(range(len(clips)), key=lambda i: len(clips[i]), reverse=True)
        while order and frame_count(len(clips[order[0]])) > base.WHOLE:
            result[order[0]] = self.encode(clips[order[0]])
            order = order[1:]
        while order:
            rows = max(1, BATCH // frame_count(len(clips[order[0]])))
            batch, order = order[:rows], order[rows:]
            result |= zip(batch, self._encode_padded([clips[i] for i in batch]), strict=True)
        return [result[i] for i in range(len(clips))]

    def decode_pieces(self, codes: np.ndarray) -> Iterator[np.ndarray]:
        array = check_codes(codes, self.codebook_size)
        tail = np.empty(0, dtype=np.float32)
        for start, stop in base.windows(len(array)):
            first, last = max(0, start - base.CONTEXT), min(len(array), stop + base.CONTEXT)
            samples = self.decode_window(array[first:last])
            piece = samples[(start - first) * HOP : (stop - first) * HOP]
            yield crossfade(tail, piece)
            tail = samples[(stop - first) * HOP : (stop - first + 1) * HOP]

    def decode_stream(self, before: np.ndarray | None = None) -> StreamDecoder:
        return StreamDecoder(self, before=before)

    @torch.inference_mode()
    def decode_window(self, codes: np.ndarray) -> np.ndarray:
        if not codes.size:
            return np.empty((*codes.shape[:-1], 0), dtype=np.float32)
        indices = torch.from_numpy(np.atleast_2d(codes)).to(self.model.device)[:, None]
        samples = self.model.decode(audio_codes=indices).audio_values[:, 0].float().cpu().numpy()
        return samples if codes.ndim == 2 else samples[0]

    def _encode_padded(self, clips: list[np.ndarray]) -> list[np.ndarray]:
        lengths = [len(clip) for clip in clips]
        padded = np.zeros((len(clips), max(lengths)), dtype=np.float32)
        for row, clip in zip(padded, clips, strict=True):
            row[: len(clip)] = clip
        samples = torch.from_numpy(padded).to(self.model.device)
        features, mask = mel_features(samples, lengths)
        counts = [frame_count(length) for length in lengths]
        wave = F.pad(samples, (0, max(counts) * HOP - samples.shape[1]))[:, None]
        codes = self._quantise(wave, features, mask)
        return [row[:count] for row, count in zip(codes, counts, strict=True)]

    @torch.inference_mode()
    def _quantise(self, wave: torch.Tensor, features: torch.Tensor, mask: torch.Tensor | None) -> np.ndarray:
        """`Xcodec2Model.encode`, but exact under padding.

        Args:
            wave: (B, 1, frames * HOP).
            features: (B, frames, 160).
            mask: (B, frames), true where valid; None if all frames are valid.

        Returns:
            (B, frames) uint16; zeros in padding.
        """
        model = self.model
        semantic = model.semantic_encoder(features.to(model.dtype), attention_mask=mask).last_hidden_state
        counts = np.full(len(wave), features.shape[1]) if mask is None else mask.sum(1).cpu().numpy()
        codes = np.zeros(features.shape[:2], dtype=np.uint16)
        for count in np.unique(counts):
            rows = np.flatnonzero(counts == count)
            adapted = model.semantic_adapter(semantic[rows, :count].transpose(1, 2))
            acoustic = model.acoustic_encoder(wave[rows, :, : count * HOP].to(model.dtype))
            hidden = model.fc_encoder(torch.cat([adapted, acoustic], 1).transpose(1, 2))
            codes[rows, :count] = model.quantizer(hidden)[1][..., 0].cpu().numpy()
        return codes

    def _mels(self, samples: np.ndarray, first: int, last: int) -> torch.Tensor:
        """Log-mels (1, STACK * (last - first), MELS) of codes `first` to `last`, from real samples around them too."""
        return log_mel(self.slice(samples, first * HOP - HOP // 2, last * HOP + HOP // 2)[None])

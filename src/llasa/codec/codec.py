"""The codec as one object: 16 kHz sound to codes, 50 a second, and back.

Knows `Xcodec2Model`'s parts, padding and windows; features come from `features.py`, streams from `stream.py`. Up to a
minute goes through in one pass, which is what upstream's code computes; whatever is longer in windows with real context
on both sides, so memory is bounded by a window, not by the file, and the codes have no seams:

- The acoustic encoder's reach (a fraction of a second) is shorter than the context: inside a window it computes what it
  would over the whole file.
- The semantic encoder's attention is global; a window hears 2 s beyond either end where a whole-file pass hears
  everything, and its features are normalised by its own statistics, as those of any recording of its length would be.
  These are the only differences.

In a batch, rows of different lengths share the semantic encoder under an attention mask, which is exact. The adapter
and the acoustic encoder have no mask, and their biases would leak from the padding into a row's last codes; they run on
rows of one length together and without padding. So a row's codes are those of encoding it alone, but for rounding:
matrix products sum in another order in a batch, and a latent within about 1e-6 of the edge between two levels may fall
to the other side (a fraction of codes below 1e-4).
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import Xcodec2Model

from llasa.codec.convert import find, read
from llasa.codec.features import HOP, RATE, frame_count, log_mel, mel_features, normalise, stack
from llasa.codec.files import check_codes
from llasa.codec.stream import StreamDecoder, crossfade
from llasa.errors import LlasaError
from llasa.loading import first_line, hush_transformers

WHOLE = 3000  # most codes, 60 s, that go through in one pass; attention's memory grows with their square
WINDOW = 1000  # codes, 20 s, of which longer recordings are made up
CONTEXT = 100  # codes on either side of a window, 2 s
LOUDEST = 1000.0  # full scale is 1; resampling may overshoot it a little, 16-bit integers mistaken for floats by far
BATCH = 8000  # most codes, padding included, that go through the model at once


class Codec:
    """A codec ready for inference.

    Attributes:
        model: transformers' `Xcodec2Model`.
        rate: sample rate, Hz.
        hop: samples a code.
        levels: levels of each of the quantiser's dimensions; codebook_size is their product.
    """

    def __init__(self, model: Xcodec2Model) -> None:
        config = model.config
        if config.sampling_rate != RATE or config.hop_length != HOP:
            raise LlasaError(
                f"this codec works at {config.sampling_rate} Hz with {config.hop_length} samples a code; "
                f"only {RATE} Hz and {HOP} are supported, which its semantic encoder's features dictate"
            )
        self.model = model.eval()
        self.rate, self.hop = RATE, HOP
        self.levels = [int(level) for level in config.quantization_levels]
        self.codebook_size = int(np.prod(self.levels))
        if self.codebook_size > 1 << 16:
            raise LlasaError(f"this codec has {self.codebook_size} codes; at most {1 << 16} fit the formats of codes")

    @classmethod
    def load(cls, name: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> "Codec":
        """Loads a codec.

        Args:
            name: a codec's folder or hub id, a checkpoint of X-codec2's training (see `convert` for the layouts), or a
                language model's name, which stands for the codec that the model uses.
            device, dtype: where and as what the weights are to lie. Codes made in half precision differ from those
                made in float32 wherever a latent lies near the edge of a level.

        Raises:
            LlasaError: it does not exist, cannot be fetched, is damaged or of another architecture; or no such device.
        """
        source = find(name)
        config, tensors = read(source)
        hush_transformers()
        try:
            # Not from the folder: transformers knows one layout, and fills what is missing with random numbers.
            load: Any = Xcodec2Model.from_pretrained
            model = load(None, config=config, state_dict=tensors, dtype=dtype)
        except Exception as error:  # whatever a damaged file makes torch, safetensors or transformers raise
            raise LlasaError(f"the codec in {source} cannot be loaded ({first_line(error)}): copy it again") from error
        try:
            model.to(device)
        except (RuntimeError, AssertionError) as error:
            raise LlasaError(f"cannot use the device {device} ({first_line(error)})") from error
        return cls(model)

    @cached_property
    def for_autocast(self) -> "Codec":
        """The same codec, to decode with under `torch.autocast` to bfloat16.

        Its decoder holds its matrices in bfloat16, which autocast would make of them at every call: a fifth of the time
        that a few seconds of speech take. The sound is the same, all else is shared.
        """
        shared = {id(part): part for name, part in self.model.named_children() if name != "acoustic_decoder"}
        model = copy.deepcopy(self.model, shared)
        for part in model.acoustic_decoder.modules():
            if isinstance(part, torch.nn.Linear | torch.nn.Conv1d):
                part.to(torch.bfloat16)
        return Codec(model)

    def encode(self, samples: np.ndarray, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Sound to codes. Any length; beyond a minute in windows.

        Args:
            samples: (N,) float, 16 kHz mono, -1 to 1. A memory map does, and is never copied whole.
            progress: called after every window with the number of samples encoded so far.

        Returns:
            (N // hop + 1,) uint16.

        Raises:
            LlasaError: no samples, not one row of floats, or some are not numbers or far beyond full scale.
        """
        _check_samples(samples)
        total = frame_count(len(samples))
        codes = np.empty(total, dtype=np.uint16)
        for start, stop in _windows(total):
            first, last = max(0, start - CONTEXT), min(total, stop + CONTEXT)
            wave = self._slice(samples, first * HOP, last * HOP)
            mels = self._mels(samples, first, last)
            features = stack(normalise(mels, mels.mean(1, keepdim=True), mels.var(1, keepdim=True)))
            window = self._quantise(wave, features, None)[0]
            codes[start:stop] = window[start - first : stop - first]
            if progress:
                progress(min(stop * HOP, len(samples)))
        return codes

    def encode_batch(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """`encode` of several clips at once, each with the codes that it would have alone (see the module's docstring).

        Args:
            clips: (N_i,) arrays as for `encode`. Those longer than a minute are encoded one by one.

        Returns:
            A list of (N_i // hop + 1,) uint16 in the clips' order.

        Raises:
            LlasaError: as `encode`, for any of the clips.
        """
        for clip in clips:
            _check_samples(clip)
        result: dict[int, np.ndarray] = {}
        # Neighbours in length share a batch: little padding, and the first of a batch bounds its memory.
        order = sorted(range(len(clips)), key=lambda i: len(clips[i]), reverse=True)
        while order and frame_count(len(clips[order[0]])) > WHOLE:
            result[order[0]] = self.encode(clips[order[0]])
            order = order[1:]
        while order:
            rows = max(1, BATCH // frame_count(len(clips[order[0]])))
            batch, order = order[:rows], order[rows:]
            result |= zip(batch, self._encode_padded([clips[i] for i in batch]), strict=True)
        return [result[i] for i in range(len(clips))]

    def decode(self, codes: np.ndarray, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Codes to sound. Any length; beyond a minute in windows that are faded into one another.

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

    def decode_pieces(self, codes: np.ndarray) -> Iterator[np.ndarray]:
        """`decode`, a window at a time, for what is too long to hold: pieces of sound that follow one another."""
        array = check_codes(codes, self.codebook_size)
        tail = np.empty(0, dtype=np.float32)
        for start, stop in _windows(len(array)):
            first, last = max(0, start - CONTEXT), min(len(array), stop + CONTEXT)
            samples = self.decode_window(array[first:last])
            piece = samples[(start - first) * HOP : (stop - first) * HOP]
            yield crossfade(tail, piece)
            tail = samples[(stop - first) * HOP : (stop - first + 1) * HOP]

    def decode_stream(self, before: np.ndarray | None = None) -> StreamDecoder:
        """A decoder to push codes into as they come; `before` are codes that they continue, such as a reference's."""
        return StreamDecoder(self, before=before)

    @torch.inference_mode()
    def decode_window(self, codes: np.ndarray) -> np.ndarray:
        """(T,) int64 codes known to be in range to (T * hop,) float32, in one pass whose memory grows with T.

        (B, T) codes, of rows of one length, become (B, T * hop).
        """
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
            mask: (B, frames), true where valid; None where all is.

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
        """(1, STACK * (last - first), MELS) log-mels of codes `first` to `last`, with the true samples around them."""
        return log_mel(self._slice(samples, first * HOP - HOP // 2, last * HOP + HOP // 2)[0])

    def _slice(self, samples: np.ndarray, start: int, stop: int) -> torch.Tensor:
        """(1, 1, stop - start) of the samples on the model's device, zeros beyond either end of the file."""
        piece = np.array(samples[max(0, start) : stop], dtype=np.float32)
        padded = np.pad(piece, (max(0, -start), stop - max(0, start) - len(piece)))
        return torch.from_numpy(padded).to(self.model.device)[None, None]


def _windows(total: int) -> list[tuple[int, int]]:
    """0 to `total` in one, or cut into the fewest equal parts of at most WINDOW, so that no window is a crumb."""
    parts = 1 if 0 < total <= WHOLE else -(-total // WINDOW)
    return [(total * i // parts, total * (i + 1) // parts) for i in range(parts)]


def _check_samples(samples: np.ndarray) -> None:
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

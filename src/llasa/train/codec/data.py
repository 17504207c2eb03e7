"""Reads crops of recordings for training the codec, in an order that a resumed run continues.

The order is made in blocks: a few shards are read at once and shuffled, so that a batch mixes speakers and collections.
A block follows from the seed and its number alone. So a run can resume with the next batch from the block's number and
the number of batches taken from it.
"""

import random
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import soundfile
import torch
import torch.nn.functional as F

from llasa.codec.features import HOP, RATE, mel_features
from llasa.data.shards import read_rows, row_audio, shard_files
from llasa.errors import LlasaError
from llasa.train.codec.pitch import track

TOGETHER = 8  # shards of a block
AROUND = 150  # frames on either side of a crop, from which its speaker's usual pitch is estimated
PATIENCE = 20  # blocks without a long enough recording before giving up

Place = tuple[int, int]  # a block's number, and the batches taken from it
Crop = tuple[dict[str, Any], float]  # a row, and the crop's start, as a share of the latest possible start


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops of one length.

    Attributes:
        wave: (B, 1, frames * HOP).
        features: (B, frames, 160), normalised over the whole recording, as in encoding.
        pitch: (B, frames, 4), the output of `pitch.track`; zeros if pitch is not tracked.
        places: the place of each of the recipe's streams after this batch; there is one stream for each shape.
    """

    wave: torch.Tensor
    features: torch.Tensor
    pitch: torch.Tensor
    places: dict[str, Place]


class Crops:
    """The batches of a recipe. Step s has the shape `shapes[s % len(shapes)]`."""

    def __init__(
        self, folders: list[str], shapes: list[list[int]], seed: int, readers: int = 0, pitch: bool = False
    ) -> None:
        """
        Args:
            folders: folders of shards with audio.
            shapes: (frames of a crop, crops in a batch).
            readers: threads that read and decode ahead; with 0, a batch is made when it is needed.
            pitch: whether to track pitch.

        Raises:
            LlasaError: a folder has no shards.
        """
        self.files = [file for folder in folders for file in shard_files(Path(folder))]
        self.shapes, self.seed, self.readers, self.pitch = shapes, seed, readers, pitch

    def batches(
        self, step: int, places: dict[str, Place] | None = None, process: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        """Endless batches from a step on; of each batch, the part that this process trains on.

        Args:
            places: `Batch.places` of the step before; by default the batches start from the beginning.
            process, processes: this process' number, and how many there are.

        Raises:
            LlasaError: a shard or a recording in it is damaged, holds no audio, or none is long enough.
        """
        places = {_name(shape): (0, 0) for shape in self.shapes} | (places or {})
        plans = self._plans(step, places, slice(process, None, processes))
        if not self.readers:
            yield from (_batch(*plan, self.pitch) for plan in plans)
            return
        with ThreadPoolExecutor(self.readers) as pool:
            waiting = deque(pool.submit(_batch, *plan, self.pitch) for plan in islice(plans, self.readers))
            while True:
                done = waiting.popleft().result()
                waiting.append(pool.submit(_batch, *next(plans), self.pitch))
                yield done

    def _plans(
        self, step: int, places: dict[str, Place], mine: slice
    ) -> Iterator[tuple[list[Crop], int, dict[str, Place]]]:
        streams = {_name(shape): self._stream(shape[0], shape[1], places[_name(shape)]) for shape in self.shapes}
        while True:
            shape = self.shapes[step % len(self.shapes)]
            crops, place = next(streams[_name(shape)])
            places = places | {_name(shape): place}
            yield crops[mine], shape[0], places
            step += 1

    def _stream(self, frames: int, count: int, place: Place) -> Iterator[tuple[list[Crop], Place]]:
        """Endless lists of `count` crops of one length, each with the stream's place after it."""
        (number, taken), empty = place, 0
        while True:
            crops, rng = self._block(frames, number)
            empty = 0 if crops else empty + 1
            if empty > PATIENCE or (empty and len(self.files) <= TOGETHER):
                raise LlasaError(
                    f"no recording in the corpus lasts the {frames * HOP / RATE:.2f} s of the crops: make `shapes` "
                    "in the recipe shorter"
                )
            groups = [crops[i : i + count] for i in range(0, len(crops) - count + 1, count)]
            if crops and not groups:  # fewer recordings than a batch has crops
                groups = [rng.choices(crops, k=count)]
            for group in groups[taken:]:
                taken += 1
                yield group, (number, taken)
            number, taken = number + 1, 0

    def _block(self, frames: int, number: int) -> tuple[list[Crop], random.Random]:
        rng = random.Random(f"{self.seed} {frames} {number}")
        rows = []
        for file in rng.sample(self.files, min(TOGETHER, len(self.files))):
            for row in read_rows(file, ["id", "audio", "seconds"]):
                if "audio" not in row:
                    raise LlasaError(f"{file} has codes instead of audio: name the folder that they were made from")
                if round(row["seconds"] * RATE) // HOP >= frames:
                    rows.append({key: row[key] for key in ("id", "audio")})
        rng.shuffle(rows)
        return [(row, rng.random()) for row in rows], rng


def _name(shape: list[int]) -> str:
    return "x".join(map(str, shape))


def _batch(crops: list[Crop], frames: int, places: dict[str, Place], pitch: bool) -> Batch:
    waves, features, tracks = zip(*(_cut(row, frames, share, pitch) for row, share in crops), strict=True)
    return Batch(torch.stack(waves), torch.stack(features), torch.stack(tracks), places)


def _cut(
    row: dict[str, Any], frames: int, share: float, pitch: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A crop's waveform (1, frames * HOP), features (frames, 160) and pitch (frames, 4)."""
    try:
        samples = torch.from_numpy(row_audio(row))
    except soundfile.SoundFileError as error:
        raise LlasaError(f"the audio of {row['id']} in the corpus is damaged: make the corpus again") from error
    samples = F.pad(samples, (0, max(0, frames * HOP - len(samples))))  # the shard's `seconds` may be slightly too many
    features, _ = mel_features(samples)
    start = int(share * (len(samples) // HOP - frames + 1))
    stop = start + frames
    wave = samples[None, start * HOP : stop * HOP]
    if not pitch:
        return wave, features[0, start:stop], torch.zeros(frames, 4)
    near = max(0, start - AROUND)
    tracked = track(samples[near * HOP : (stop + AROUND) * HOP])[start - near :][:frames]
    return wave, features[0, start:stop], tracked

"""Writes real recordings into audio shards, from folders of the LJSpeech layout and plain folders of audio."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llasa import audio
from llasa.data import layouts, listings
from llasa.data.report import Report
from llasa.data.shards import AUDIO_SCHEMA, write_shard
from llasa.data.synthesis import flac
from llasa.data.teachers.teacher import RATE, RMS_LEVEL
from llasa.errors import LlasaError
from llasa.files import exists, is_file, listed
from llasa.text.normalise import normalise


def ljspeech(folder: Path) -> list[tuple[Path, str]]:
    """(file, text) of the recordings that an LJSpeech-layout folder really has.

    Raises:
        LlasaError: there is no metadata.csv, or a line has no text.
    """
    items = listings.ljspeech(folder).items
    return [(item.audio, item.text) for item in items if isinstance(item.audio, Path) and is_file(item.audio)]


def plain(folder: Path) -> list[tuple[Path, str]]:
    """(file, "") of every recording below a folder."""
    return [(path, "") for path in listed(folder, layouts.SUFFIXES)]


def make_shards(
    items: list[tuple[Path, str]],
    out: Path,
    name: str,
    report: Report,
    speaker: str | None = None,
    shard_size: int = 200,
) -> Iterator[tuple[int, float]]:
    """Writes recordings, set to one loudness, into `out/name-NNNNN.parquet`.

    Yields (utterances, seconds) for each new shard.

    Args:
        report: counts what was kept and dropped; a recording that cannot be read is dropped.
        speaker: the speaker of all recordings; by default each file's name up to its first dash or underscore.

    Raises:
        LlasaError: a shard cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(items), shard_size):
        path = out / f"{name}-{start // shard_size:05d}.parquet"
        if exists(path):
            continue
        rows: list[dict[str, Any]] = []
        for file, text in items[start : start + shard_size]:
            try:
                samples = audio.load(file, RATE)
            except LlasaError as error:
                report.add("cannot be read", 0.0, file.name, str(error).replace(str(file), "it"))
                continue
            report.add("", len(samples) / RATE, file.name, "")
            samples = samples * (RMS_LEVEL / max(float(np.sqrt(np.mean(samples**2))), 1e-6))
            samples = samples * min(1.0, 0.99 / max(float(np.abs(samples).max()), 1e-6))
            who = speaker or file.stem.replace("_", "-").split("-")[0]
            rows.append(
                {
                    "id": file.stem,
                    "text": normalise(text),
                    "audio": flac(samples),
                    "speaker": f"{name}-{who}",
                    "language": "en",
                    "seconds": len(samples) / RATE,
                    "phones": [],
                    "ends": [],
                }
            )
        write_shard(path, rows, AUDIO_SCHEMA)
        yield len(rows), sum(row["seconds"] for row in rows)

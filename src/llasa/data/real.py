"""Real recordings into the corpus' audio shards: LJSpeech-layout folders and plain audio folders."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llasa import audio
from llasa.data import layouts
from llasa.data.report import Report
from llasa.data.shards import AUDIO_SCHEMA, write_shard
from llasa.data.synthesis import RATE, RMS_LEVEL, flac
from llasa.errors import LlasaError
from llasa.text import normalise


def ljspeech(folder: Path) -> list[tuple[Path, str]]:
    """(file, text) of the recordings of an LJSpeech-layout folder that are there.

    Raises:
        LlasaError: there is no metadata.csv, or a line lacks its text.
    """
    items = layouts.ljspeech(folder)
    return [(item.audio, item.text) for item in items if isinstance(item.audio, Path) and item.audio.is_file()]


def plain(folder: Path) -> list[tuple[Path, str]]:
    """(file, "") of every recording below a folder; the speaker is the name up to its first dash or underscore."""
    return [(path, "") for path in layouts.audio_files(folder)]


def make_shards(
    items: list[tuple[Path, str]],
    out: Path,
    name: str,
    report: Report,
    speaker: str | None = None,
    shard_size: int = 200,
) -> Iterator[tuple[int, float]]:
    """Writes recordings into `out/name-NNNNN.parquet`, loudness set; yields (utterances, seconds) for each new shard.

    Args:
        report: is added what became of each recording; one that cannot be read is left out.
        speaker: the one reader of them all; by default each file's name up to its first dash or underscore.

    Raises:
        LlasaError: a shard cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(items), shard_size):
        path = out / f"{name}-{start // shard_size:05d}.parquet"
        if path.exists():
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

"""Small corpora in every layout, of gliding tones that come and go as speech does."""

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
TEXTS = ["one small step", "no, not the second", "a third time round", "and four of them", "that makes five so far"]


def tone(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """(N,) float32: harmonics of a gliding pitch, in syllables of a fifth of a second."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(130 + 10 * seed + 30 * np.sin(2 * np.pi * 1.3 * time)) / rate
    sound = sum(np.sin(k * phase) / k for k in range(1, 15)) * np.clip(np.sin(2 * np.pi * 2.5 * time) + 0.4, 0, 1)
    return (0.1 * sound + 0.001 * rng.normal(size=time.size)).astype(np.float32)


def clip(index: int) -> np.ndarray:
    """The recording of TEXTS[index]; no two have one length."""
    return tone(0.9 + 0.13 * index, index)


def sound_file(samples: np.ndarray, kind: str = "FLAC", rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind)
    return buffer.getvalue()


def _write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def folder(at: Path) -> Path:
    for i, text in enumerate(TEXTS):
        _write(at / f"speaker{i % 2}" / f"{i}.wav", sound_file(clip(i), "WAV"))
        _write(at / f"speaker{i % 2}" / f"{i}.txt", f"{text}\n")
    return at


def _rows() -> list[dict[str, str]]:
    return [
        {"audio": f"clips/{i}.flac", "text": text, "speaker": f"speaker{i % 2}", "language": "en"}
        for i, text in enumerate(TEXTS)
    ]


def jsonl(at: Path) -> Path:
    for i in range(len(TEXTS)):
        _write(at / "clips" / f"{i}.flac", sound_file(clip(i)))
    _write(at / "list.jsonl", "\n".join(map(json.dumps, _rows())))
    return at / "list.jsonl"


def comma_separated(at: Path) -> Path:
    jsonl(at).unlink()
    with (at / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "transcription", "speaker_id", "lang"])
        writer.writerows(list(row.values()) for row in _rows())
    return at


def ljspeech(at: Path) -> Path:
    for i in range(len(TEXTS)):
        _write(at / "wavs" / f"LJ{i}.wav", sound_file(clip(i), "WAV"))
    _write(at / "metadata.csv", "".join(f"LJ{i}|{text.upper()}|{text}\n" for i, text in enumerate(TEXTS)))
    return at


def librispeech(at: Path) -> Path:
    for i, text in enumerate(TEXTS):
        chapter = at / "dev-clean" / f"speaker{i % 2}" / "7"
        _write(chapter / f"speaker{i % 2}-7-{i:04d}.flac", sound_file(clip(i)))
        with (chapter / f"speaker{i % 2}-7.trans.txt").open("a") as file:
            file.write(f"speaker{i % 2}-7-{i:04d} {text}\n")
    return at


def libritts(at: Path) -> Path:
    for i, text in enumerate(TEXTS):
        stem = at / f"speaker{i % 2}" / "7" / f"speaker{i % 2}_7_00000{i}_000000"
        _write(stem.with_suffix(".wav"), sound_file(clip(i), "WAV"))
        _write(stem.with_suffix(".normalized.txt"), text)
        _write(stem.with_suffix(".original.txt"), text.upper())
    return at


def commonvoice(at: Path) -> Path:
    lines = ["client_id\tpath\tsentence_id\tsentence\tup_votes\tlocale"]
    for i, text in enumerate(TEXTS):
        _write(at / "clips" / f"common_voice_en_{i}.mp3", sound_file(clip(i), "MP3"))
        lines.append(f"speaker{i % 2}\tcommon_voice_en_{i}.mp3\t{i}\t{text}\t2\ten")
    _write(at / "validated.tsv", "\n".join(lines) + "\n")
    return at


def emilia(at: Path, shards: int = 2) -> Path:
    at.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with tarfile.open(at / f"EN-B{shard:06d}.tar", "w") as archive:
            for i in range(shard, len(TEXTS), shards):
                name = f"EN_B{shard:05d}_S{i:05d}_W000000"
                facts = {"id": name, "wav": f"{name}.mp3", "text": f" {TEXTS[i]}", "duration": 1.0}
                facts |= {"speaker": f"speaker{i % 2}", "language": "en", "dnsmos": 3.3}
                for suffix, data in ((".json", json.dumps(facts).encode()), (".mp3", sound_file(clip(i), "MP3"))):
                    member = tarfile.TarInfo(name + suffix)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return at


def parquet(at: Path) -> Path:
    from llasa.data.shards import AUDIO_SCHEMA, write_shard

    at.mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        rows = [
            {
                "id": f"row{i}", "text": TEXTS[i], "audio": sound_file(clip(i)), "speaker": f"speaker{i % 2}",
                "language": "en", "seconds": len(clip(i)) / RATE, "phones": ["pau", "ah"], "ends": [0.25, 0.5],
            }
            for i in range(shard, len(TEXTS), 2)
        ]  # fmt: skip
        write_shard(at / f"{shard:05d}.parquet", rows, AUDIO_SCHEMA)
    return at


def hub(at: Path) -> Path:
    """As `datasets` saves a column of audio."""
    from datasets import Audio, Dataset

    at.mkdir(parents=True, exist_ok=True)
    rows = [
        {"clip": {"bytes": sound_file(clip(i)), "path": f"{i}.flac"}, "sentence": text, "speaker_id": f"speaker{i % 2}",
         "locale": "en"}
        for i, text in enumerate(TEXTS)
    ]  # fmt: skip
    data = Dataset.from_list(rows).cast_column("clip", Audio(decode=False))
    for i in range(2):
        data.shard(2, i).to_parquet(at / f"train-{i:05d}-of-00002.parquet")
    return at


# By the layout that each is; the manifests twice.
EVERY: dict[str, Callable[[Path], Path]] = {
    "folder": folder, "manifest": jsonl, "manifest-csv": comma_separated, "ljspeech": ljspeech,
    "librispeech": librispeech, "libritts": libritts, "commonvoice": commonvoice, "emilia": emilia, "parquet": parquet,
    "hub": hub,
}  # fmt: skip

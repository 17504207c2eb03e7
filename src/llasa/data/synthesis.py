"""A synthetic multi-speaker corpus: Debian's flite voices read a text file in hundreds of shifted voices.

A speaker is a flite voice, a formant ratio and a mean pitch. Raising the sample rate by the ratio and resampling back
moves every formant by that ratio; flite's own `duration_stretch` and `int_f0_target_mean` undo what this does to tempo
and pitch, so each is set on its own and no vocoder touches the sound. flite also prints where every phone ends: the
alignment that the LM's training uses (`train/lm.py`) comes with the audio for nothing.

Shards are Parquet: `id, text, audio (FLAC bytes), speaker, language, seconds, phones, ends`.
"""

import io
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from llasa.data.shards import AUDIO_SCHEMA, write_shard
from llasa.errors import LlasaError

TEACHERS = ("rms", "slt", "awb", "kal16")
RATE = 16000
# Loudness of everything written, so that no voice teaches the models its own gain.
RMS_LEVEL = 0.06
LEAD, TAIL = 0.06, 0.12  # seconds of silence kept around an utterance


@dataclass(frozen=True)
class Speaker:
    """One synthetic speaker. `pitch` is the mean F0 in Hz, or None for the voice's own."""

    name: str
    voice: str
    formants: float = 1.0
    pitch: float | None = None
    tempo: float = 1.0


def speakers(shifted: int, seed: int = 0) -> list[Speaker]:
    """The plain teachers, then `shifted` speakers drawn over formant ratio, pitch and tempo.

    The rms voice ignores flite's pitch setting, so its shifts move pitch and formants together.
    """
    rng = np.random.default_rng(seed)
    result = [Speaker(name, name) for name in TEACHERS]
    for index in range(shifted):
        voice = TEACHERS[index % len(TEACHERS)]
        formants = float(np.exp(rng.uniform(np.log(0.84), np.log(1.22))))
        # Longer vocal tracts go with lower voices: keep the two loosely tied, as in people.
        centre = 130 * formants**2.5
        pitch = float(np.clip(centre * np.exp(rng.normal(0, 0.22)), 75, 280))
        tempo = float(rng.uniform(0.85, 1.12))
        result.append(Speaker(f"{voice}-{index:03d}", voice, formants, None if voice == "rms" else pitch, tempo))
    return result


def speak(text: str, speaker: Speaker) -> tuple[np.ndarray, list[str], list[float]]:
    """Reads one text with flite in the speaker's voice.

    Returns:
        samples (float32, 16 kHz mono, at the corpus' loudness), phones, and the second at which each phone ends.

    Raises:
        LlasaError: flite is not installed.
        RuntimeError: it failed on this text.
    """
    with tempfile.NamedTemporaryFile(suffix=".wav", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as file:
        command = ["flite", "-voice", speaker.voice, "-psdur", "-o", file.name]
        command += ["--setf", f"duration_stretch={speaker.formants * speaker.tempo:.4f}"]
        if speaker.pitch is not None:
            command += ["--setf", f"int_f0_target_mean={speaker.pitch / speaker.formants:.1f}"]
        try:
            # A text with no space would be taken for a file name, hence -t.
            printed = subprocess.run([*command, "-t", text], capture_output=True, text=True, timeout=60, check=True)
        except FileNotFoundError as error:
            raise LlasaError("flite is not installed: apt-get install flite") from error
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"flite failed on {text[:60]!r}: {error}") from error
        samples, rate = soundfile.read(file.name, dtype="float32")
    segments = [item.rsplit(":", 1) for item in printed.stdout.split()]
    phones = [phone for phone, _ in segments]
    ends = np.array([float(end) for _, end in segments]) / speaker.formants
    if rate * speaker.formants != RATE:
        samples = soxr.resample(samples, rate * speaker.formants, RATE)
    return _trim(samples, phones, ends)


def _trim(samples: np.ndarray, phones: list[str], ends: np.ndarray) -> tuple[np.ndarray, list[str], list[float]]:
    """Cuts the outer silences to LEAD and TAIL, and sets the loudness."""
    if not phones or all(phone == "pau" for phone in phones):
        raise RuntimeError("flite said nothing")
    start = max(0.0, ends[0] - LEAD) if phones[0] == "pau" else 0.0
    last = max(i for i, phone in enumerate(phones) if phone != "pau")
    stop = min(len(samples) / RATE, ends[last] + TAIL)
    samples = samples[int(start * RATE) : int(stop * RATE)]
    samples = samples * (RMS_LEVEL / max(float(np.sqrt(np.mean(samples**2))), 1e-6))
    peak = float(np.abs(samples).max())
    if peak > 0.99:
        samples = samples * (0.99 / peak)
    return samples.astype(np.float32), phones, np.clip(ends - start, 0, stop - start).tolist()


def assign(
    texts: list[str], voices: list[Speaker], teacher_share: dict[str, float], seed: int
) -> Iterator[tuple[str, str, Speaker]]:
    """Gives each text a speaker: teachers by their share, the rest spread evenly over the shifted ones."""
    rng = np.random.default_rng(seed)
    plain = [v for v in voices if v.name in TEACHERS]
    shifted = [v for v in voices if v.name not in TEACHERS]
    shares = [teacher_share.get(v.name, 0.0) for v in plain]
    rest = max(0.0, 1.0 - sum(shares)) if shifted else 0.0
    weights = np.array([*shares, *(rest / len(shifted) for _ in shifted)])
    chosen = rng.choice(len(weights), size=len(texts), p=weights / weights.sum())
    pool = plain + shifted
    for index, (text, pick) in enumerate(zip(texts, chosen, strict=True)):
        yield f"{seed:02d}-{index:06d}", text, pool[pick]


def make_shard(job: tuple[Path, list[tuple[str, str, Speaker]]]) -> tuple[int, float]:
    """Speaks one shard's utterances and writes it. A text that flite can't read is left out.

    Returns:
        the number of utterances written and their seconds.
    """
    path, items = job
    rows, seconds = [], 0.0
    for identity, text, speaker in items:
        try:
            samples, phones, ends = speak(text, speaker)
        except RuntimeError:
            continue
        seconds += len(samples) / RATE
        rows.append(
            {
                "id": identity,
                "text": text,
                "audio": flac(samples),
                "speaker": speaker.name,
                "language": "en",
                "seconds": len(samples) / RATE,
                "phones": phones,
                "ends": ends,
            }
        )
    write_shard(path, rows, AUDIO_SCHEMA)
    return len(rows), seconds


def flac(samples: np.ndarray) -> bytes:
    """16-bit FLAC of mono float samples at the corpus rate."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def synthesise(
    texts: Iterable[str],
    out: Path,
    shifted: int = 240,
    teacher_share: dict[str, float] | None = None,
    shard_size: int = 400,
    workers: int = 2,
    seed: int = 0,
) -> Iterator[tuple[int, float]]:
    """Writes the corpus shard by shard, skipping shards that exist; yields (utterances, seconds) for each new shard."""
    from concurrent.futures import ProcessPoolExecutor

    share = {"rms": 0.3, "slt": 0.1, "awb": 0.12, "kal16": 0.08} if teacher_share is None else teacher_share
    items = list(assign(list(texts), speakers(shifted), share, seed))
    jobs = [
        (out / f"{seed:02d}-{start // shard_size:05d}.parquet", items[start : start + shard_size])
        for start in range(0, len(items), shard_size)
    ]
    jobs = [job for job in jobs if not job[0].exists()]
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(make_shard, jobs)

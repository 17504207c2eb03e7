"""Audio files to mono float32 samples and back, and the few measures that deciding about a clip needs.

Knows files, sample rates and levels; knows nothing of codecs or models. Samples are one-dimensional float32 arrays in
which full scale is 1.0.
"""

import io
import os
import re
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from llasa.errors import LlasaError, reason, shown
from llasa.writing import whole

LONGEST = 4 * 3600.0  # seconds; longer is more likely a wrong file than speech
FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
SILENCE = -60.0  # dBFS: a frame below this holds no speech
GATE = 16.0  # dB below the mean level at which a frame still counts as speech; the margin of ITU-T P.56
FRAME = 0.05  # seconds
BLOCK = 65536  # samples read or written at a time
STREAMED = 2**31 - 2**16  # programs that write to a pipe claim a length of about this or more


def load(source: str | Path | BinaryIO, rate: int = 16000, max_seconds: float = LONGEST) -> np.ndarray:
    """Reads an audio file in any format, rate and channel count that soundfile knows.

    Args:
        source: a path, or a binary file object (read from its start).
        rate: sample rate of the result, in Hz.
        max_seconds: a longer file is refused from its header, before anything is read.

    Returns:
        samples (N,), the mean of the channels.

    Raises:
        LlasaError: no such file, a folder, not audio, truncated, corrupt, empty, too long, or NaN or infinite samples.
            An OGG cut off after its first second is not noticed, since it does not say how long it should be.
    """
    name, opened = _open(source)
    try:
        with soundfile.SoundFile(opened) as sound:
            return _read(sound, name, rate, max_seconds)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless formats, which need a rate
        message = f"{name} cannot be read as audio: it is not an audio file, or is truncated or corrupt"
        raise LlasaError(message) from error


def _open(source: str | Path | BinaryIO) -> tuple[str, str | BinaryIO]:
    """The name to use in messages, and what to give to soundfile: something with a length, in which it can seek."""
    if not isinstance(source, str | Path):
        file = source if source.seekable() else io.BytesIO(source.read())
        if not file.seek(0, os.SEEK_END):
            raise LlasaError("the audio is empty (0 bytes)")
        file.seek(0)
        return "the audio", file
    path = Path(source)
    try:
        if path.is_file():
            if not path.stat().st_size:
                raise LlasaError(f"{shown(path)} is empty (0 bytes)")
            path.open("rb").close()  # for the reason, which soundfile would not give
            return shown(path), str(path)
        if path.is_dir():
            raise LlasaError(f"{shown(path)} is a folder, not an audio file")
        if not path.exists():
            raise LlasaError(f"there is no file {shown(path)}")
        return shown(path), _open(io.BytesIO(path.read_bytes()))[1]  # a pipe
    except (OSError, ValueError) as error:
        raise LlasaError(f"cannot read {shown(path)}: {reason(error)}") from error


def _read(sound: soundfile.SoundFile, name: str, rate: int, max_seconds: float) -> np.ndarray:
    """The whole of an open file, mixed and resampled block by block: memory holds one copy, at the target rate."""
    if sound.frames > 2**62:
        raise LlasaError(f"{name} does not say in its header how long it is: convert it to WAV")
    if sound.frames > max_seconds * sound.samplerate:
        found = _duration(sound.frames / sound.samplerate)
        raise LlasaError(f"{name} is too long: {found}, and at most {_duration(max_seconds)} are read: cut it")
    # libsndfile shortens PCM that ends early without an error, and says so only in its log.
    for claimed, present in re.findall(r": (\d+) \(should be (\d+)\)", sound.extra_info):
        if int(present) + 64 < int(claimed) < STREAMED:
            raise LlasaError(f"{name} is truncated: {present} bytes where its header says {claimed}")
    import soxr

    stream = soxr.ResampleStream(sound.samplerate, rate, 1, dtype="float32") if sound.samplerate != rate else None
    pieces = []
    count = 0
    while len(block := sound.read(BLOCK, dtype="float32", always_2d=True)):
        count += len(block)
        if not np.all(np.abs(block) < 1e6):  # false for NaN too
            raise LlasaError(f"{name} has NaN, infinite or absurdly large samples: it is damaged, export it again")
        mono = block.mean(axis=1)
        pieces.append(stream.resample_chunk(mono) if stream else mono)
    # MP3 counts are exact to a few frames of 1,152 samples.
    if count < 0.99 * sound.frames - 4608:
        raise LlasaError(f"{name} is truncated: {count} samples where its header says {sound.frames}")
    if stream:
        pieces.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if not samples.size:
        raise LlasaError(f"{name} holds no samples: it is empty, or was cut off")
    return samples


def save(path: str | Path, samples: np.ndarray, rate: int) -> None:
    """Writes samples (N,) as 16-bit WAV, 16-bit FLAC or OGG Vorbis, by the path's suffix.

    The file appears whole or not at all.

    Raises:
        LlasaError: another suffix, no samples, NaN or infinite ones, or the path cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise LlasaError(f"cannot tell the audio format of {shown(path)}: end its name in {', '.join(FORMATS)}")
    data = _encode(samples, rate, *FORMATS[path.suffix.lower()])
    try:
        with whole(path) as temporary:
            temporary.write_bytes(data)
    except ValueError as error:  # no file can have that name
        raise LlasaError(f"cannot write {shown(path)}: {reason(error)}") from error


def _encode(samples: np.ndarray, rate: int, container: str, coding: str) -> bytes:
    if not len(samples):
        raise LlasaError("there is nothing to save: the audio has no samples")
    if container == "WAV":
        return wav_bytes(samples, rate)
    values = np.frombuffer(pcm16(samples), "<i2")
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(buffer, "w", rate, 1, format=container, subtype=coding) as sound:
            # In blocks: libsndfile's Vorbis encoder overflows the stack when given minutes at once.
            for start in range(0, len(values), BLOCK):
                sound.write(values[start : start + BLOCK])
    except soundfile.SoundFileError as error:
        raise LlasaError(f"{container} cannot hold audio at {rate} Hz: save it as .wav") from error
    return buffer.getvalue()


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    """Samples (N,) as a 16-bit mono WAV file. Raises as `pcm16` does."""
    return wav_header(rate, len(samples)) + pcm16(samples)


def wav_header(rate: int, samples: int | None = None) -> bytes:
    """The 44 bytes before the samples of a 16-bit mono WAV.

    Without a number of samples, as when writing to a pipe, both sizes are the largest that fit, which readers take for
    "until the end".
    """
    size = min(0xFFFFFFFE if samples is None else 2 * samples, 0xFFFFFFFE)
    whole = min(36 + size, 0xFFFFFFFF)
    layout = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    return b"RIFF" + struct.pack("<I", whole) + b"WAVEfmt " + layout + b"data" + struct.pack("<I", size)


def pcm16(samples: np.ndarray) -> bytes:
    """Samples (N,) as little-endian 16-bit integers; what lies beyond full scale is clipped.

    Raises:
        LlasaError: a sample is NaN or infinite.
    """
    scaled = np.asarray(samples, dtype=np.float32) * 32768.0
    if not np.isfinite(scaled).all():
        raise LlasaError("the audio to write has NaN or infinite samples: if a model made it, try dtype float32")
    return np.clip(np.rint(scaled), -32768, 32767).astype("<i2").tobytes()


def resample(samples: np.ndarray, rate_in: int, rate_out: int) -> np.ndarray:
    """Samples (N,) at `rate_in` Hz to about N * rate_out / rate_in samples at `rate_out` Hz (soxr, high quality)."""
    samples = np.asarray(samples, dtype=np.float32)
    import soxr

    return samples if rate_in == rate_out else soxr.resample(samples, rate_in, rate_out)


def loudness(samples: np.ndarray, rate: int) -> float:
    """Level of the speech in a clip, in dBFS: the RMS of its active part, whatever pauses lie around it.

    Frames of 50 ms, each without its mean (a constant offset is not sound), count as active when they are above -60
    dBFS and no more than 16 dB below the mean level of those. A plain RMS, not frequency weighted: it puts clips of
    speech at one level, and is not the LUFS of ITU-R BS.1770.

    Returns:
        dBFS, in which a sine of full scale has -3.0; minus infinity when there is no active frame.
    """
    power = _frames(samples, rate).var(axis=1)
    active = _active(power)
    return float(10 * np.log10(power[active].mean())) if active.any() else float("-inf")


def set_loudness(samples: np.ndarray, rate: int, target: float, peak: float = 0.99) -> np.ndarray:
    """Samples (N,) scaled to `target` dBFS as `loudness` measures it, or less where a sample would pass `peak`.

    One gain for the whole clip: nothing is compressed or clipped. Silence comes back as it is.
    """
    samples = np.asarray(samples, dtype=np.float32)
    level = loudness(samples, rate)
    if level == float("-inf"):
        return samples
    gain = min(10 ** ((target - level) / 20), peak / float(np.abs(samples).max()))
    return (samples * gain).astype(np.float32)


def is_silent(samples: np.ndarray, rate: int) -> bool:
    """Whether no 50 ms of the clip reach -60 dBFS."""
    return loudness(samples, rate) == float("-inf")


def trim_silence(samples: np.ndarray, rate: int, margin: float = 0.1) -> np.ndarray:
    """Cuts what lies more than `margin` seconds before the first or after the last active frame (see `loudness`).

    Returns:
        a view of the samples; empty when the clip is silent.
    """
    frames = _frames(samples, rate)
    active = np.flatnonzero(_active(frames.var(axis=1)))
    if not active.size:
        return samples[:0]
    extra = round(margin * rate)
    return samples[max(0, int(active[0]) * frames.shape[1] - extra) : int(active[-1] + 1) * frames.shape[1] + extra]


def _frames(samples: np.ndarray, rate: int) -> np.ndarray:
    """Samples (N,) as float64 frames (F, 50 ms); a remainder at the end is left out, unless it is all there is."""
    size = max(1, min(round(FRAME * rate), len(samples)))
    count = len(samples) // size
    return np.asarray(samples[: count * size], dtype=np.float64).reshape(count, size)


def _active(power: np.ndarray) -> np.ndarray:
    """Which frames, given their mean squares (F,), hold speech."""
    loud = power > 10 ** (SILENCE / 10)
    return loud & (power > power[loud].mean() * 10 ** (-GATE / 10)) if loud.any() else loud


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} seconds" if seconds < 120 else f"{seconds / 60:.1f} minutes"

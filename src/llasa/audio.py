"""Reads and writes audio files, resamples, and measures and sets the level of a clip.

Samples are one-dimensional float32 arrays in which full scale is 1.0.
"""

import io
import os
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from llasa import ffmpeg
from llasa.errors import LlasaError, TooLong, reason, shown
from llasa.files import RECORDING_LIMIT, exists, is_file, is_folder, read_bytes, read_limited, whole

LONGEST = 4 * 3600.0  # seconds; a longer file is probably the wrong one
FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
SILENCE = -60.0  # dBFS; a frame below this holds no speech
GATE = 16.0  # dB; a frame further than this below the mean level is not speech; the margin of ITU-T P.56
FRAME = 0.05  # seconds
BLOCK = 65536  # samples read or written at a time
CANCELLED = 0.5  # of what independent channels leave of their power when they are mixed
STREAMED = 2**31 - 2**16  # programs that write to a pipe claim a length of about this or more


def load(source: str | Path | BinaryIO, rate: int = 16000, max_seconds: float = LONGEST) -> np.ndarray:
    """Reads an audio file in any format, rate and channel count that soundfile or ffmpeg knows.

    Args:
        source: a path, or a binary file object (read from its start).
        rate: sample rate of the result, in Hz.
        max_seconds: a longer file is refused from its header, before anything is read.

    Returns:
        samples (N,), the mean of the channels; if they cancel one another, as in antiphase, the loudest alone.

    Raises:
        TooLong: the file is longer than `max_seconds`.
        LlasaError: the file does not exist, is a folder, is not audio, is truncated, corrupt or empty, or has NaN or
            infinite samples. An OGG or WebM file that is cut off after its first second is not noticed, because its
            header has no length.
    """
    name, opened = _open(source)
    message = f"{name} cannot be read as audio: it is not an audio file, or is truncated or corrupt"
    # TypeError: headerless formats, which need a rate.
    unreadable = (soundfile.SoundFileError, TypeError)
    with _quiet(opened):
        try:
            # libsndfile takes names that are not UTF-8 only as bytes.
            sound = soundfile.SoundFile(os.fsencode(opened) if isinstance(opened, str) else opened)
        except unreadable as error:
            if not ffmpeg.installed():
                raise LlasaError(f"{message}, or of a format that needs ffmpeg: install ffmpeg") from error
            sound = None
        try:
            if sound:
                with sound:
                    return _read(sound, name, rate, max_seconds)
            with ffmpeg.decoded(opened, max_seconds) as path:
                if path is None:
                    raise LlasaError(message)
                with soundfile.SoundFile(path) as sound:
                    if sound.frames > max_seconds * sound.samplerate:
                        raise TooLong(f"{name} is too long: at most {_duration(max_seconds)} are read: cut it")
                    return _read(sound, name, rate, max_seconds)
        except unreadable as error:
            raise LlasaError(message) from error


_quieted = [0, -1]  # how many files are being read quietly, and standard error as it was before the first
_quieting = threading.Lock()


@contextmanager
def _quiet(opened: str | BinaryIO) -> Iterator[None]:
    """Keeps libmpg123, which libsndfile reads MP3 with, from writing its notes to standard error.

    It has no other switch. What another thread writes there meanwhile is lost as well, so only MP3 is read so.
    """
    try:
        if isinstance(opened, str):
            with open(opened, "rb") as file:
                head = file.read(3)
        else:
            head = opened.read(3)
            opened.seek(0)
    except OSError:
        head = b""
    is_mp3 = head == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")
    if not is_mp3 or _closed(2):
        yield
        return
    with _quieting:
        if not _quieted[0]:
            _quieted[1] = os.dup(2)
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
        _quieted[0] += 1
    try:
        yield
    finally:
        with _quieting:
            _quieted[0] -= 1
            if not _quieted[0]:
                os.dup2(_quieted[1], 2)
                os.close(_quieted[1])


def _open(source: str | Path | BinaryIO) -> tuple[str, str | BinaryIO]:
    """The name to use in messages, and a source for soundfile that has a length and can seek."""
    if not isinstance(source, str | Path):
        file = source if source.seekable() else io.BytesIO(read_limited(source, "the audio", RECORDING_LIMIT))
        if not file.seek(0, os.SEEK_END):
            raise LlasaError("the audio is empty (0 bytes)")
        file.seek(0)
        return "the audio", file
    path = Path(source)
    try:
        if is_file(path):
            if not path.stat().st_size:
                raise LlasaError(f"{shown(path)} is empty (0 bytes)")
            path.open("rb").close()  # raises with the system's reason, which soundfile would not give
            return shown(path), str(path)
        if is_folder(path):
            raise LlasaError(f"{shown(path)} is a folder, not an audio file")
        if not exists(path):
            raise LlasaError(f"there is no file {shown(path)}")
        return shown(path), _open(io.BytesIO(read_bytes(path, RECORDING_LIMIT)))[1]  # a pipe
    except (OSError, ValueError) as error:
        raise LlasaError(f"cannot read {shown(path)}: {reason(error)}") from error


def _closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False


def _read(sound: soundfile.SoundFile, name: str, rate: int, max_seconds: float) -> np.ndarray:
    """Reads an open file, mixing and resampling block by block, so memory holds one copy at the target rate."""
    if sound.frames > 2**62:
        raise LlasaError(f"{name} does not say in its header how long it is: convert it to WAV")
    if sound.frames > max_seconds * sound.samplerate:
        found = _duration(sound.frames / sound.samplerate)
        raise TooLong(f"{name} is too long: {found}, and at most {_duration(max_seconds)} are read: cut it")
    # libsndfile reads PCM that ends early without an error, and reports it only in its log.
    # (It also reports a rate of bytes that is a guess, as ADPCM's often is.)
    for claimed, present in re.findall(r"(?m)^(?!.*/sec).*: (\d+) \(should be (\d+)\)", sound.extra_info):
        if int(present) + 64 < int(claimed) < STREAMED:
            raise LlasaError(f"{name} is truncated: {present} bytes where its header says {claimed}")
    import soxr

    stream = soxr.ResampleStream(sound.samplerate, rate, 1, dtype="float32") if sound.samplerate != rate else None
    weights = _weights(sound)
    pieces = []
    count = 0
    while len(block := sound.read(BLOCK, dtype="float32", always_2d=True)):
        count += len(block)
        if not np.all(np.abs(block) < 1e6):  # false for NaN too
            raise LlasaError(f"{name} has NaN, infinite or absurdly large samples: it is damaged, export it again")
        mono = block @ weights
        pieces.append(stream.resample_chunk(mono) if stream else mono)
    # MP3 headers are accurate to a few frames of 1,152 samples.
    if count < 0.99 * sound.frames - 4608:
        raise LlasaError(f"{name} is truncated: {count} samples where its header says {sound.frames}")
    if stream:
        pieces.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if not samples.size:
        raise LlasaError(f"{name} holds no samples: it is empty, or was cut off")
    return samples


def _weights(sound: soundfile.SoundFile) -> np.ndarray:
    """The share (C,) of each channel in the mono mix. The file is left at its start."""
    channels = sound.channels
    even = np.full(channels, 1 / channels, np.float32)
    if channels == 1:
        return even
    count, total, products = 0, np.zeros(channels), np.zeros((channels, channels))
    while len(block := sound.read(BLOCK, dtype="float64", always_2d=True)):
        count += len(block)
        total += block.sum(axis=0)
        products += block.T @ block
    sound.seek(0)
    with np.errstate(all="ignore"):  # samples that are no numbers are refused when they are mixed
        covariance = products / max(count, 1) - np.outer(total, total) / max(count, 1) ** 2
    power = covariance.diagonal()
    # Independent channels of one level leave 1 / C of their mean power.
    if covariance.mean() >= CANCELLED * power.mean() / channels:
        return even
    return (np.arange(channels) == power.argmax()).astype(np.float32)


def save(path: str | Path, samples: np.ndarray, rate: int) -> None:
    """Writes samples (N,) as 16-bit WAV, 16-bit FLAC or OGG Vorbis, depending on the path's suffix.

    The file appears whole or not at all.

    Raises:
        LlasaError: the suffix is another one, there are no samples, some are NaN or infinite, or the path cannot be
            written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise LlasaError(f"cannot tell the audio format of {shown(path)}: end its name in {', '.join(FORMATS)}")
    data = _encode(samples, rate, *FORMATS[path.suffix.lower()])
    try:
        with whole(path) as temporary:
            temporary.write_bytes(data)
    except ValueError as error:  # the name is not possible for a file
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

    Without a number of samples, as when writing to a pipe, both sizes are the largest possible, which readers
    understand as "until the end".
    """
    size = min(0xFFFFFFFE if samples is None else 2 * samples, 0xFFFFFFFE)
    whole = min(36 + size, 0xFFFFFFFF)
    layout = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    return b"RIFF" + struct.pack("<I", whole) + b"WAVEfmt " + layout + b"data" + struct.pack("<I", size)


def pcm16(samples: np.ndarray) -> bytes:
    """Samples (N,) as little-endian 16-bit integers, clipped at full scale.

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
    """Level of the speech in a clip, in dBFS: the RMS of its active frames, without the pauses.

    Frames last 50 ms. Each has its mean removed, as a constant offset is not sound. A frame is active if it is above
    -60 dBFS and no more than 16 dB below the mean level of such frames. The RMS has no frequency weighting: it serves
    to give clips of speech the same level, and is not the LUFS of ITU-R BS.1770.

    Returns:
        dBFS, where a sine of full scale has -3.0; minus infinity if no frame is active.
    """
    power = _frames(samples, rate).var(axis=1)
    active = _active(power)
    return float(10 * np.log10(power[active].mean())) if active.any() else float("-inf")


def set_loudness(samples: np.ndarray, rate: int, target: float, peak: float = 0.99) -> np.ndarray:
    """Scales samples (N,) to `target` dBFS as measured by `loudness`, or less if a sample would exceed `peak`.

    The whole clip gets one gain: nothing is compressed or clipped. Silence is returned unchanged.
    """
    samples = np.asarray(samples, dtype=np.float32)
    level = loudness(samples, rate)
    if level == float("-inf"):
        return samples
    gain = min(10 ** ((target - level) / 20), peak / float(np.abs(samples).max()))
    return (samples * gain).astype(np.float32)


def is_silent(samples: np.ndarray, rate: int) -> bool:
    """Whether no frame of 50 ms reaches -60 dBFS."""
    return loudness(samples, rate) == float("-inf")


def trim_silence(samples: np.ndarray, rate: int, margin: float = 0.1) -> np.ndarray:
    """Cuts everything more than `margin` seconds before the first or after the last active frame (see `loudness`).

    Returns:
        a view of the samples, empty if the clip is silent.
    """
    frames = _frames(samples, rate)
    active = np.flatnonzero(_active(frames.var(axis=1)))
    if not active.size:
        return samples[:0]
    extra = round(margin * rate)
    return samples[max(0, int(active[0]) * frames.shape[1] - extra) : int(active[-1] + 1) * frames.shape[1] + extra]


def _frames(samples: np.ndarray, rate: int) -> np.ndarray:
    """Samples (N,) as float64 frames (F, 50 ms), without a remainder at the end unless there is nothing else."""
    size = max(1, min(round(FRAME * rate), len(samples)))
    count = len(samples) // size
    return np.asarray(samples[: count * size], dtype=np.float64).reshape(count, size)


def _active(power: np.ndarray) -> np.ndarray:
    """Which frames hold speech, by their mean squares (F,)."""
    loud = power > 10 ** (SILENCE / 10)
    return loud & (power > power[loud].mean() * 10 ** (-GATE / 10)) if loud.any() else loud


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} seconds" if seconds < 120 else f"{seconds / 60:.1f} minutes"

"""Encodes samples as they come: WAV, raw samples, FLAC, MP3 and Opus by libsndfile, AAC by ffmpeg."""

import io
import os
import subprocess
from typing import Any, Literal, Protocol, get_args

import numpy as np
import soundfile
import soxr

from llasa import audio, ffmpeg
from llasa.serve.problems import Problem

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
FORMATS: tuple[Format, ...] = get_args(Format)
MEDIA = {
    "mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav",
    "pcm": "audio/pcm",
}  # fmt: skip
PCM_RATE = 24000  # Hz; raw samples do not tell their rate, and clients of this API assume this one
MP3_LEVEL = 0.6  # 64 kbit/s at 16 kHz
_SNDFILE = {"mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS"), "flac": ("FLAC", "PCM_16")}


class Encoder(Protocol):
    """Samples in, bytes out; all bytes together are one file."""

    def push(self, samples: np.ndarray) -> bytes:
        """Takes (N,) more samples. Returns the bytes that are ready, perhaps none."""

    def finish(self) -> bytes:
        """Returns the rest, and frees what the encoder holds."""


def encoder(format: Format, rate: int) -> Encoder:
    """An encoder for samples at `rate` Hz.

    Raises:
        Problem: there is no ffmpeg for AAC.
    """
    if format == "pcm":
        return Pcm(rate)
    if format == "wav":
        return Wav(rate)
    if format == "aac":
        if not ffmpeg.installed():
            raise Problem("aac needs ffmpeg on the server: ask for mp3 or opus", param="response_format")
        return Aac(rate)
    return Sndfile(rate, *_SNDFILE[format])


class Pcm:
    """Raw samples: 16-bit, little-endian, mono, at a rate `to`."""

    def __init__(self, rate: int, to: int = PCM_RATE) -> None:
        self._resampler = soxr.ResampleStream(rate, to, 1, dtype="float32")

    def push(self, samples: np.ndarray) -> bytes:
        return audio.pcm16(self._resampler.resample_chunk(samples))

    def finish(self) -> bytes:
        return audio.pcm16(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))


class Wav:
    """A WAV whose header claims the greatest length, as that is not known yet; readers take what comes."""

    def __init__(self, rate: int) -> None:
        self._header = audio.wav_header(rate)

    def push(self, samples: np.ndarray) -> bytes:
        header, self._header = self._header, b""
        return header + audio.pcm16(samples)

    def finish(self) -> bytes:
        return self.push(np.zeros(0, np.float32))


class Sndfile:
    """Whatever libsndfile writes from beginning to end."""

    def __init__(self, rate: int, container: str, coding: str) -> None:
        self._sink = _Sink()
        self._file = _open(self._sink, rate, container, coding)

    def push(self, samples: np.ndarray) -> bytes:
        values = np.frombuffer(audio.pcm16(samples), "<i2")
        for start in range(0, len(values), audio.BLOCK):  # its encoders overflow the stack when given minutes at once
            self._file.write(values[start : start + audio.BLOCK])
        return self._sink.take()

    def finish(self) -> bytes:
        self._file.close()
        return self._sink.take()


class _Sink:
    """A file that is written once. At its end libsndfile writes lengths into the header, which is long gone."""

    def __init__(self) -> None:
        self._ready = bytearray()
        self._gone = self._place = 0

    def write(self, data: bytes) -> int:
        new = data[max(0, self._gone + len(self._ready) - self._place) :]
        self._ready += new
        self._place += len(data)
        return len(data)

    def take(self) -> bytes:
        """What was written since the last call."""
        ready = bytes(self._ready)
        self._gone += len(ready)
        self._ready.clear()
        return ready

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._gone + len(self._ready)}
        self._place = start[whence] + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int = -1) -> bytes:
        return b""

    def flush(self) -> None:
        pass


class Aac:
    """AAC in ADTS frames, by ffmpeg in a process of its own."""

    def __init__(self, rate: int) -> None:
        command = ["ffmpeg", "-nostdin", "-v", "quiet", "-f", "s16le", "-ar", str(rate), "-ac", "1", "-i", "pipe:0"]
        command += ["-c:a", "aac", "-b:a", "64k", "-flush_packets", "1", "-f", "adts", "pipe:1"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def push(self, samples: np.ndarray) -> bytes:
        data, found = audio.pcm16(samples), b""
        assert self._process.stdin
        # In parts that fit the pipe, for ffmpeg waits for a reader when its own is full.
        for start in range(0, len(data), 16384):
            self._process.stdin.write(data[start : start + 16384])
            self._process.stdin.flush()
            found += self._read()
        return found

    def finish(self) -> bytes:
        found, _ = self._process.communicate()
        return found or b""

    def _read(self) -> bytes:
        assert self._process.stdout
        return self._process.stdout.read() or b""


def encode(format: Format, rate: int, samples: np.ndarray) -> bytes:
    """A whole recording (N,) as a file, whose header tells its length."""
    if format == "wav":
        return audio.wav_bytes(samples, rate)
    if format in _SNDFILE:
        buffer = io.BytesIO()
        values = np.frombuffer(audio.pcm16(samples), "<i2")
        with _open(buffer, rate, *_SNDFILE[format]) as file:
            for start in range(0, len(values), audio.BLOCK):
                file.write(values[start : start + audio.BLOCK])
        return buffer.getvalue()
    made = encoder(format, rate)
    return made.push(samples) + made.finish()


def _open(file: Any, rate: int, container: str, coding: str) -> soundfile.SoundFile:
    # MP3 at a constant rate of bits: a player tells the length of a stream from it, since the header cannot.
    mp3 = {"bitrate_mode": "CONSTANT", "compression_level": MP3_LEVEL} if container == "MP3" else {}
    return soundfile.SoundFile(file, "w", rate, 1, format=container, subtype=coding, **mp3)

"""Formats: what is encoded as it comes is one file, which other programs read."""

import io
import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from llasa import ffmpeg
from llasa.serve.formats import FORMATS, Format, encode, encoder
from llasa.serve.problems import Problem

RATE = 16000
TIME = np.arange(3 * RATE) / RATE
TONE = (0.3 * np.sin(2 * np.pi * 440 * TIME)).astype(np.float32)


def streamed(format: Format) -> list[bytes]:
    """The bytes of a tone that comes in pieces of many lengths, after each piece and at the end."""
    made, pieces = encoder(format, RATE), []
    for piece in np.split(TONE, [0, 1, 700, 701, 5000, 20000, 20000, 40000]):
        pieces.append(made.push(piece))
    return [*pieces, made.finish()]


def decoded(data: bytes, name: str, tmp_path: Path) -> np.ndarray:
    path = tmp_path / f"sound.{name}"
    path.write_bytes(data)
    raw = ["-f", "s16le", "-ar", "24000"] if name == "pcm" else []
    command = ["ffmpeg", "-v", "error", *raw, "-i", str(path), "-f", "s16le", "-ar", str(RATE), "-ac", "1", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, "<i2") / 32768


@pytest.mark.skipif(not ffmpeg.installed(), reason="ffmpeg is not installed")
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_ffmpeg_hears_the_tone(format: Format, whole: bool, tmp_path: Path) -> None:
    data = encode(format, RATE, TONE) if whole else b"".join(streamed(format))
    heard = decoded(data, format, tmp_path)
    assert 2.9 < len(heard) / RATE < 3.3
    middle = heard[RATE : 2 * RATE]
    peak = np.abs(np.fft.rfft(middle * np.hanning(RATE))).argmax()
    assert peak == 440
    assert np.abs(middle).max() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("format", ["wav", "pcm", "flac", "mp3"])
def test_bytes_come_while_samples_come(format: Format) -> None:
    pieces = streamed(format)
    assert sum(map(len, pieces[:5])) > 0
    assert len(pieces[-1]) < 0.5 * sum(map(len, pieces))


def test_a_streamed_wav_is_read_by_wave() -> None:
    with wave.open(io.BytesIO(b"".join(streamed("wav")))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        assert file.getnframes() >= len(TONE)
        frames = file.readframes(file.getnframes())
    np.testing.assert_allclose(np.frombuffer(frames, "<i2") / 32768, TONE, atol=1e-4)


def test_pcm_has_the_rate_that_clients_assume() -> None:
    assert len(b"".join(streamed("pcm"))) == 2 * 3 * 24000


def test_a_streamed_mp3_is_as_long_as_it_says() -> None:
    for data in (b"".join(streamed("mp3")), encode("mp3", RATE, TONE)):
        assert 2.9 < soundfile.info(io.BytesIO(data)).duration < 3.3


def test_whole_files_say_how_long_they_are() -> None:
    for format in ("wav", "flac", "opus"):
        assert soundfile.info(io.BytesIO(encode(format, RATE, TONE))).duration == pytest.approx(3, abs=0.05)


def test_aac_without_ffmpeg_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Problem, match="aac needs ffmpeg"):
        encoder("aac", RATE)


def test_an_encoder_that_is_dropped_leaves_nothing() -> None:
    for format in FORMATS:
        made = encoder(format, RATE)
        made.push(TONE[:100])
        made.finish()
    assert encoder("wav", RATE).finish()[:4] == b"RIFF"

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llasa.audio import (
    is_silent,
    load,
    loudness,
    pcm16,
    resample,
    save,
    set_loudness,
    trim_silence,
    wav_bytes,
    wav_header,
)
from llasa.errors import LlasaError, TooLong


def tone(seconds: float = 1.0, rate: int = 16000, frequency: float = 220.0, level: float = 0.5) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int, container: str, coding: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=coding)
    return buffer.getvalue()


def close(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    """Whether the middles agree; the ends ring after resampling and lossy coding."""
    length = min(len(found), len(wanted))
    assert abs(len(found) - len(wanted)) <= 2500, (len(found), len(wanted))
    return float(np.abs(found[2000 : length - 2000] - wanted[2000 : length - 2000]).max()) < tolerance


@pytest.mark.parametrize(
    ("container", "coding", "tolerance"),
    [
        ("WAV", "PCM_U8", 0.01), ("WAV", "PCM_16", 1e-3), ("WAV", "PCM_24", 1e-3), ("WAV", "FLOAT", 1e-3),
        ("WAV", "DOUBLE", 1e-3), ("WAV", "ULAW", 0.03), ("AIFF", "PCM_16", 1e-3), ("AU", "PCM_16", 1e-3),
        ("CAF", "PCM_16", 1e-3), ("W64", "PCM_16", 1e-3), ("RF64", "PCM_16", 1e-3), ("FLAC", "PCM_16", 1e-3),
        ("OGG", "VORBIS", 0.05), ("OGG", "OPUS", 0.05),
    ],
)  # fmt: skip
def test_load_reads_every_format_rate_and_channel_count(
    tmp_path: Path, container: str, coding: str, tolerance: float
) -> None:
    path = tmp_path / "clip"
    stereo = np.stack([tone(rate=48000, level=0.6), tone(rate=48000, level=0.4)], axis=1)
    path.write_bytes(encoded(stereo, 48000, container, coding))
    samples = load(path)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert close(samples, tone(), tolerance)


def test_load_reads_mp3(tmp_path: Path) -> None:
    (tmp_path / "clip.mp3").write_bytes(encoded(tone(rate=44100), 44100, "MP3", "MPEG_LAYER_III"))
    samples = load(tmp_path / "clip.mp3")
    # An encoder's delay shifts the tone: compare its level.
    assert len(samples) == pytest.approx(16000, abs=2500)
    assert np.sqrt(np.mean(samples[3000:-3000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 96000])
def test_load_at_another_rate(rate: int) -> None:
    assert close(load(io.BytesIO(wav_bytes(tone(rate=44100), 44100)), rate), tone(rate=rate), 2e-3)


def test_load_resamples_in_blocks_as_in_one_piece() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 200_000).astype(np.float32)
    data = encoded(samples, 48000, "WAV", "FLOAT")
    np.testing.assert_allclose(load(io.BytesIO(data)), resample(samples, 48000, 16000), atol=1e-6)


def test_load_from_a_stream_that_cannot_seek() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    samples = tone(0.1)
    np.testing.assert_allclose(load(Pipe(wav_bytes(samples, 16000))), samples, atol=1e-4)
    script = "import sys; from llasa.audio import load; print(len(load(sys.argv[1])))"
    for name in ("/dev/stdin", "/dev/fd/0"):
        done = subprocess.run(
            [sys.executable, "-c", script, name], input=wav_bytes(samples, 16000), capture_output=True
        )
        assert int(done.stdout) == 1600


BROKEN = {
    "not audio": (b"just some text\n" * 50, "not an audio file, or is truncated or corrupt"),
    "zeros": (bytes(5000), "not an audio file"),
    "zero bytes": (b"", r"empty \(0 bytes\)"),
    "header alone": (wav_header(16000, 0), "holds no samples"),
    "half a header": (wav_header(16000, 5)[:30], "truncated or corrupt"),
    "truncated wav": (wav_bytes(tone(), 16000)[:9000], "truncated: 8992 bytes where its header says 32036"),
    "truncated 8 bit": (encoded(tone(), 16000, "WAV", "PCM_U8")[:9000], "truncated"),
    "truncated aiff": (encoded(tone(), 16000, "AIFF", "PCM_16")[:9000], "truncated"),
    "truncated w64": (encoded(tone(), 16000, "W64", "PCM_16")[:9000], "truncated"),
    "truncated flac": (encoded(tone(), 16000, "FLAC", "PCM_16")[:4000], "truncated or corrupt"),
    "truncated ogg": (encoded(tone(), 16000, "OGG", "VORBIS")[:4000], "empty, or was cut off"),
    "truncated mp3": (encoded(tone(4), 16000, "MP3", "MPEG_LAYER_III")[:3000], "truncated: "),
    "corrupt flac": (
        encoded(tone(), 16000, "FLAC", "PCM_16")[:3000] + bytes(range(256)) * 20, "truncated or corrupt",
    ),
    "nan": (encoded(np.array([0, np.nan, 0.5] * 9, np.float32), 16000, "WAV", "FLOAT"), "NaN, infinite"),
    "infinite": (encoded(np.array([0, np.inf, 0.5] * 9, np.float32), 16000, "WAV", "FLOAT"), "NaN, infinite"),
    "absurd": (encoded(np.full((9, 2), 3e38, np.float32), 16000, "WAV", "FLOAT"), "absurdly large"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("as_file", [True, False])
def test_load_refuses_broken_audio_in_one_line(tmp_path: Path, name: str, as_file: bool) -> None:
    data, message = BROKEN[name]
    path = tmp_path / "clip.wav"
    path.write_bytes(data)
    with pytest.raises(LlasaError, match=message) as raised:
        load(path if as_file else io.BytesIO(data))
    assert "\n" not in str(raised.value)
    assert str(path if as_file else "the audio") in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.wav", "there is no file"),
        ("", "is a folder"),
        ("nul\0byte.wav", "there is no file '.*nul.x00byte.wav'"),
        ("x" * 3000, "cannot read .*file name too long"),
        ("headerless.raw", "cannot be read as audio"),
    ],
)
def test_load_refuses_a_bad_path_in_one_line(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "headerless.raw").write_bytes(bytes(100))
    with pytest.raises(LlasaError, match=message) as raised:
        load(tmp_path / name)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_load_refuses_what_is_too_long_before_reading_it(tmp_path: Path) -> None:
    with pytest.raises(TooLong, match=r"too long: 10.0 seconds, and at most 5.0 seconds"):
        load(io.BytesIO(wav_bytes(tone(10), 16000)), max_seconds=5)
    # A sparse file of five hours: only its header is real.
    size = 5 * 3600 * 32000
    with (tmp_path / "long.wav").open("wb") as file:
        file.write(wav_header(16000, size // 2))
        file.truncate(44 + size)
    with pytest.raises(TooLong, match=r"too long: 300.0 minutes, and at most 240.0 minutes"):
        load(tmp_path / "long.wav")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".WAV"])
def test_save_and_load(tmp_path: Path, suffix: str, voiced: np.ndarray) -> None:
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(b"what was there before")
    save(path, voiced, 16000)
    assert close(load(path), voiced, 0.1 if suffix == ".ogg" else 1e-4)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_save_ogg_of_many_minutes(tmp_path: Path) -> None:
    # Written in one piece, this overflows the stack inside the encoder.
    save(tmp_path / "long.ogg", np.random.default_rng(0).normal(0, 0.1, 16000 * 300).astype(np.float32), 16000)
    assert soundfile.info(tmp_path / "long.ogg").frames == 16000 * 300


@pytest.mark.parametrize(
    ("name", "samples", "message"),
    [
        ("clip.xyz", tone(0.1), "cannot tell the audio format of .* end its name in .wav, .flac, .ogg"),
        ("clip", tone(0.1), "cannot tell the audio format"),
        ("no/such/folder/clip.wav", tone(0.1), "cannot write .*no such file or directory"),
        ("file/clip.flac", tone(0.1), "cannot write .*not a directory"),
        ("folder.wav", tone(0.1), "cannot write .*is a directory"),
        ("nul\0.wav", tone(0.1), "cannot write '.*nul.x00.wav'"),
        ("clip.wav", np.zeros(0, np.float32), "nothing to save"),
        ("clip.wav", np.array([0, np.nan], np.float32), "NaN"),
        ("clip.flac", np.array([0, np.inf], np.float32), "NaN or infinite"),
    ],
)
def test_save_refuses_in_one_line_and_leaves_nothing(
    tmp_path: Path, name: str, samples: np.ndarray, message: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(LlasaError, match=message) as raised:
        save(tmp_path / name, samples, 16000)
    assert "\n" not in str(raised.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.wav"]


def test_save_refuses_a_rate_that_the_format_lacks(tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match=r"FLAC cannot hold audio at 9000000 Hz: save it as .wav"):
        save(tmp_path / "clip.flac", tone(0.1), 9_000_000)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(arrays(np.int16, st.integers(min_value=1, max_value=400)))
def test_pcm16_keeps_every_16_bit_value(values: np.ndarray) -> None:
    samples = values.astype(np.float32) / 32768
    assert pcm16(samples) == values.astype("<i2").tobytes()
    np.testing.assert_array_equal(load(io.BytesIO(wav_bytes(samples, 16000))), samples)


def test_pcm16_clips() -> None:
    assert pcm16(np.array([-2.0, -1.0, 1.0, 2.0])) == struct.pack("<4h", -32768, -32768, 32767, 32767)


def test_wav_of_unknown_length_is_read_to_its_end(tmp_path: Path) -> None:
    samples = tone(0.5)
    path = tmp_path / "stream.wav"
    path.write_bytes(wav_header(16000) + pcm16(samples))
    np.testing.assert_allclose(load(path), samples, atol=1e-4)
    assert len(wav_header(16000)) == 44
    assert wav_header(16000, 10**10) == wav_header(16000)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_loudness_is_the_level_of_the_active_part(rate: int) -> None:
    speech = tone(2.0, rate)
    silence = np.zeros(2 * rate, np.float32)
    assert loudness(speech, rate) == pytest.approx(-9.03, abs=0.02)
    assert loudness(np.concatenate([silence, speech, silence, speech]), rate) == pytest.approx(-9.03, abs=0.02)
    # Neither a constant nor a hum far below the speech counts.
    assert loudness(np.concatenate([speech, tone(2.0, rate, level=0.02)]) + 0.1, rate) == pytest.approx(-9.03, abs=0.02)
    assert loudness(tone(0.03, rate), rate) == pytest.approx(-9.03, abs=0.3)


def test_loudness_of_nothing() -> None:
    for samples in (np.zeros(0), np.zeros(16000), np.full(16000, 0.3), tone(level=0.0005)):
        assert loudness(samples, 16000) == float("-inf")
        assert is_silent(samples, 16000)
        assert not trim_silence(samples, 16000).size
        np.testing.assert_array_equal(set_loudness(samples, 16000, -20), samples.astype(np.float32))
    assert not is_silent(tone(level=0.01), 16000)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.floats(min_value=0.05, max_value=1.0), st.floats(min_value=-40.0, max_value=0.0))
def test_set_loudness_reaches_the_target_or_the_peak(level: float, target: float) -> None:
    samples = set_loudness(np.concatenate([tone(level=level), np.zeros(8000, np.float32)]), 16000, target)
    assert samples.dtype == np.float32
    assert loudness(samples, 16000) == pytest.approx(min(target, 20 * np.log10(0.99) - 3.01), abs=0.02)
    assert np.abs(samples).max() <= 0.99001


def test_trim_silence_leaves_a_margin(voiced: np.ndarray) -> None:
    silence = np.zeros(16000, np.float32)
    noisy = 1e-4 * np.random.default_rng(0).normal(size=16000).astype(np.float32)
    trimmed = trim_silence(np.concatenate([silence, tone(1.0), noisy]), 16000, margin=0.1)
    assert len(trimmed) == pytest.approx(1.2 * 16000, abs=0.05 * 16000)
    assert trimmed[800] == 0
    assert loudness(trim_silence(voiced, 16000), 16000) == loudness(voiced, 16000)
    assert len(trim_silence(tone(), 16000, margin=5.0)) == 16000


def test_resample_keeps_the_tone() -> None:
    assert close(resample(tone(rate=24000), 24000, 16000), tone(), 2e-3)
    assert resample(np.zeros(0, np.float32), 24000, 16000).shape == (0,)

"""What libsndfile cannot read goes through ffmpeg: real files, made by ffmpeg on the spot."""

import io
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from llasa.audio import load, save
from llasa.errors import LlasaError, TooLong

pytestmark = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")


def convert(source: Path, target: Path, *options: str) -> Path:
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(source), *options, str(target)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return target


@pytest.fixture
def clip(tmp_path: Path, voiced: np.ndarray) -> Path:
    save(tmp_path / "clip.wav", voiced, 16000)
    return tmp_path / "clip.wav"


def alike(found: np.ndarray, wanted: np.ndarray) -> bool:
    """At some delay, as encoders add one, and perhaps upside down."""
    size = 1 << (len(found) + len(wanted)).bit_length()
    likeness = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(wanted, size)))
    return np.abs(likeness).max() > 0.95 * np.linalg.norm(found) * np.linalg.norm(wanted)


FORMATS = {
    "m4a": (), "alac.m4a": ("-c:a", "alac"), "aac": (), "opus.webm": ("-c:a", "libopus"), "mkv": (), "wma": (),
    "opus": (), "mp3": (), "adpcm.wav": ("-c:a", "adpcm_ms"), "telephone.wav": ("-ar", "8000", "-c:a", "pcm_mulaw"),
    "24.wav": ("-c:a", "pcm_s24le"), "float.wav": ("-c:a", "pcm_f32le"), "six.wav": ("-af", "pan=5.1|FC=c0"),
    "antiphase.wav": ("-af", "pan=stereo|c0=c0|c1=-1*c0"), "antiphase.m4a": ("-af", "pan=stereo|c0=c0|c1=-1*c0"),
    "six.flac": ("-af", "pan=5.1|FC=c0"), "low.mp3": ("-ac", "2", "-b:a", "24k"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_sounds_the_same(clip: Path, tmp_path: Path, voiced: np.ndarray, name: str) -> None:
    path = convert(clip, tmp_path / f"made.{name}", *FORMATS[name])
    samples = load(path)
    assert len(samples) == pytest.approx(len(voiced), abs=2500)
    assert alike(samples, voiced)
    np.testing.assert_array_equal(load(io.BytesIO(path.read_bytes())), samples)


def test_the_sound_of_a_video(clip: Path, tmp_path: Path, voiced: np.ndarray) -> None:
    picture = ("-f", "lavfi", "-i", "testsrc=duration=1:size=64x64")
    assert alike(load(convert(clip, tmp_path / "video.mp4", *picture, "-map", "1", "-map", "0")), voiced)
    silent = convert(clip, tmp_path / "silent.mp4", *picture, "-map", "1")
    with pytest.raises(LlasaError, match="cannot be read as audio"):
        load(silent)


def test_broken_files_and_playlists_are_one_line(clip: Path, tmp_path: Path) -> None:
    whole = convert(clip, tmp_path / "whole.m4a").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.m4a").write_bytes(np.random.default_rng(0).bytes(50_000))
    # A playlist could make ffmpeg read any file, or fetch one.
    (tmp_path / "list.m4a").write_text(f"ffconcat version 1.0\nfile {tmp_path / 'whole.m4a'}\n")
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{clip}\n")
    (tmp_path / "-i.m4a").write_text("no audio")
    for name in ("cut.m4a", "noise.m4a", "list.m4a", "list.m3u8", "-i.m4a"):
        with pytest.raises(LlasaError, match=f"{name} cannot be read as audio") as raised:
            load(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_a_name_that_looks_like_an_option_or_an_address(
    clip: Path, tmp_path: Path, voiced: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-y.m4a", "http:a.m4a", "%d.m4a"):
        shutil.copy(convert(clip, tmp_path / "made.m4a"), name)
        assert alike(load(name), voiced)


def test_what_is_too_long_is_refused(clip: Path, tmp_path: Path) -> None:
    path = convert(clip, tmp_path / "long.m4a")
    with pytest.raises(TooLong, match=r"too long: at most 2.0 seconds are read"):
        load(path, max_seconds=2)


def test_without_ffmpeg_the_message_says_so(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = convert(clip, tmp_path / "made.m4a")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LlasaError, match="needs ffmpeg: install ffmpeg"):
        load(path)


def test_nothing_of_libmpg123_reaches_standard_error(
    clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = convert(clip, tmp_path / "a.mp3").read_bytes()
    (tmp_path / "b.mp3").write_bytes(data + b"junk at its end" * 500)
    (tmp_path / "c.mp3").write_bytes(data[:3000] + np.random.default_rng(0).bytes(3000) + data[6000:])
    (tmp_path / "d.mp3").write_bytes(b"\xff\xfb" + np.random.default_rng(1).bytes(70_000))

    def read_all() -> None:
        for name in "abcd":
            try:
                load(tmp_path / f"{name}.mp3")
            except LlasaError:
                assert name in "cd"

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capfd.readouterr().err == ""
    print("as before", flush=True, file=sys.stderr)
    assert capfd.readouterr().err == "as before\n"

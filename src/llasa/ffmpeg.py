"""Lets ffmpeg, where it is installed, decode what libsndfile cannot: m4a, webm, the sound of a video, and others."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llasa.files import is_file

# Of the recordings that are looked for in folders, whoever reads them.
SUFFIXES = (
    ".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".au", ".m4a", ".aac", ".webm", ".mp4",
)  # fmt: skip
# Formats that hold sound themselves. Playlists and the like are none of them, for they could name other files.
FORMATS = "mov,matroska,ogg,mp3,aac,wav,w64,flac,aiff,caf,asf,avi,flv,mpegts,mpeg,amr,ac3,eac3,wv,ape,tta"
SLACK = 60.0  # seconds that even a short file may take; a long one may take as long as it sounds


def installed() -> bool:
    """Whether there is an ffmpeg on the path."""
    return shutil.which("ffmpeg") is not None


@contextmanager
def decoded(source: str | BinaryIO, max_seconds: float) -> Iterator[Path | None]:
    """Yields a temporary WAV or RF64 file with the first sound track, or None if ffmpeg cannot read it.

    The file has the source's rate and channels, and at most a second more than `max_seconds`.

    Args:
        source: a path, or a binary file object, which is read from its start.
    """
    with tempfile.TemporaryDirectory(prefix="llasa") as folder:
        path = Path(folder) / "source"
        if isinstance(source, str):
            path = Path(source).absolute()
        else:
            source.seek(0)
            with path.open("wb") as file:
                shutil.copyfileobj(source, file)
        target = Path(folder) / "sound.wav"
        command = ["ffmpeg", "-nostdin", "-v", "quiet", "-xerror", "-protocol_whitelist", "file"]
        command += ["-format_whitelist", FORMATS, "-i", f"file:{path}", "-map", "0:a:0", "-t", str(max_seconds + 1)]
        command += ["-c:a", "pcm_f32le", "-rf64", "auto", str(target)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=max(SLACK, max_seconds))
        except (OSError, subprocess.TimeoutExpired):
            yield None
            return
        yield target if done.returncode == 0 and is_file(target) else None

"""Recordings to learn a voice from: tones that come and go as speech does, with texts of their length."""

from pathlib import Path

import soundfile
from data.corpora import RATE, tone

WORDS = "the old man walked slowly down to a river and back again before dark".split()  # noqa: SIM905


def make_recordings(folder: Path, count: int = 9, texts: bool = True) -> Path:
    """A plain folder of clips of 1.0 to 1.8 s, of one pitch, in a folder of the day they were made."""
    (folder / "monday").mkdir(parents=True)
    for i in range(count):
        soundfile.write(folder / "monday" / f"{i}.wav", tone(1.0 + 0.1 * (i % 9), 3), RATE)
        if texts:
            text = " ".join(WORDS[(i + k) % len(WORDS)] for k in range(3 + i % 3)).capitalize()
            (folder / "monday" / f"{i}.txt").write_text(f"{text}.")
    return folder

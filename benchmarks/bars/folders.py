"""Reads the inputs of the measurement: sentences, the teacher's readings of them, and recordings of real people.

Every folder of recordings has a `metadata.csv` of `file|text`, `file|speaker|text`, LJSpeech's `name|raw text|text`, or
Kokoro's script's `file|voice|speed|text|...`. Only a folder of many speakers may lack it; then the names of its files
up to a dash or underscore name the speakers.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llasa import audio
from llasa.data import listings
from llasa.errors import LlasaError
from llasa.ffmpeg import SUFFIXES
from llasa.files import listed
from llasa.measure.metrics import words
from llasa.speak.speech import LEVEL

RATE = 16000
HELD_OUT = 12  # `llasa data recordings` holds out one recording in this many
KOKORO = 6  # columns of its table


@dataclass(frozen=True)
class Clip:
    """A recording: its file, its speaker, and its words, empty if unknown."""

    path: Path
    speaker: str
    text: str

    def sound(self) -> np.ndarray:
        """(T,) at `RATE`, at the level that all sounds here have."""
        return audio.set_loudness(audio.load(self.path, RATE), RATE, LEVEL)


def read_sentences(path: Path, count: int) -> list[str]:
    """The first `count` lines with words in them.

    Raises:
        LlasaError: the file cannot be read, or has fewer than four.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LlasaError(f"cannot read {path}: {error}") from error
    found = [line.strip() for line in lines if words(line)][:count]
    if len(found) < 4:
        raise LlasaError(f"{path} has {len(found)} sentences: give at least four, one on each line")
    return found


def clips(folder: Path) -> list[Clip]:
    """Every recording of a folder, in the order of its table or of the files' names.

    Raises:
        LlasaError: the folder has no recordings, or its table has a line without a text, or names a recording twice.
    """
    table = folder / "metadata.csv"
    if not table.exists():
        found = [Clip(path, _speaker(path), "") for path in listed(folder, SUFFIXES)]
    elif len(table.read_text(encoding="utf-8").partition("\n")[0].split("|")) >= KOKORO:
        rows = [line.split("|") for line in table.read_text(encoding="utf-8").splitlines()]
        found = [Clip(folder / row[0], row[1], row[3]) for row in rows if (folder / row[0]).is_file()]
    else:
        items = [item for item in listings.ljspeech(folder).items if isinstance(item.audio, Path)]
        found = [
            Clip(item.audio, item.speaker if item.speaker != folder.resolve().name else _speaker(item.audio), item.text)
            for item in items
            if item.audio.is_file()
        ]
    if not found:
        raise LlasaError(f"{folder} holds no recordings: give a folder of audio files")
    path, times = Counter(clip.path for clip in found).most_common(1)[0]
    if times > 1:
        raise LlasaError(f"{table} names {path.name} {times} times: keep one line of each recording")
    return found


def readings(teacher: Path, preset: str, sentences: Sequence[str]) -> list[np.ndarray]:
    """The teacher's reading of each sentence, from the folder of the preset's name.

    Raises:
        LlasaError: there is no such folder, or a sentence has no reading.
    """
    folder = teacher / preset
    if not folder.is_dir():
        raise LlasaError(f"{teacher} has no folder {preset}: let its teacher read the sentences into one")
    known = {tuple(words(clip.text)): clip for clip in clips(folder)}
    found = [known.get(tuple(words(sentence))) for sentence in sentences]
    if missing := found.count(None):
        first = found.index(None) + 1
        raise LlasaError(
            f"{folder} lacks {missing} of {len(found)} sentences, the first of them number {first}: "
            "let the teacher read them, too"
        )
    return [clip.sound() for clip in found if clip]


def unseen_speakers(folder: Path, all_unseen: bool, most: int) -> list[list[Clip]]:
    """The clips of the first speakers that training did not use at all, for each speaker.

    Raises:
        LlasaError: there are fewer than two such speakers.
    """
    by_speaker: dict[str, list[tuple[int, Clip]]] = {}
    for index, clip in enumerate(clips(folder)):
        by_speaker.setdefault(clip.speaker, []).append((index, clip))
    held = [
        [clip for _, clip in found]
        for found in by_speaker.values()
        if all_unseen or all(index % HELD_OUT == 0 for index, _ in found)
    ]
    if len(held) < 2:
        raise LlasaError(f"{folder} holds {len(held)} unseen speakers: give two or more, or --all-unseen")
    return held[:most]


def unseen_clips(folder: Path, all_unseen: bool, most: int) -> list[Clip]:
    """The first clips of one reader that have words and that training did not use.

    Raises:
        LlasaError: there are fewer than two.
    """
    found = [clip for clip in clips(folder)[:: 1 if all_unseen else HELD_OUT] if words(clip.text)]
    if len(found) < 2:
        raise LlasaError(f"{folder} holds {len(found)} unseen clips with their words: give two or more")
    return found[:most]


def _speaker(path: Path) -> str:
    return path.stem.replace("_", "-").split("-")[0]

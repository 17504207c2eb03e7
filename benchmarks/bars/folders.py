"""What is given to the measurement: sentences, the teacher's readings of them, and recordings of real people.

Knows files and folders; knows nothing of models. Every folder of recordings has a `metadata.csv`, of `file|text`,
`file|speaker|text`, LJSpeech's `name|raw text|text`, or what Kokoro's script writes, `file|voice|speed|text|...`; only
a folder of many speakers may lack it, where file names up to a dash or underscore name them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llasa import audio
from llasa.data import layouts
from llasa.errors import LlasaError
from llasa.eval.metrics import words
from llasa.speech import LEVEL

RATE = 16000
HELD_OUT = 12  # of a folder of recordings, `llasa data recordings` keeps one in so many from the training
KOKORO = 6  # columns


@dataclass(frozen=True)
class Clip:
    """A recording: its file, who speaks, and the words, empty where they are not known."""

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
        raise LlasaError(f"{path} has {len(found)} sentences: give at least four, one a line")
    return found


def clips(folder: Path) -> list[Clip]:
    """Every recording of a folder, in the order of its table or of the files' names.

    Raises:
        LlasaError: it has none, or a line of its table no text.
    """
    if not (folder / "metadata.csv").exists():
        found = [Clip(path, _speaker(path), "") for path in layouts.audio_files(folder)]
    else:
        found = []
        for item in layouts.ljspeech(folder):
            if isinstance(item.audio, Path) and item.audio.is_file():
                found.append(Clip(item.audio, "", item.text))
        columns = _columns(folder / "metadata.csv")
        found = [_named(clip, columns.get(clip.path.name)) for clip in found]
    if not found:
        raise LlasaError(f"{folder} holds no recordings")
    return found


def readings(teacher: Path, preset: str, sentences: Sequence[str]) -> list[np.ndarray]:
    """The teacher's sound of each sentence, from the folder of that preset's name.

    Raises:
        LlasaError: there is no such folder, or a sentence is not among what was read.
    """
    folder = teacher / preset
    if not folder.is_dir():
        raise LlasaError(f"{teacher} has no folder {preset}: let its teacher read the sentences into one")
    known = {tuple(words(clip.text)): clip for clip in clips(folder)}
    found = [known.get(tuple(words(sentence))) for sentence in sentences]
    if missing := found.count(None):
        first = found.index(None) + 1
        raise LlasaError(f"{folder} lacks {missing} of {len(found)} sentences, the first of them number {first}")
    return [clip.sound() for clip in found if clip]


def unseen_speakers(folder: Path, all_unseen: bool, most: int) -> list[list[Clip]]:
    """The clips of each of the first speakers of whom none is among those that training takes.

    Raises:
        LlasaError: there are none.
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
    """The first clips of one reader that training does not take, of those that have words.

    Raises:
        LlasaError: there are fewer than two.
    """
    found = [clip for clip in clips(folder)[:: 1 if all_unseen else HELD_OUT] if words(clip.text)]
    if len(found) < 2:
        raise LlasaError(f"{folder} holds {len(found)} unseen clips with their words: give two or more")
    return found[:most]


def _columns(table: Path) -> dict[str, list[str]]:
    """The columns of a table by its first, the file."""
    rows = [line.split("|") for line in table.read_text(encoding="utf-8").splitlines()]
    return {Path(row[0]).name: row for row in rows}


def _named(clip: Clip, columns: list[str] | None) -> Clip:
    """The clip with its speaker and, of a table whose last column is not the text, its text."""
    if columns is not None and len(columns) >= KOKORO:
        return Clip(clip.path, columns[1], columns[3])
    return Clip(clip.path, columns[1] if columns is not None and len(columns) == 3 else _speaker(clip.path), clip.text)


def _speaker(path: Path) -> str:
    return path.stem.replace("_", "-").split("-")[0]

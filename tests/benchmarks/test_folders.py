"""Folders of readings and of people, by their tables."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from bars import folders
from readings import SENTENCES, read

from llasa import audio
from llasa.errors import LlasaError
from llasa.speak.speech import LEVEL

RATE = 16000


def noise(path: Path, seconds: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)), RATE)


def test_a_reading_is_found_by_its_words_wherever_it_stands(tmp_path: Path) -> None:
    read(tmp_path / "anna", "slt", SENTENCES[::-1])
    found = folders.readings(tmp_path, "anna", [SENTENCES[2], SENTENCES[0].upper()])
    raw = audio.load(tmp_path / "anna" / "001.wav")
    assert found[0].size == raw.size
    assert audio.loudness(found[0], RATE) == pytest.approx(LEVEL, abs=0.1)
    with pytest.raises(LlasaError, match="lacks 1 of 2 sentences, the first of them number 2"):
        folders.readings(tmp_path, "anna", [SENTENCES[1], "Nobody read this."])
    with pytest.raises(LlasaError, match="no folder bruno"):
        folders.readings(tmp_path, "bruno", SENTENCES)


@pytest.mark.parametrize(
    ("line", "speaker"),
    [
        ("a-1.wav|It was late.", "a"),
        ("a-1.wav|anna|It was late.", "anna"),
        ("a-1.wav|anna|0.9|It was late.|it wuz|[1,2]", "anna"),
    ],
)
def test_tables_of_two_three_and_six_columns(tmp_path: Path, line: str, speaker: str) -> None:
    noise(tmp_path / "a-1.wav")
    (tmp_path / "metadata.csv").write_text(line + "\n" + line.replace("a-1", "missing") + "\n")
    assert folders.clips(tmp_path) == [folders.Clip(tmp_path / "a-1.wav", speaker, "It was late.")]


@pytest.mark.parametrize(
    "line", ["a-1.wav|It was late.", "a-1.wav|anna|It was late.", "a-1.wav|anna|0.9|It was late.|it wuz|[1,2]"]
)
def test_a_recording_that_a_table_names_twice_is_refused(tmp_path: Path, line: str) -> None:
    noise(tmp_path / "a-1.wav")
    noise(tmp_path / "b-1.wav")
    (tmp_path / "metadata.csv").write_text("\n".join([line, line.replace("a-1", "b-1"), line.replace("late", "dark")]))
    with pytest.raises(LlasaError, match=r"metadata\.csv names a-1\.wav 2 times: keep one line") as caught:
        folders.clips(tmp_path)
    assert "\n" not in str(caught.value)


def test_only_speakers_of_whom_training_takes_nothing_are_unseen(tmp_path: Path) -> None:
    for index in range(26):
        noise(tmp_path / f"{index:02}-x.flac", 0.1)
    held = folders.unseen_speakers(tmp_path, False, 20)
    assert [clips[0].speaker for clips in held] == ["00", "12", "24"]
    assert len(folders.unseen_speakers(tmp_path, True, 20)) == 20
    noise(tmp_path / "12-y.flac", 0.1)  # another clip of the second, which training takes
    assert [clips[0].speaker for clips in folders.unseen_speakers(tmp_path, False, 20)] == ["00", "23"]


def test_a_reader_is_heard_on_clips_with_words(tmp_path: Path) -> None:
    lines = []
    for index in range(3):
        noise(tmp_path / f"{index}.wav", 0.1)
        lines.append(f"{index}.wav|{'...' if index == 1 else 'It was late.'}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    assert [clip.path.stem for clip in folders.unseen_clips(tmp_path, True, 9)] == ["0", "2"]
    with pytest.raises(LlasaError, match="two or more"):
        folders.unseen_clips(tmp_path, False, 9)


def test_sentences_are_lines_with_words(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("One.\n\n...\nTwo.\nThree.\nFour.\nFive.\n")
    assert folders.read_sentences(tmp_path / "list.txt", 4) == ["One.", "Two.", "Three.", "Four."]
    with pytest.raises(LlasaError, match="at least four"):
        folders.read_sentences(tmp_path / "list.txt", 3)

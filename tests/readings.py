"""What the bars are measured on in tests: sentences, and folders of them read by flite."""

from pathlib import Path

import pytest
import soundfile

from llasa.data.teachers.flite import Speaker, speak
from llasa.data.teachers.teacher import RATE

SENTENCES = [
    "The old man walked slowly down to the river to mend his nets.",
    "There was nothing left in the house but a table and two chairs.",
    "She wrote a long letter to her brother, who lived in the city.",
    "We waited for the morning train until the rain came over the hills.",
]


def read(folder: Path, voice: str, texts: list[str], table: str = "{name}|{text}") -> Path:
    """A folder of readings of the texts and its `metadata.csv`, a line each in the form of `table`."""
    folder.mkdir(parents=True)
    lines = []
    for index, text in enumerate(texts):
        name = f"{index:03}.wav"
        soundfile.write(folder / name, speak(text, Speaker(voice, voice))[0], RATE)
        lines.append(table.format(name=name, text=text))
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def hear_beginnings(monkeypatch: pytest.MonkeyPatch, seconds: int = 6) -> None:
    """Lets Whisper hear the first seconds of a clip. It fills 30 s with silence otherwise, and hears that as slowly."""
    from faster_whisper import transcribe

    whole = transcribe.pad_or_trim
    monkeypatch.setattr(transcribe, "pad_or_trim", lambda frames: whole(frames, 100 * seconds))

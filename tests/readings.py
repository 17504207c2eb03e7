"""What the bars are measured on in tests: sentences, and folders of them read by flite."""

from pathlib import Path

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

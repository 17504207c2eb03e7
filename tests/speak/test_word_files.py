"""Word times in files."""

import json
from pathlib import Path

import pytest

from llasa.errors import LlasaError
from llasa.speak.word_files import save_words
from llasa.speak.word_times import Word

WORDS = (Word("R&D", 0.1, 0.6004, 0.98765), Word("<b>,", 0.6004, 3661.25, 0.5))


def test_formats(tmp_path: Path) -> None:
    for suffix in ("json", "srt", "VTT"):
        save_words(tmp_path / f"words.{suffix}", WORDS, "attention")
    assert json.loads((tmp_path / "words.json").read_text()) == {
        "source": "attention",
        "words": [
            {"word": "R&D", "start": 0.1, "end": 0.6, "confidence": 0.988},
            {"word": "<b>,", "start": 0.6, "end": 3661.25, "confidence": 0.5},
        ],
    }
    assert (tmp_path / "words.srt").read_text() == (
        "1\n00:00:00,100 --> 00:00:00,600\nR&D\n\n2\n00:00:00,600 --> 01:01:01,250\n<b>,\n"
    )
    assert (tmp_path / "words.VTT").read_text() == (
        "WEBVTT\n\n1\n00:00:00.100 --> 00:00:00.600\nR&amp;D\n\n2\n00:00:00.600 --> 01:01:01.250\n&lt;b>,\n"
    )
    save_words(tmp_path / "none.srt", (), "attention")
    assert (tmp_path / "none.srt").read_text() == ""


def test_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match=r"end its name in .json, .srt, .vtt"):
        save_words(tmp_path / "words.txt", WORDS, "attention")
    assert not list(tmp_path.iterdir())

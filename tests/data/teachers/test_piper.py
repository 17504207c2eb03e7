"""Piper as a teacher: the package itself, with a tiny model in place of a voice."""

from pathlib import Path

import numpy as np
import pytest
from data.teachers.graphs import piper_model

from llasa.data.teachers import open_teacher
from llasa.data.teachers.piper import Piper, sound_ends
from llasa.data.teachers.teacher import RATE, finish
from llasa.errors import LlasaError


def test_phones_and_their_ends_come_out_of_the_graph(tmp_path: Path) -> None:
    teacher = Piper(piper_model(tmp_path / "hum.onnx"))
    assert list(teacher.voices) == ["hum"]
    samples, phones, ends = teacher.speak("A dog ran by.", "hum", 1.0)
    assert phones[0] == phones[-1] == "pau"
    assert "".join(phones[1:-1]).startswith("ɐ dˈɑːɡ")
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(len(samples) / RATE, abs=0.001)
    # An id is held for 1,024 samples, and a padding follows each but the last.
    assert ends[0] == pytest.approx(2048 / 22050 - 0.02)
    fast, _, _ = teacher.speak("A dog ran by.", "hum", 2.0)
    assert len(fast) == pytest.approx(len(samples) / 2, abs=1)


def test_without_times_there_are_no_phones(tmp_path: Path) -> None:
    reading = Piper(piper_model(tmp_path / "hum.onnx", rounds="Round")).speak("A dog ran by.", "hum", 1.0)
    assert (reading.phones, reading.ends) == ([], [])
    finished = finish(reading)
    assert len(finished.samples) == pytest.approx(len(reading.samples), abs=0.1 * RATE)
    assert finished.ends == []


def test_speakers_of_one_model_are_voices(tmp_path: Path) -> None:
    teacher = Piper(piper_model(tmp_path / "two.onnx", speakers=("anna", "bert")))
    assert list(teacher.voices) == ["two-anna", "two-bert"]
    assert len(teacher.speak("Hello.", "two-bert", 1.0).samples) > 1000


def test_the_last_end_stays() -> None:
    assert sound_ends(np.array([0.1, 0.2, 0.3])) == pytest.approx([0.08, 0.28, 0.6])


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LlasaError, match=r"there is no model file .*none\.onnx"):
        open_teacher("piper", tmp_path / "none.onnx")
    (tmp_path / "bare.onnx").write_bytes(b"")
    with pytest.raises(LlasaError, match=r"there is no .*bare\.onnx\.json"):
        open_teacher("piper", tmp_path / "bare.onnx")
    (tmp_path / "bare.onnx.json").write_text("[]")
    with pytest.raises(LlasaError, match="is not the configuration of a Piper voice"):
        open_teacher("piper", tmp_path / "bare.onnx")
    monkeypatch.setattr("llasa.data.teachers.piper.find_spec", lambda name: None)
    with pytest.raises(LlasaError, match=r"piper-tts is not installed.*pip install piper-tts"):
        open_teacher("piper")

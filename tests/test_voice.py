"""Reference voices: files, what makes a usable reference, and where voices are looked for."""

import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llasa.codec import load_codec
from llasa.errors import LlasaError
from llasa.voice import Voice, check_name, check_transcript, list_voices, suggest, user_folder

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


def make_voice(name: str = "anna", **changes: object) -> Voice:
    facts: dict = {"name": name, "text": "Hello there.", "codes": np.arange(50, dtype=np.uint16)}
    return Voice(**(facts | changes))


@given(
    name=TEXTS,
    text=TEXTS,
    codec=TEXTS,
    codes=arrays(np.uint16, st.integers(0, 40)),
    samples=st.none() | arrays(np.float32, st.integers(0, 40), elements=st.floats(-1, 1, width=32)),
    rate=st.integers(8000, 48000),
    consent=st.booleans(),
    reused=st.booleans(),
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_saved_voice_comes_back_the_same(tmp_path: Path, name, text, codec, codes, samples, rate, consent, reused):
    Voice(name, text, codes, codec, samples, rate, consent, reused).save(tmp_path / "v.safetensors")
    back = Voice.load(tmp_path / "v.safetensors")
    assert (back.name, back.text, back.codec, back.rate) == (name, text, codec, rate)
    assert (back.consent, back.reused) == (consent, reused)
    assert back.codes.dtype == np.uint16
    np.testing.assert_array_equal(back.codes, codes)
    if samples is None:
        assert back.samples is None
    else:
        np.testing.assert_array_equal(back.samples, samples)


def test_saving_leaves_nothing_but_the_file_and_makes_its_folder(tmp_path: Path):
    make_voice().save(tmp_path / "new" / "v.safetensors")
    assert os.listdir(tmp_path / "new") == ["v.safetensors"]


def test_a_path_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "taken.safetensors").mkdir()
    for path in (tmp_path / "file" / "v.safetensors", tmp_path / "taken.safetensors"):
        with pytest.raises(LlasaError, match="cannot write"):
            make_voice().save(path)
    assert sorted(os.listdir(tmp_path)) == ["file", "taken.safetensors"]


def test_the_sound_is_the_recording_or_else_what_the_codec_makes_of_the_codes(codec_folder: Path, voiced: np.ndarray):
    codec = load_codec(codec_folder)
    codes = codec.encode(voiced)
    recorded = make_voice(codes=codes, samples=voiced, rate=16000)
    np.testing.assert_array_equal(recorded.sound(codec, 16000), voiced)
    assert len(recorded.sound(codec, 8000)) == len(voiced) / 2
    kept = make_voice(codes=codes)
    np.testing.assert_array_equal(kept.sound(codec, codec.rate), codec.decode(codes))
    assert len(kept.sound(codec, 2 * codec.rate)) == 2 * len(codes) * codec.hop


def test_broken_files_are_told_apart(tmp_path: Path):
    path = tmp_path / "v.safetensors"
    with pytest.raises(LlasaError, match="there is no voice file"):
        Voice.load(path)
    with pytest.raises(LlasaError, match="damaged or not a voice"):
        Voice.load(tmp_path)
    make_voice().save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(LlasaError, match="damaged or not a voice"):
        Voice.load(path)
    path.write_bytes(b"")
    with pytest.raises(LlasaError, match="damaged or not a voice"):
        Voice.load(path)
    path.write_bytes(safetensors.numpy.save({"codes": np.zeros(3)}))
    with pytest.raises(LlasaError, match="not a voice"):
        Voice.load(path)


@pytest.mark.parametrize("transcript", [None, "", " \n", "...!"])
def test_a_transcript_needs_words(transcript: str | None):
    with pytest.raises(LlasaError, match="--voice-text"):
        check_transcript(transcript)


def test_a_transcript_is_one_line():
    assert check_transcript("  What is\nsaid. ") == "What is said."


@pytest.mark.parametrize("name", ["anna", "Anna Karenina", "v1.2", "слт", "rms-012"])
def test_names_that_can_be_file_names(name: str):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", " a", "a ", ".hidden", "a\x00", "a\nb", "x" * 65, "-o"])
def test_names_that_cannot(name: str):
    with pytest.raises(LlasaError, match="cannot name a voice"):
        check_name(name)


def test_the_users_voices_come_first_and_hide_presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLASA_HOME", str(tmp_path / "home"))
    model = tmp_path / "model"
    assert user_folder() == tmp_path / "home" / "voices"
    assert list_voices(model) == {}
    for path in (model / "voices" / "slt", model / "voices" / "rms", user_folder() / "slt", user_folder() / "zoe"):
        make_voice(path.name).save(path.with_suffix(".safetensors"))
    (user_folder() / ".zoe.safetensors.1.tmp").touch()
    (user_folder() / ".half.safetensors").touch()
    found = list_voices(model)
    assert list(found) == ["slt", "zoe", "rms"]
    assert found["slt"].parent == user_folder()
    assert found["rms"].parent == model / "voices"


def test_without_llasa_home_voices_lie_in_the_users_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("LLASA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_folder() == tmp_path / ".local" / "share" / "llasa" / "voices"


def test_an_unknown_voice_is_answered_with_close_names():
    assert "did you mean slt?" in suggest("slt1", ["rms", "slt", "awb"])
    assert "shows the 2 there are" in suggest("quite else", ["rms", "slt"])
    assert "llasa voices add" in suggest("slt", [])


@pytest.mark.parametrize(
    "change", [{"rate": None}, {"name": None}, {"codec": None}, {"rate": "many"}, {"rate": "-1"}, {"rate": "0"}]
)
def test_a_voice_without_its_facts_is_one_line(tmp_path: Path, change: dict):
    facts = {"format": "llasa-voice", "name": "a", "text": "b", "codec": "c", "rate": "16000"}
    Voice("a", "b", np.zeros(5, np.uint16), "c").save(tmp_path / "a.safetensors")
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        facts = {key: value for key, value in ((file.metadata() or {}) | change).items() if value is not None}
    safetensors.numpy.save_file({"codes": np.zeros(5, np.uint16)}, tmp_path / "b.safetensors", facts)
    with pytest.raises(LlasaError, match=r"b\.safetensors has (no|samples)"):
        Voice.load(tmp_path / "b.safetensors")


@pytest.mark.parametrize("tensors", [
    {"codes": torch.zeros(5, dtype=torch.bfloat16)}, {"codes": torch.zeros(5)},
    {"codes": torch.zeros(2, 2, dtype=torch.int32)},
    {"codes": torch.zeros(5, dtype=torch.int32), "samples": torch.full((9,), torch.nan)},
    {"codes": torch.zeros(5, dtype=torch.int32), "samples": torch.zeros(9, dtype=torch.bfloat16)},
])  # fmt: skip
def test_a_voice_of_other_tensors_is_one_line(tmp_path: Path, tensors: dict):
    Voice("a", "b", np.zeros(5, np.uint16), "c").save(tmp_path / "a.safetensors")
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        facts = file.metadata()
    safetensors.torch.save_file(tensors, tmp_path / "b.safetensors", facts)
    with pytest.raises(LlasaError, match=r"b\.safetensors"):
        Voice.load(tmp_path / "b.safetensors")

"""Folders of recordings with their texts beside them."""

from pathlib import Path

import pytest
import soundfile
from data.corpora import clip

from llasa.data.sources import find_source
from llasa.errors import LlasaError


def folder(at: Path, texts: dict[str, str]) -> Path:
    at.mkdir()
    for index, name in enumerate(("a.wav", "b.wav")):
        soundfile.write(at / name, clip(index), 16000)
    for name, text in texts.items():
        (at / name).write_text(text)
    return at


@pytest.mark.parametrize("suffix", [".txt", ".TXT", ".lab", ".Lab", ".normalized.txt"])
def test_a_text_lies_beside_its_recording(tmp_path: Path, suffix: str) -> None:
    at = folder(tmp_path / "c", {f"a{suffix}": "\ufeffOne,\r\ntwo.", f"b{suffix}": "Three"})
    source = find_source(str(at))
    assert [item.text for task in source.tasks for item in task.read()] == ["One, two.", "Three"]
    if source.layout == "folder":
        assert source.taken == f"texts: 2 from NAME{suffix.lower()} beside the recordings; speakers: folders"


def test_a_recording_without_a_text_is_told(tmp_path: Path) -> None:
    at = folder(tmp_path / "c", {"a.txt": "One."})
    assert ", 1 recordings without" in find_source(str(at)).taken
    assert find_source(str(folder(tmp_path / "d", {}))).taken == "no texts; speakers: folders"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("transcript.txt", "a One.\nb Two.\n", "what transcript.txt says of them is not known"),
        ("a.json", '{"words": "One."}', "what a.json says of them is not known"),
        ("a.TextGrid", "File type", "what a.TextGrid says of them is not known"),
        ("a.lab", "0 50000 pau\n50000 90000 ah\n", "a.lab is a list of times, not a text"),
        ("a.lab", "0.0 0.52 pau\n", "a.lab is a list of times, not a text"),
    ],
)
def test_texts_kept_in_another_way_are_refused_by_name(tmp_path: Path, name: str, text: str, message: str) -> None:
    at = folder(tmp_path / "c", {name: text})
    with pytest.raises(LlasaError, match=message) as raised:
        find_source(str(at))
    assert "\n" not in str(raised.value)


def test_a_text_that_begins_with_numbers_is_a_text(tmp_path: Path) -> None:
    at = folder(tmp_path / "c", {"a.txt": "5 10 15 and so on.", "b.txt": "1984 2024 were years"})
    assert next(iter(find_source(str(at)).tasks[0].read())).text == "5 10 15 and so on."

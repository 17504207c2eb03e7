"""The lists of the suites: what is read, and what is refused in one line before anything is spoken."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from llasa.errors import LlasaError
from llasa.suites.lists import continued, esd, first, recordings, seed_tts, texts

GOOD = "a|Said before.|p.wav|Say this."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("p.wav", "q.wav"):
        soundfile.write(tmp_path / name, np.zeros(8000), 16000)
    return tmp_path


def test_a_line_has_four_fields_or_five(folder: Path) -> None:
    (folder / "meta.lst").write_text(f"\ufeff{GOOD}\n\nb|Said before.|p.wav|Say that.|q.wav\n")
    one, other = seed_tts(folder)
    assert (one.part, one.id, one.text, one.prompt_text, one.recording) == (
        "en",
        "a",
        "Say this.",
        "Said before.",
        None,
    )
    assert one.prompt == str(folder / "p.wav")
    assert other.recording == str(folder / "q.wav")


def test_the_folder_as_it_is_published_has_three_parts(folder: Path) -> None:
    for language in ("en", "zh"):
        (folder / language / "wavs").mkdir(parents=True)
        soundfile.write(folder / language / "p.wav", np.zeros(8000), 16000)
    soundfile.write(folder / "en/wavs/a.wav", np.zeros(8000), 16000)
    (folder / "en/meta.lst").write_text(GOOD)
    (folder / "zh/meta.lst").write_text("甲|以前说的话。|p.wav|现在说这个。")
    (folder / "zh/hardcase.lst").write_text("乙|以前说的话。|p.wav|四是四，十是十。")
    items = seed_tts(folder)
    assert [(item.part, item.language) for item in items] == [("en", "en"), ("zh", "zh"), ("hard", "zh")]
    assert items[0].recording == str(folder / "en/wavs/a.wav")
    assert first([*items, *items], 1) == items


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.replace("|", "\t"), "line 1, is parted by tabs: write id|prompt text|prompt audio|text"),
        (GOOD.replace("|", ";"), "line 1, is parted by semicolons"),
        (GOOD.replace("|", " "), "line 1, has 1 field:"),
        (f"{GOOD}\nb|Said before.|p.wav", "line 2, has 3 fields"),
        (f"{GOOD}\nb|Said before.||Say that.", "line 2, has an empty field"),
        (f"{GOOD}\nb|Said before.|p.wav|...", "line 2, has an empty field"),
        (f"{GOOD}\nb|Said before.|gone.wav|Say that.", "gone.wav, which does not exist"),
        (f"{GOOD}|gone.wav", "gone.wav, which does not exist"),
        (f"{GOOD}\n{GOOD}", "has the id a 2 times"),
        ("\n", "is empty"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(folder: Path, content: str, message: str) -> None:
    (folder / "meta.lst").write_text(content)
    with pytest.raises(LlasaError, match=r"meta\.lst|has the id") as caught:
        seed_tts(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_list_is_told(folder: Path) -> None:
    with pytest.raises(LlasaError, match="pass Seed-TTS-Eval's folder or a list"):
        seed_tts(folder)
    with pytest.raises(LlasaError, match="there is no file"):
        seed_tts(folder / "none.lst")


def test_emotions_are_pairs_of_one_speaker(tmp_path: Path) -> None:
    said = {
        "0001": ["打远一看，它们的确很美丽。", "他们都不理我。", "天气真好。"],
        "0011": ["The nine.", "Go on.", "I see."],
    }
    for speaker, lines in said.items():
        rows = []
        for number, text in enumerate(lines):
            path = tmp_path / speaker / "Angry" / "evaluation" / f"{speaker}_{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.zeros(8000), 16000)
            rows.append(f"{path.stem}\t{text}\tAngry")
        (tmp_path / speaker / f"{speaker}.txt").write_text("\n".join(rows))
    items = esd(tmp_path)
    assert [item.language for item in items] == ["zh", "zh", "en", "en"]
    assert (items[2].prompt_text, items[2].text) == ("The nine.", "Go on.")
    assert Path(str(items[2].recording)).stem == "0011_1"
    for speaker, encoding in (("0001", "utf-16"), ("0001", "gb18030"), ("0011", "utf-16")):
        table = tmp_path / speaker / f"{speaker}.txt"
        table.write_text("\n".join(f"{speaker}_{n} {text} Angry" for n, text in enumerate(said[speaker])), encoding)
        assert esd(tmp_path) == items
    (tmp_path / "0001/0001.txt").write_bytes(b"0001_0\xff\xff")
    with pytest.raises(LlasaError, match=r"0001\.txt is neither UTF-8, UTF-16 nor GB 18030"):
        esd(tmp_path)
    (tmp_path / "0001/0001.txt").write_text("0001_0\tOne.\tAngry\n")
    (tmp_path / "0011/0011.txt").unlink()
    with pytest.raises(LlasaError, match=r"has no 0011/0011\.txt"):
        esd(tmp_path)
    with pytest.raises(LlasaError, match="pass the folder of ESD"):
        esd(tmp_path / "none")


@pytest.fixture
def librispeech(tmp_path: Path) -> Path:
    chapter = tmp_path / "test-clean" / "61" / "70968"
    chapter.mkdir(parents=True)
    for number, seconds in enumerate((2, 6, 12)):
        soundfile.write(chapter / f"61-70968-000{number}.flac", np.full(seconds * 16000, 0.1), 16000)
    words = "ONE TWO THREE FOUR FIVE SIX"
    (chapter / "61-70968.trans.txt").write_text("".join(f"61-70968-000{n} {words}\n" for n in range(3)))
    return tmp_path


def test_recordings_of_a_fit_length_are_continued_from_half_their_words(librispeech: Path) -> None:
    assert [item.part for item in recordings(librispeech)] == ["test-clean"] * 3
    (item,) = continued(librispeech)
    assert (item.id, item.cut) == ("61-70968-0001", 3.0)
    assert (item.prompt_text, item.text) == ("ONE TWO THREE", "FOUR FIVE SIX")


def test_a_recording_that_is_missing_is_told(librispeech: Path) -> None:
    next(librispeech.rglob("*0001.flac")).unlink()
    with pytest.raises(LlasaError, match=r"0001\.flac, which does not exist"):
        recordings(librispeech)


def test_the_package_s_own_texts_are_of_both_languages(tmp_path: Path) -> None:
    items = texts(None)
    assert {item.language for item in items} == {"en", "zh"}
    assert len({item.part for item in items}) >= 12
    (tmp_path / "mine.lst").write_text("a|odd|One line.\nb|odd\n")
    with pytest.raises(LlasaError, match=r"line 2, has 2 fields: write id\|category\|text"):
        texts(tmp_path / "mine.lst")

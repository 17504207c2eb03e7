"""Tables as people and other programs write them: each is read rightly, or refused by name and line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from data.corpora import clip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llasa.data.sources import Source, find_source
from llasa.errors import LlasaError

TEXTS = ["He came at 5, and left.", "NO PUNCTUATION AT ALL", "Naïve? Ça va!", "one", "It cost $5 (or so)."]


@pytest.fixture
def at(tmp_path: Path) -> Path:
    """A folder with recordings named in four ways."""
    for index, name in enumerate(("a0.wav", "wavs/a1.wav", "wavs/a2.WAV", "wavs/a3.mp3", "sub/a4.flac")):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path.with_suffix(path.suffix.lower()), clip(index), 16000)
        path.with_suffix(path.suffix.lower()).rename(path)
    return tmp_path / "corpus"


NAMES = ["a0", "a1", "a2.WAV", "wavs/a3.mp3", "sub/a4.flac"]


def rows(line: Callable[[str, str, int], str]) -> str:
    return "\n".join(line(name, text, i) for i, (name, text) in enumerate(zip(NAMES, TEXTS, strict=True)))


def jsons(**names: str) -> str:
    return rows(lambda name, text, i: json.dumps({names["audio"]: name, names["text"]: text, "duration": 1.0}))


READ = {
    "metadata.csv": rows(lambda n, t, i: f"{n}|{t}"),
    "train.txt": rows(lambda n, t, i: f"{n}|{t}"),
    "filelist.list": rows(lambda n, t, i: f"{n}|speaker{i % 2}|EN|{t}"),
    "vits/metadata.csv": rows(lambda n, t, i: f"{n}|speaker{i % 2}|{t}"),
    "coqui/metadata.csv": "audio_file|text|speaker_name\n" + rows(lambda n, t, i: f"{n}|{t}|speaker{i % 2}"),
    "last/metadata.csv": rows(lambda n, t, i: f"{n}|{t}|speaker{i % 2}"),
    "both/metadata.csv": rows(lambda n, t, i: f"{n}|{t.lower().replace('5', 'five').replace('$', '')}|{t}"),
    "bom/metadata.csv": "\ufeff" + rows(lambda n, t, i: f"{n}|{t}") + "\n\n  \n\n",
    "crlf/metadata.csv": rows(lambda n, t, i: f"{n}|{t}\r\n\r").replace("\n\r\n", "\n"),
    "quoted/metadata.csv": "\ufefffile_name,text\r\n\r\n" + rows(lambda n, t, i: f'{n},"{t}"\r'),
    "tabs.tsv": "path\ttext\n" + rows(lambda n, t, i: f"{n}\t{t}"),
    "manifest.json": jsons(audio="audio_filepath", text="text"),
    "train_manifest.json": jsons(audio="audio_filepath", text="text"),
    "list/manifest.json": f"[{','.join(jsons(audio='audio', text='transcription').splitlines())}]",
    "bars.jsonl": jsons(audio="audio", text="sentence").replace("one", "one"),
}


def put(at: Path, name: str, content: str) -> Path:
    """Writes a table under the last part of its name."""
    path = at / name.rpartition("/")[2]
    path.write_bytes(content.encode())
    return path


def read(source: Source) -> list[tuple[str, str, str]]:
    items = [item for task in source.tasks for item in task.read()]
    assert all(isinstance(item.audio, Path) and item.audio.is_file() for item in items)
    return [(Path(str(item.audio)).stem, item.text, item.speaker) for item in items]


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("pass_file", [True, False])
def test_every_table_gives_each_recording_its_own_text(at: Path, name: str, pass_file: bool) -> None:
    path = put(at, name, READ[name])
    source = find_source(str(path if pass_file else at))
    found = read(source)
    assert [(stem, text) for stem, text, _ in found] == [(f"a{i}", text) for i, text in enumerate(TEXTS)]
    if "speaker" in READ[name]:
        assert [speaker for *_, speaker in found] == [f"speaker{i % 2}" for i in range(5)]
    assert source.taken.startswith(f"{path.name}: audio from ")
    assert "text from " in source.taken


def test_the_report_says_which_column_is_what(at: Path) -> None:
    for name, taken in (
        ("coqui/metadata.csv", "metadata.csv: audio from 'audio_file', text from 'text', speaker from 'speaker_name'"),
        ("both/metadata.csv", "metadata.csv: audio from column 1, text from column 3; not used: column 2"),
        ("manifest.json", "manifest.json: audio from 'audio_filepath', text from 'text'; not used: 'duration'"),
    ):
        path = put(at, name, READ[name])
        assert find_source(str(path)).taken == taken


REFUSED = {
    "a bar in one text": ("metadata.csv", "a0|one\na1|one|two\n", "line 2 has 3 columns where line 1 has 2"),
    "a bar in every text": ("metadata.csv", "a0|it is|so then\na1|it was|quite red\n", "which of the 3 columns"),
    "many bars": ("metadata.csv", "a0|it|is so|x|y\na1|it was|red|or|so\n", "which of the 5 columns"),
    "a line without a bar": ("metadata.csv", "a0|one\nand it goes on\n", "line 2: there is no text after 'and it goes"),
    "an empty text": ("metadata.csv", "a0|one\n\na1|\n", "line 3: there is no text after 'a1'"),
    "an unquoted comma": ("metadata.csv", "path,text\na0.wav,no, not so\n", "line 2 has more than the 2 columns"),
    "a missing column": ("metadata.csv", "path,text,speaker\na0.wav,no\n", "line 2 has fewer than the 3 columns"),
    "a strange name for the text": ("metadata.csv", "path,words\na0.wav,no\n", "no column of texts: call it text"),
    "the same in JSON": ("manifest.json", '{"audio_filepath": "a0.wav", "words": "no"}\n', "no column of texts"),
    "JSON that ends early": ("manifest.jsonl", '{"audio": "a0.wav", "text": "no"}\n{"audio"', "line 2 is not JSON"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_may_give_a_wrong_text_is_refused_by_name(at: Path, kind: str) -> None:
    name, content, message = REFUSED[kind]
    put(at, name, content)
    with pytest.raises(LlasaError, match=message) as raised:
        find_source(str(at))
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_two_tables_are_told(at: Path) -> None:
    for name in ("train.txt", "val.txt"):
        put(at, name, READ["train.txt"])
    with pytest.raises(LlasaError, match=r"several tables \(train.txt, val.txt\): pass the path"):
        find_source(str(at))
    assert len(read(find_source(str(at / "val.txt")))) == 5


def test_a_table_may_name_recordings_elsewhere(at: Path, tmp_path: Path) -> None:
    (at / "a0.wav").rename(tmp_path / "away.wav")
    for name, line in (("metadata.csv", "{}|one\n"), ("list.jsonl", '{{"audio": "{}", "text": "one"}}\n')):
        source = find_source(str(put(at, name, line.format(tmp_path / "away.wav"))))
        assert [(stem, text) for stem, text, _ in read(source)] == [("away", "one")]


WORDS = st.lists(st.text(st.characters(categories=["L", "N", "P"], exclude_characters="|"), min_size=1), min_size=1)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True)
@given(texts=st.lists(WORDS, min_size=1, max_size=5))
def test_no_table_ever_gives_another_text(at: Path, texts: list[list[str]]) -> None:
    """Read rightly, whatever the texts are, or refused."""
    spoken = [" ".join(text) for text in texts]
    for line in ("{name}|{text}", "{name}|speaker|{text}", "{name}|{text}|speaker", "{name}|{text}|{text}"):
        put(at, "metadata.csv", "\n".join(line.format(name=NAMES[i], text=text) for i, text in enumerate(spoken)))
        try:
            found = read(find_source(str(at)))
        except LlasaError:
            continue
        assert [text for _, text, _ in found] == spoken


def test_clips_have_the_lengths_of_their_texts(at: Path) -> None:
    """The recordings themselves are the right ones, too."""
    from llasa import audio

    put(at, "metadata.csv", READ["metadata.csv"])
    items = [item for task in find_source(str(at)).tasks for item in task.read()]
    for index, item in enumerate(items):
        assert isinstance(item.audio, Path)
        np.testing.assert_allclose(len(audio.load(item.audio)), len(clip(index)), atol=2400)

"""Every layout, made on the spot, read as the same utterances; and what is wrong with a source, told in a line."""

import io
import os
import pickle
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from data.corpora import EVERY, TEXTS, emilia, folder, jsonl, ljspeech, parquet

from llasa import audio
from llasa.data.sources import detect, find_source, read_parquet, read_tar
from llasa.errors import LlasaError


@pytest.mark.parametrize("name", EVERY)
def test_every_layout_gives_the_same_utterances(name: str, tmp_path: Path):
    place = str(EVERY[name](tmp_path / "corpus"))
    layout = "hub" if name == "hub" else None
    source = find_source(place, layout, shard=2)
    assert source.layout == name.split("-")[0]
    assert len(source.tasks) == (2 if source.layout in ("emilia", "parquet", "hub") else 3)
    # A task says the same in another process, and when it is read again.
    items = [item for task in pickle.loads(pickle.dumps(source.tasks)) for item in task.read()]
    assert [item for task in source.tasks for item in task.read()] == items
    assert len({item.id for item in items}) == len(TEXTS)
    assert sorted(item.text for item in items) == sorted(TEXTS)
    for item in items:
        i = TEXTS.index(item.text)
        samples = audio.load(item.audio if isinstance(item.audio, Path) else io.BytesIO(item.audio))
        assert len(samples) == pytest.approx((0.9 + 0.13 * i) * 16000, abs=2400)  # an MP3 is longer by its padding
        assert item.speaker == ("corpus" if name == "ljspeech" else f"speaker{i % 2}")
        assert item.language == ("" if name == "folder" else "en")
    assert find_source(place, layout, shard=2).digest == source.digest


def test_alignments_of_our_own_shards_are_kept(tmp_path: Path):
    items = [item for task in find_source(str(parquet(tmp_path / "c"))).tasks for item in task.read()]
    assert {item.id for item in items} == {f"row{i}" for i in range(5)}
    assert all(item.phones == ("pau", "ah") and item.ends == (0.25, 0.5) for item in items)


def test_a_change_of_the_source_changes_its_digest(tmp_path: Path):
    for make, change in (
        (folder, lambda at: (at / "speaker0" / "0.txt").write_text("another text")),
        (ljspeech, lambda at: (at / "metadata.csv").write_text("LJ0|one|one\n")),
        (emilia, lambda at: (at / "EN-B000001.tar").unlink()),
    ):
        place = make(tmp_path / make.__name__)
        before = find_source(str(place)).digest
        change(place)
        assert find_source(str(place)).digest != before


def test_a_tar_cut_off_gives_what_comes_before(tmp_path: Path):
    path = next(emilia(tmp_path / "c", shards=1).iterdir())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3 // 512 * 512 + 100])
    items = list(find_source(str(path)).tasks[0].read())
    assert 2 <= len(items) <= 5
    assert [item.problem == "" for item in items] == [True] * (len(items) - 1) + [False]
    assert "EN-B000000.tar is damaged from here on" in items[-1].problem


def test_what_is_no_source_is_told(tmp_path: Path):
    def refused(name: object, message: str, layout: str | None = None) -> None:
        with pytest.raises(LlasaError, match=message):
            find_source(str(name), layout)

    refused(tmp_path / "none", "no file or folder")
    refused("none", "no file or folder none, and it is not a hub id")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no audio in")
    refused(tmp_path / "empty", "no layout 'tapes': use one of folder, manifest", "tapes")
    refused(tmp_path / "empty", "no .tar files", "emilia")
    refused(tmp_path / "empty", "no metadata.csv", "ljspeech")
    refused(tmp_path / "empty", "no validated.tsv", "commonvoice")
    refused(tmp_path / "empty", "no metadata.csv, nor any other table", "manifest")
    refused(tmp_path / "empty", "no recordings of the layout libritts", "libritts")
    manifest = jsonl(tmp_path / "m")
    manifest.write_text('{"audio": "clips/0.flac"}\n{"audio"\n')
    refused(manifest, "line 2 is not JSON")
    manifest.write_text('{"audio": "clips/0.flac"}\n{"text": "x"}\n')
    refused(manifest, "line 2: no audio file")
    manifest.write_text('{"audio": "clips/0.flac"}\n{"audio": "clips/0.flac"}\n')
    refused(manifest, "line 2: line 1 has the id 'clips/0' too")
    manifest.write_text('{"audio": "elsewhere/0.flac"}\n')
    refused(manifest, "names files that do not exist, such as .*elsewhere/0.flac")
    (tmp_path / "m" / "table.tsv").write_text("a\tb\n1\t2\n")
    refused(tmp_path / "m" / "table.tsv", "lacks the columns of Common Voice")
    (tmp_path / "m" / "table.tsv").write_bytes("path\tsentence\na.mp3\tcaf\u00e9\n".encode("latin-1"))
    refused(tmp_path / "m" / "table.tsv", "table.tsv is not UTF-8 text")
    (tmp_path / "m" / "table.tsv").write_text(f"path\tsentence\na.mp3\t{'x' * 140_000}\n")
    refused(tmp_path / "m" / "table.tsv", "table.tsv, line 1: field larger than field limit")
    assert detect("someone/speech:clean") == "hub"


def test_a_manifest_may_hold_any_characters(tmp_path: Path):
    at = jsonl(tmp_path / "m").parent
    (at / "list.jsonl").write_text('{"audio": "clips/0.flac", "text": "one\u2028two"}\n\n')
    (at / "list.csv").write_text('\ufeffpath,text\r\nclips/0.flac,"one,\r\ntwo"\r\n')
    found = [find_source(str(at / name)).tasks[0].read() for name in ("list.jsonl", "list.csv")]
    assert [item.text for items in found for item in items] == ["one two", "one, two"]


def test_a_table_may_name_recordings_elsewhere(tmp_path: Path):
    at = ljspeech(tmp_path / "lj")
    (at / "wavs" / "LJ0.wav").rename(tmp_path / "away.wav")
    (at / "metadata.csv").write_text(f"{tmp_path / 'away.wav'}|one|one\n")
    item = next(iter(find_source(str(at)).tasks[0].read()))
    assert (item.audio, item.where) == (tmp_path / "away.wav", (tmp_path / "away.wav").as_posix())


def test_a_damaged_json_in_a_tar_costs_its_clip(tmp_path: Path):
    path = next(emilia(tmp_path / "c", shards=1).iterdir())
    path.write_bytes(path.read_bytes().replace(b'{"id": "EN_B00000_S00001', b'["id": "EN_B00000_S00001'))
    items = list(find_source(str(path)).tasks[0].read())
    assert [item.problem for item in items] == ["", "its .json is damaged", "", "", ""]


def test_a_sparse_member_of_a_tar_is_named_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "big.wav").touch()
    os.truncate(tmp_path / "big.wav", 20 << 30)
    soundfile.write(tmp_path / "good.wav", np.zeros(1600), 16000)
    subprocess.run(["tar", "--sparse", "-cf", "a.tar", "big.wav", "good.wav"], cwd=tmp_path, check=True)
    assert (tmp_path / "a.tar").stat().st_size < 100_000
    big, good = read_tar(tmp_path / "a.tar")
    assert "20480 MB, more than the 256" in big.problem
    assert big.audio == b""
    assert not good.problem


def test_nothing_is_fetched_for_a_local_table(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.wav"
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16000)
    sounds = [
        {"bytes": None, "path": address},
        {"bytes": None, "path": str(tmp_path / "a.wav")},
        {"bytes": None, "path": "/dev/zero"},
    ]
    pq.write_table(pa.table({"audio": sounds, "text": ["a", "b", "c"]}), tmp_path / "a.parquet")
    remote, local, endless = read_parquet(tmp_path / "a.parquet")
    assert "not fetched" in remote.problem
    assert local.audio == (tmp_path / "a.wav").read_bytes()
    assert "more than the 256 MB" in endless.problem
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_half_a_surrogate_pair_in_an_id_fits_into_a_shard(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16000)
    (tmp_path / "list.jsonl").write_text('{"audio": "a.wav", "id": "x\\ud800", "text": "\\udfff"}\n')
    (item,) = find_source(str(tmp_path / "list.jsonl")).tasks[0].read()
    assert (item.id, item.text) == ("x?", "?")


def test_json_that_is_nested_too_deeply_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text("[" * 100_000)
    with pytest.raises(LlasaError, match=r"is not JSON .it is nested too deeply"):
        find_source(str(tmp_path / "list.jsonl"))


def test_gigabytes_of_zeros_are_not_unpacked(tmp_path: Path) -> None:
    with (tmp_path / "huge.tar").open("wb") as file:
        file.truncate(20 << 30)
    assert list(read_tar(tmp_path / "huge.tar")) == []


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
def test_archives_may_be_compressed(tmp_path: Path, kind: Any) -> None:
    (tmp_path / "a.json").write_text('{"text": "It was late."}')
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with tarfile.open(tmp_path / "it.tar", "w:" + kind) as archive:
        for name in ("a.json", "a.wav"):
            archive.add(tmp_path / name, name)
    (item,) = read_tar(tmp_path / "it.tar")
    assert (item.text, item.audio) == ("It was late.", b"RIFF")

"""The job: codes as the codec makes them of each clip alone, what is dropped, and everything that interrupts a run."""

import errno
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow.parquet as pq
import pytest
from data.corpora import EVERY, TEXTS, clip, emilia, folder, jsonl, parquet, sound_file, tone
from warm import kill

from llasa import audio
from llasa.codec import load_codec
from llasa.data.encode import EncodeJob, batches, encode, prepare
from llasa.data.filters import Limits
from llasa.data.layouts import Item
from llasa.data.report import Report
from llasa.data.shards import read_rows, shard_files
from llasa.data.sources import find_source
from llasa.errors import LlasaError

KIND = {"commonvoice": "MP3", "emilia": "MP3", "folder": "WAV", "ljspeech": "WAV", "libritts": "WAV"}


@pytest.fixture
def job(tmp_path: Path, codec_folder: Path) -> EncodeJob:
    return EncodeJob(tmp_path / "out", str(codec_folder), "cpu", Limits(), workers=2)


def run(
    place: Path, job: EncodeJob, shard: int = 2, told: list[str] | None = None, layout: str | None = None
) -> Report:
    warnings = [] if told is None else told
    return encode(find_source(str(place), layout, shard), job, lambda *_: None, warnings.append)


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for file in shard_files(out) for row in read_rows(file)]


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.mark.parametrize("name", EVERY)
def test_codes_are_those_of_each_clip_alone(name: str, job: EncodeJob, codec_folder: Path, tmp_path: Path):
    report = run(EVERY[name](tmp_path / "corpus"), job, layout="hub" if name == "hub" else None)
    assert (report.kept.utterances, report.dropped) == (len(TEXTS), {})
    codec = load_codec(codec_folder)
    for row in rows(job.out):
        i = TEXTS.index(row["text"])
        kind = KIND.get(name, "FLAC")
        (tmp_path / "clip").write_bytes(sound_file(clip(i), kind))
        samples = audio.load(tmp_path / "clip")
        assert np.array_equal(row["codes"], codec.encode(samples))
        assert row["seconds"] == pytest.approx(len(samples) / 16000)
        assert row["phones"] == (["pau", "ah"] if name == "parquet" else [])


def test_rows_keep_the_order_of_the_source(job: EncodeJob, tmp_path: Path):
    run(jsonl(tmp_path / "corpus"), job)
    assert [row["text"] for row in rows(job.out)] == TEXTS
    assert [path.name for path in shard_files(job.out)] == ["00000.parquet", "00001.parquet", "00002.parquet"]


def test_batches_hold_everything_once_and_no_more_than_the_limit():
    lengths = [5, 90, 7, 5, 30, 31, 6, 200]
    found = list(batches(lengths, 100))
    assert sorted(place for batch in found for place in batch) == list(range(8))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 100 for batch in found)
    assert [7] in found


def test_what_is_bad_is_dropped_and_reported_and_nothing_else_is(job: EncodeJob, tmp_path: Path):
    corpus = jsonl(tmp_path / "corpus").parent
    (corpus / "clips" / "1.flac").write_bytes(b"fLaC" + bytes(100))
    (corpus / "clips" / "2.flac").unlink()
    (corpus / "clips" / "3.flac").write_bytes(sound_file(tone(5.0, 3)))
    report = run(corpus / "list.jsonl", job)
    assert report.kept.utterances == 2
    told = json.loads((job.out / "report.json").read_text())
    assert told["kept"] == {"utterances": 2, "hours": round((len(clip(0)) + len(clip(4))) / 16000 / 3600, 4)}
    assert {name: count["utterances"] for name, count in told["dropped"].items()} == {
        "cannot be read": 2, "text does not fit": 1,
    }  # fmt: skip
    unread = told["dropped"]["cannot be read"]["examples"]
    assert [line.split(" (")[0] for line in unread] == ["clips/1.flac", "clips/2.flac"]
    assert "clips/3.flac" in told["dropped"]["text does not fit"]["examples"][0]
    assert "text does not fit" in report.table()
    assert "clips/1.flac" in report.table()


def test_what_is_far_too_long_is_told_from_what_is_only_called_so(tmp_path: Path):
    long = tmp_path / "long.wav"
    with long.open("wb") as file:  # sparse: only its header is real
        file.write(audio.wav_header(16000, 700 * 16000))
        file.truncate(44 + 700 * 32000)
    named = tmp_path / "this is too long: yes.flac"
    named.write_bytes(b"fLaC" + bytes(100))
    found = [prepare(Item("1", path, "1"), 16000, Limits()).reason for path in (long, named)]
    assert found == ["too long", "cannot be read"]


def test_a_damaged_archive_costs_only_what_is_in_it(job: EncodeJob, tmp_path: Path):
    corpus = emilia(tmp_path / "corpus")
    first = corpus / "EN-B000000.tar"
    first.write_bytes(first.read_bytes()[:-9000])
    report = run(corpus, job)
    assert report.kept.utterances in (3, 4)
    assert "EN-B000000.tar is damaged" in report.dropped["cannot be read"].examples[0]
    job.out.rename(tmp_path / "before")
    shard = parquet(tmp_path / "parquet") / "00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1000])
    report = run(shard.parent, job)
    assert report.kept.utterances == 3
    assert "00001.parquet" in report.dropped["cannot be read"].examples[0]


def test_a_second_run_does_nothing(job: EncodeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    corpus = folder(tmp_path / "corpus")
    first = run(corpus, job)
    before = {path: path.stat().st_mtime_ns for path in shard_files(job.out)}
    monkeypatch.setattr("llasa.data.encode.load_codec", lambda *_, **__: pytest.fail("the codec was loaded"))
    assert run(corpus, job).as_dict() == first.as_dict()
    assert {path: path.stat().st_mtime_ns for path in shard_files(job.out)} == before


def test_a_missing_and_a_truncated_shard_are_made_again_as_they_were(job: EncodeJob, tmp_path: Path):
    corpus = folder(tmp_path / "corpus")
    run(corpus, job)
    before = contents(job.out)
    (job.out / "00000.parquet").unlink()
    whole = (job.out / "00001.parquet").read_bytes()
    (job.out / "00001.parquet").write_bytes(whole[: len(whole) // 2])
    (job.out / ".00002.parquet.left.tmp").write_bytes(whole[:99])
    told: list[str] = []
    run(corpus, job, told=told)
    assert contents(job.out) == before
    assert told == [f"{job.out / '00001.parquet'} was cut off by a crash: it is made again"]


def test_another_source_codec_or_limit_is_refused(job: EncodeJob, tmp_path: Path, lm_folder: Path):
    corpus = folder(tmp_path / "corpus")
    run(corpus, job)
    before = contents(job.out)

    def refused(message: str, other: EncodeJob = job, shard: int = 2) -> None:
        with pytest.raises(LlasaError, match=message):
            run(corpus, other, shard)
        assert contents(job.out) == before

    refused("begun with another filters", EncodeJob(job.out, job.model, "cpu", Limits(longest=9.0), 2))
    refused("begun with another source and shard", shard=3)
    from small_models import make_codec_folder

    other = make_codec_folder(tmp_path / "codec", seed=1)
    refused("begun with another codec", EncodeJob(job.out, str(other), "cpu", Limits(), 2))
    (corpus / "speaker0" / "0.txt").write_text("two small steps")
    refused("begun with another source: choose another folder")
    (job.out / "job.json").unlink()
    with pytest.raises(LlasaError, match="shards of another origin"):
        run(corpus, job)


def test_another_cut_is_refused_even_into_as_many_shards(job: EncodeJob, tmp_path: Path):
    corpus = folder(tmp_path / "corpus")
    run(corpus, job, shard=3)
    with pytest.raises(LlasaError, match="begun with another shard"):
        run(corpus, job, shard=4)  # two shards, as before


def test_a_replaced_recording_is_another_source(job: EncodeJob, tmp_path: Path):
    corpus = folder(tmp_path / "corpus")
    run(corpus, job)
    (corpus / "speaker0" / "0.wav").write_bytes(sound_file(tone(2.0, 9), "WAV"))
    with pytest.raises(LlasaError, match="begun with another source"):
        run(corpus, job)


def test_a_shard_that_cannot_be_read_for_now_is_kept(job: EncodeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    corpus = folder(tmp_path / "corpus")
    run(corpus, job)
    before = contents(job.out)

    def stale(*_: Any) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(pq, "read_schema", stale)
        with pytest.raises(LlasaError, match=r"cannot read .*00000.parquet: stale file handle: run the same command"):
            run(corpus, job)
    assert contents(job.out) == before
    run(corpus, job)


def test_a_job_of_an_older_version_goes_on(job: EncodeJob, tmp_path: Path):
    """Of shards that the source came in; it wrote down neither how it was cut nor whose codes they are."""
    corpus = parquet(tmp_path / "corpus")
    run(corpus, job)
    (job.out / "00001.parquet").unlink()
    told = json.loads((job.out / "job.json").read_text())
    (job.out / "job.json").write_text(json.dumps({name: told[name] for name in ("source", "codec", "filters")}))
    assert run(corpus, job).kept.utterances == len(TEXTS)


def test_two_runs_do_not_write_one_folder(job: EncodeJob, tmp_path: Path):
    corpus = folder(tmp_path / "corpus")

    def meanwhile(*_: Any) -> None:
        with pytest.raises(LlasaError, match=r"is writing into .*: wait for it"):
            run(corpus, job)

    encode(find_source(str(corpus), shard=2), job, meanwhile, print)
    assert len(rows(job.out)) == len(TEXTS)


def test_a_full_disk_is_told_and_costs_one_shard(job: EncodeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    corpus = folder(tmp_path / "corpus")
    write: Callable[..., None] = pq.write_table

    def full(table: Any, where: BinaryIO) -> None:
        if "00001" in Path(where.name).name:
            where.write(b"PAR1")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, where)

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", full)
        with pytest.raises(LlasaError, match=r"cannot write .*00001.parquet: no space left on device"):
            run(corpus, job)
    assert [path.name for path in shard_files(job.out)] == ["00000.parquet"]
    assert not list(job.out.glob(".*.tmp"))
    run(corpus, job)
    assert len(rows(job.out)) == len(TEXTS)


def test_kill_and_run_again_gives_what_one_run_gives(job: EncodeJob, python: list[str], tmp_path: Path):
    corpus = tmp_path / "corpus"
    for i in range(18):
        (corpus / f"speaker{i % 2}").mkdir(parents=True, exist_ok=True)
        (corpus / f"speaker{i % 2}" / f"{i}.flac").write_bytes(sound_file(tone(2 + 0.1 * i, i)))
    command = [*python, "-m", "llasa", "data", "encode", corpus, job.out, "--model", job.model]
    command += ["--device", "cpu", "--shard", "3"]
    process = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (job.out / "00001.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    kill(process)
    made = len(shard_files(job.out))
    assert 2 <= made < 6
    run(corpus, job, shard=3)
    once = EncodeJob(tmp_path / "once", job.model, "cpu", Limits(), workers=1)
    run(corpus, once, shard=3)
    assert contents(job.out) == contents(once.out)


def test_a_folder_may_have_any_name(codec_folder: Path, tmp_path: Path):
    """On Linux names are bytes: one that is not UTF-8 is made, gone on with, and read."""
    name = os.fsdecode(b"\xff corpus")
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.flac").write_bytes(sound_file(tone(3, 0)))
    job = EncodeJob(tmp_path / f"{name} codes", str(codec_folder), "cpu", Limits(), workers=1)
    for _ in range(2):
        report = encode(find_source(str(tmp_path / name)), job, lambda *_: None, print)
        assert report.kept.utterances == 1
    (shard,) = shard_files(job.out)
    assert len(list(read_rows(shard))) == 1

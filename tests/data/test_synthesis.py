"""What all teachers have in common: who reads what, silences, loudness, shards that are made once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from picky import Picky

from llasa.data.shards import AUDIO_SCHEMA, read_rows, row_audio, shard_files, write_shard
from llasa.data.synthesis import Part, assign, flac, opus, record, sentences, synthesise
from llasa.data.teachers import Reading, Unreadable
from llasa.data.teachers.flite import Flite
from llasa.data.teachers.teacher import RATE, RMS_LEVEL, finish
from llasa.errors import LlasaError

TEXT = "The quick brown fox jumps over the lazy dog."


def test_a_sentence_is_read_as_written_unless_normalising_changes_its_words() -> None:
    found = sentences(["  \u201cWell\u2014come in,\u201d he said. ", "Dr. Low paid $5.", "Hi.", "...", "word " * 40])
    assert [s.text for s in found] == ["Well, come in, he said.", "Doctor Low paid five dollars."]
    assert [s.spoken for s in found] == ["\u201cWell\u2014come in,\u201d he said.", "Doctor Low paid five dollars."]


def test_teachers_get_their_share_and_every_text_a_speaker() -> None:
    texts = sentences(f"sentence {'abcdefghij'[i % 10]}" for i in range(4000))
    given = assign(texts, Flite(20), {"rms": 0.5, "slt": 0.1}, seed=0)
    assert [task.sentence for task in given] == texts
    assert len({task.id for task in given}) == len(texts)
    names = [task.voice for task in given]
    assert names.count("rms") / 4000 == pytest.approx(0.5, abs=0.03)
    assert names.count("awb") == 0
    assert len(set(names)) == 22


def test_an_invented_voice_may_have_a_share_of_its_own() -> None:
    given = assign(sentences(["a text"] * 4000), Flite(4), {"rms-000": 0.4}, seed=0)
    names = [task.voice for task in given]
    assert names.count("rms-000") / 4000 == pytest.approx(0.4, abs=0.03)
    assert names.count("slt-001") / 4000 == pytest.approx(0.2, abs=0.03)


def test_without_shifted_speakers_the_plain_voices_share_all_texts() -> None:
    names = [task.voice for task in assign(sentences(["a text"] * 4000), Flite(0), {"rms": 0.3, "slt": 0.1}, seed=0)]
    assert set(names) == {"rms", "slt"}
    assert names.count("rms") / 4000 == pytest.approx(0.75, abs=0.03)


def test_more_text_begins_with_what_less_is() -> None:
    class Varying(Flite):
        speeds = (0.9, 1.1)

    few, many = (assign(sentences(["a text"] * n), Varying(20), {}, seed=1) for n in (30, 90))
    assert many[:30] == few
    assert min(t.speed for t in many) < 0.95 < 1.05 < max(t.speed for t in many)


def test_silence_is_cut_by_the_phones_or_else_by_ear() -> None:
    time_ = np.arange(3 * RATE) / RATE
    samples = np.where((time_ > 1) & (time_ < 2), np.sin(600 * time_), 0).astype(np.float32)
    known = finish(Reading(samples, ["pau", "a", ".", "pau"], [1.0, 2.0, 2.5, 3.0]))
    assert len(known.samples) / RATE == pytest.approx(1.18, abs=0.001)
    assert known.ends == pytest.approx([0.06, 1.06, 1.18, 1.18])
    heard = finish(Reading(samples, [], []))
    assert len(heard.samples) / RATE == pytest.approx(1.18, abs=0.01)
    assert np.sqrt(np.mean(heard.samples**2)) == pytest.approx(RMS_LEVEL, rel=0.01)
    with pytest.raises(Unreadable):
        finish(Reading(np.zeros(RATE, np.float32), [], []))


def test_a_killed_synthesis_goes_on(tmp_path: Path) -> None:
    part = Part(tmp_path, 0, sentences([TEXT, "Another one.", "And one more."]), None)
    *_, last = synthesise(part, Flite(2), {}, shard=1, workers=1)
    assert last.utterances == 3
    first, second, _ = shard_files(tmp_path)
    stamp = first.stat().st_mtime_ns
    second.unlink()
    begun, *_, last = synthesise(part, Flite(2), {}, shard=1, workers=1)
    assert (begun.utterances, last.utterances) == (2, 3)
    assert first.stat().st_mtime_ns == stamp
    assert [row["text"] for file in shard_files(tmp_path) for row in read_rows(file)] == [
        s.text for s in part.sentences
    ]
    assert [step.made for step in synthesise(part, Flite(2), {}, shard=1, workers=1)] == [0.0]


def test_hours_end_it_and_more_hours_go_on(tmp_path: Path) -> None:
    part = Part(tmp_path, 0, sentences([TEXT] * 6), 5 / 3600)
    *_, last = synthesise(part, Flite(0), {"rms": 1}, shard=1, workers=1)
    assert 5 <= last.seconds < 9
    assert len(shard_files(tmp_path)) == last.utterances < 4
    *_, more = synthesise(part._replace(hours=None), Flite(0), {"rms": 1}, shard=1, workers=2)
    assert more.utterances == 6


def test_a_run_that_dies_takes_its_processes_with_it(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join([TEXT] * 4000))
    command = [sys.executable, "-m", "llasa", "data", "synth", "text.txt", "out", "--held-out", "1"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("out/val/*.parquet")) and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(2)
    run.send_signal(signal.SIGKILL)
    run.wait()
    while time.monotonic() < until:
        try:
            os.killpg(run.pid, 0)  # asks only whether one of them is left
        except ProcessLookupError:
            break
        time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)
    assert all(list(read_rows(path)) for path in tmp_path.glob("out/train/*.parquet"))


def test_what_a_teacher_cannot_read_is_counted_and_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    part = Part(tmp_path, 0, sentences([TEXT, "Another one."]), None)
    *_, last = synthesise(part, Picky(0), {"rms": 1}, shard=2, workers=1)
    assert (last.utterances, last.unread) == (1, 1)
    with pytest.raises(LlasaError, match="flite could read none of 1 sentences: too long for me"):
        list(synthesise(Part(tmp_path / "b", 0, sentences([TEXT]), None), Picky(0), {"rms": 1}, workers=1))


def test_another_corpus_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    part = Part(tmp_path, 0, sentences([TEXT, "Another one."]), None)
    record(tmp_path / "flite.json", Flite(2), {}, [part], "flac")
    record(tmp_path / "flite.json", Flite(2), {}, [part._replace(hours=1.0)], "flac")
    with pytest.raises(LlasaError, match="was begun with another invented voices and format: choose another folder"):
        record(tmp_path / "flite.json", Flite(3), {}, [part], "opus")
    with pytest.raises(LlasaError, match="was begun with another sentences"):
        record(tmp_path / "flite.json", Flite(2), {}, [part._replace(sentences=part.sentences[:1])], "flac")
    (tmp_path / "flite.json").write_text("{")
    with pytest.raises(LlasaError, match="is damaged"):
        record(tmp_path / "flite.json", Flite(2), {}, [part], "flac")


def test_opus_is_smaller_and_as_long(tmp_path: Path, voiced: np.ndarray) -> None:
    assert len(opus(voiced)) < len(flac(voiced)) / 3
    back = row_audio({"audio": opus(voiced)})
    assert len(back) == len(voiced)
    assert np.corrcoef(back, voiced)[0, 1] > 0.9


def test_audio_in_a_shard_is_what_went_in(tmp_path: Path, voiced: np.ndarray) -> None:
    row = {
        "id": "a", "text": "t", "audio": flac(voiced), "speaker": "s", "language": "en", "seconds": 3.0,
        "phones": [], "ends": [],
    }  # fmt: skip
    write_shard(tmp_path / "a.parquet", [row], AUDIO_SCHEMA)
    (back,) = read_rows(tmp_path / "a.parquet")
    assert np.abs(row_audio(back) - voiced).max() < 1e-4


def test_a_shard_truncated_by_a_crash_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_shard(path, [], AUDIO_SCHEMA)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LlasaError, match=r"a\.parquet is not a whole Parquet shard"):
        list(read_rows(path))
    with pytest.raises(LlasaError, match=r"no \.parquet shards"):
        shard_files(tmp_path / "nothing")

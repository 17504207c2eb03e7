"""The other suites: copies of a codec, continuations, texts that people score blind, emotions."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from listening import PHRASES, recording
from tiny_listeners import make_emotion

from llasa.errors import LlasaError
from llasa.measure import metrics
from llasa.suites import judges
from llasa.suites.evaluation import EvalSettings, Job, choose_judges, make_jobs, run
from llasa.suites.lists import continued, esd, recordings, texts
from llasa.suites.showing import write_report
from llasa.suites.table_rows import COPIES, ONE_SAMPLE, RECORDINGS, Row

RATE = 16000


def finished(suite: str, jobs: list[Job], names: tuple[str, ...], folder: Path, model: Path | str) -> list[str]:
    settings = EvalSettings(suite, str(model))
    assert list(run(settings, jobs, names, folder))[-1] == len(jobs)
    return write_report(settings, jobs, names, folder)


def summary(folder: Path) -> dict[tuple[str, str, str], str]:
    rows = csv.DictReader((folder / "summary.csv").open(newline=""))
    return {(row["part"], row["row"], row["figure"]): row["value"] for row in rows}


def test_copies_are_compared_with_their_originals(spoken_list: Path, codec_folder: Path, tmp_path: Path) -> None:
    items = recordings(spoken_list / "sounds")[:2]
    jobs = make_jobs("codec", [], items)
    assert [job.row.name for job in jobs] == [RECORDINGS, COPIES] * 2
    lines = finished("codec", jobs, ("stoi", "pesq-nb"), tmp_path / "out", codec_folder)
    found = summary(tmp_path / "out")
    assert float(found["all", RECORDINGS, "STOI"]) == pytest.approx(1, abs=1e-3)
    wanted = []
    for job in jobs[1::2]:
        copy, _ = soundfile.read(job.file(tmp_path / "out").with_suffix(".wav"), dtype="float32")
        original, _ = soundfile.read(str(job.item.recording), dtype="float32")
        assert len(copy) == len(original)
        wanted.append(metrics.stoi(original, copy))
    assert float(found["all", COPIES, "STOI"]) == pytest.approx(float(np.mean(wanted)), abs=1e-3)
    assert found["all", "X-codec2, LibriSpeech test-clean", "PESQ-WB"] == "2.43"
    (told,) = [line for line in lines if line.startswith("codes used")]
    codes = [
        code for job in jobs[1::2] for code in json.loads(job.file(tmp_path / "out").read_text())["facts"]["codes"]
    ]
    assert f"{100 * len(set(codes)) / 64:.1f} % of 64" in told
    share = float(found["all", COPIES, "codes used of 64, %"])
    assert share == pytest.approx(100 * len(set(codes)) / 64, rel=1e-3)


def test_a_continuation_is_judged_without_its_prompt_but_read_with_it(
    lm_folder: Path, tmp_path: Path, voiced: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "data/a.wav", np.concatenate([voiced, voiced])[: 5 * RATE], RATE)
    (tmp_path / "data/a.txt").write_text("One two three four five.")
    heard: dict[str, judges.Heard] = {}

    def listening(name: str, words: bool) -> None:
        def hear(one: judges.Heard) -> float | str:
            heard[name] = one
            return "one two three four five" if words else 1.0

        monkeypatch.setitem(judges._MAKERS, name, lambda w: judges.Judge(w, name, lambda: hear, words=words))

    listening("dnsmos", False)
    listening("whisper-tiny", True)
    judges.loaded.cache_clear()
    items = continued(tmp_path / "data")
    jobs = make_jobs("librispeech-continuation", [Row(ONE_SAMPLE)], items)
    finished("librispeech-continuation", jobs, ("dnsmos", "whisper-tiny"), tmp_path / "out", lm_folder)
    made, _ = soundfile.read(jobs[1].file(tmp_path / "out").with_suffix(".wav"), dtype="float32")
    assert heard["whisper-tiny"].text == "One two three four five."
    assert len(heard["whisper-tiny"].sound) == len(made)
    assert len(made) - len(heard["dnsmos"].sound) == pytest.approx(3 * RATE, abs=320)  # the codec counts whole codes
    reference = heard["dnsmos"].reference
    assert reference is not None
    assert len(reference) == 3 * RATE
    assert summary(tmp_path / "out")["all", ONE_SAMPLE, "whisper-tiny"] == "0"


@pytest.fixture
def scored(lm_folder: Path, tmp_path: Path, one_judge: dict[str, int]) -> tuple[list[Job], Path, Path]:
    """A list of two categories, said once and as the best of one, to be scored by hand."""
    (tmp_path / "mine.lst").write_text("a|poems|Go on.\nb|questions|Who is it?\nc|questions|Is it?\n")
    jobs = make_jobs("text", [Row(ONE_SAMPLE), Row("again")], texts(tmp_path / "mine.lst"))
    finished("text", jobs, ("dnsmos",), tmp_path / "out", lm_folder)
    return jobs, tmp_path / "out", lm_folder


def names(folder: Path) -> dict[str, str]:
    """The text of each sound to score, in the order of the page."""
    rows = csv.DictReader((folder / "listening/texts.csv").open(newline=""))
    return {row["name"]: row["text"] for row in rows}


def test_scores_are_given_blind_in_random_order_and_read(scored: tuple[list[Job], Path, Path]) -> None:
    jobs, out, model = scored
    page = (out / "listening/index.html").read_text()
    found = names(out)
    assert re.findall(r'<section id="(\w+)">', page) == list(found)
    assert {path.stem for path in (out / "listening").glob("*.wav")} == set(found)
    assert len(found) == len(jobs) == 6
    assert not re.search("one sample|again|poems|questions", page)
    assert list(found.values()) != [job.item.text for job in jobs]
    given = {name: 1 + place % 5 for place, name in enumerate(found)}
    for place, rater in enumerate(("a", "b")):  # the second is kinder to the poem
        lines = [f"{n},{5 if place and found[n] == 'Go on.' else score}" for n, score in given.items()]
        (out / f"scores-{rater}.csv").write_text("\n".join(["name,score", *lines]) + "\n")
    lines = finished("text", jobs, ("dnsmos",), out, model)
    assert "12 scores by hand were read" in lines
    values = summary(out)
    poem = [given[name] for name, text in found.items() if text == "Go on."]
    means = sorted(float(values["poems", row, "score by hand, 1 to 5"]) for row in (ONE_SAMPLE, "again"))
    assert means == sorted((score + 5) / 2 for score in poem)


def test_scores_of_another_list_or_out_of_range_are_refused(scored: tuple[list[Job], Path, Path]) -> None:
    jobs, out, model = scored
    for content, message in (
        ("name,score\nabc,3\n", r"line 2: no sound here is called 'abc'"),
        (f"name,score\n{next(iter(names(out)))},9\n", r"line 2: the score is '9': it is from 1 to 5"),
        (f"name,score\n{next(iter(names(out)))}\n", r"line 2: the score is ''"),
    ):
        (out / "scores.csv").write_text(content)
        with pytest.raises(LlasaError, match=message):
            write_report(EvalSettings("text", str(model)), jobs, ("dnsmos",), out)


def test_a_chunked_row_says_its_text_in_parts(lm_folder: Path, tmp_path: Path, one_judge: dict[str, int]) -> None:
    (tmp_path / "mine.lst").write_text(
        "a|long|It was late in the evening when they came. Nobody had lit the lamp in the hall, and it was cold.\n"
    )
    (item,) = texts(tmp_path / "mine.lst")
    whole, parts = Row(ONE_SAMPLE), Row("in parts", "chunked:best-of:1", "sanity")
    jobs = make_jobs("text", [whole, parts], [replace(item, text=item.text)])
    finished("text", jobs, ("dnsmos",), tmp_path / "out", lm_folder)
    facts = [json.loads(job.file(tmp_path / "out").read_text())["facts"] for job in jobs]
    assert facts[0]["tokens"] > 0
    assert facts[1]["tokens"] > 0
    assert facts[0]["seconds_of_audio"] != facts[1]["seconds_of_audio"]


def test_a_model_that_recognises_is_judged_by_its_words(listening_folder: Path, tmp_path: Path) -> None:
    """On phrases that it knows by heart, one of them under a wrong text."""
    chapter = tmp_path / "data/test-clean/1/2"
    chapter.mkdir(parents=True)
    said = {"alma": PHRASES["alma"][1], "edith": "this was not because they were late"}
    for name in said:
        soundfile.write(chapter / f"{name}.flac", recording([name]), RATE)
    (chapter / "1-2.trans.txt").write_text("".join(f"{name} {text.upper()}\n" for name, text in said.items()))
    items = recordings(tmp_path / "data")
    names = choose_judges("asr", str(listening_folder), "paper", tmp_path / "data", [], items)
    jobs = make_jobs("asr", [], items)
    finished("asr", jobs, names, tmp_path / "out", listening_folder)
    found = summary(tmp_path / "out")
    assert float(found["test-clean", RECORDINGS, "WER, the model itself"]) == pytest.approx(100 / 10)
    assert found["test-clean", "Llasa 1B", "WER"] == "2.3"


@pytest.fixture
def emotional(spoken_list: Path, tmp_path: Path) -> Path:
    """A folder of ESD's layout, of two of flite's speakers and two utterances of each."""
    for speaker, voice, kind in (("0011", "rms", "Angry"), ("0012", "slt", "Happy")):
        clips = tmp_path / "esd" / speaker / kind / "evaluation"
        clips.mkdir(parents=True)
        for number in range(2):
            shutil.copy(spoken_list / f"sounds/{voice}-{number}.wav", clips / f"{speaker}_{number:06d}.wav")
        lines = (f"{speaker}_{number:06d}\tSay this {number}.\t{kind}\n" for number in range(2))
        (tmp_path / "esd" / speaker / f"{speaker}.txt").write_text("".join(lines))
    return tmp_path / "esd"


def test_a_sentence_is_said_after_another_of_the_same_emotion(
    emotional: Path, lm_folder: Path, tmp_path: Path, one_judge: dict[str, int]
) -> None:
    jobs = make_jobs("esd", [Row(ONE_SAMPLE)], esd(emotional))
    finished("esd", jobs, ("dnsmos",), tmp_path / "out", lm_folder)
    found = summary(tmp_path / "out")
    assert found["en", "Llasa 1B, PRM by emotion", "emotion SIM, emotion2vec"] == "0.937"
    assert float(found["en", ONE_SAMPLE, "level"]) > 0
    assert one_judge == {"Say this 1.": 4}  # two speakers, recorded and said
    page = (tmp_path / "out/report.html").read_text()
    assert "Nobody measured emotion SIM, emotion2vec here" in page
    assert page.count("<tr><td>prompt</td>") == 2


def test_the_emotion_is_compared_with_the_prompt_s(emotional: Path, lm_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("funasr")
    from funasr import AutoModel

    items = esd(emotional)
    folder = tmp_path / "mine"
    folder.mkdir()
    judge = f"emotion:{make_emotion(folder)}"
    same = replace(items[0], id="same", recording=items[0].prompt)
    jobs = make_jobs("esd", [Row(ONE_SAMPLE)], [*items, same])
    finished("esd", jobs, (judge,), tmp_path / "out", lm_folder)
    rows = list(csv.DictReader((tmp_path / "out/results.csv").open(newline="")))
    model = AutoModel(model=str(folder), disable_update=True, disable_pbar=True, log_level="ERROR")

    def felt(path: Path | str) -> torch.Tensor:
        sound = soundfile.read(path, dtype="float32")[0]
        (result,) = model.generate([sound], granularity="utterance", extract_embedding=True)
        return torch.from_numpy(result["feats"])

    for row, job in zip(rows, jobs, strict=True):
        if job.row.name == RECORDINGS:
            wanted = torch.cosine_similarity(felt(str(job.item.recording)), felt(str(job.item.prompt)), 0).item()
            assert float(row[judge]) == pytest.approx(wanted, abs=1e-3)
    assert float(rows[-2][judge]) == pytest.approx(1, abs=1e-4)
    assert all(0 <= float(row[judge]) <= 1 for row in rows)
    assert len({row[judge] for row in rows}) == len(rows)
    found = summary(tmp_path / "out")
    assert float(found["en", RECORDINGS, "emotion SIM, mine"]) > 0
    assert found["en", "Llasa 1B", "emotion SIM, emotion2vec"] == "0.768"
    assert "Nobody measured emotion SIM, emotion2vec here" in (tmp_path / "out/report.html").read_text()

"""A suite from its list to its report: ceilings, collapse, kills, judges that fail, models that never end."""

import csv
import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file, save_file
from small_models import make_lm_folder
from transformers import AutoTokenizer

from llasa.errors import LlasaError
from llasa.suites import evaluation, judges
from llasa.suites.evaluation import EvalSettings, choose_judges, make_jobs, run
from llasa.suites.lists import Item, seed_tts
from llasa.suites.showing import write_report
from llasa.suites.table_rows import ONE_SAMPLE, RECORDINGS, Row, make_rows

VOICE = "SIM, CAM++"


def evaluated(
    folder: Path, items: list[Item], names: tuple[str, ...], rows: list[Row] | None = None, **more: Any
) -> dict[tuple[str, str], dict[str, str]]:
    """The summary's rows by row and figure."""
    settings = EvalSettings("seed-tts", str(more.get("model", "tiny")))
    jobs = make_jobs("seed-tts", rows or [], items)
    assert list(run(settings, jobs, names, folder, more.get("processes", 1)))[-1] == len(jobs)
    write_report(settings, jobs, names, folder)
    found = csv.DictReader((folder / "summary.csv").open(newline=""))
    return {(row["row"], row["figure"]): row for row in found}


@pytest.fixture(scope="module")
def ceiling(spoken_list: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[tuple[str, str], Any]]:
    """The recordings, judged against themselves, against their speakers' prompts, and against other people's."""
    items, folder = seed_tts(spoken_list), tmp_path_factory.mktemp("ceiling")
    same = [replace(item, prompt=item.recording) for item in items[:2]]
    other = [replace(item, prompt=items[place - 2].prompt) for place, item in enumerate(items)]
    return {
        "same": evaluated(folder / "same", same, ("whisper-tiny", "campplus")),
        "own": evaluated(folder / "own", items, ("campplus",)),
        "shuffled": evaluated(folder / "shuffled", other, ("campplus",)),
    }


def test_recordings_as_the_generated_speech_reach_the_ceiling(ceiling: dict[str, Any]) -> None:
    found = ceiling["same"]
    assert float(found[RECORDINGS, "WER, Whisper tiny"]["value"]) < 12  # flite is a robot
    assert float(found[RECORDINGS, VOICE]["value"]) == pytest.approx(1, abs=1e-3)
    assert (found[RECORDINGS, VOICE]["items"], found[RECORDINGS, VOICE]["of"]) == ("2", "2")


def test_with_shuffled_references_similarity_collapses(ceiling: dict[str, Any]) -> None:
    own, shuffled = (ceiling[kind][RECORDINGS, VOICE] for kind in ("own", "shuffled"))
    assert float(own["low"]) > float(shuffled["high"])
    assert float(own["value"]) > float(shuffled["value"]) + 0.3


def test_published_rows_stand_beside_the_measured_with_their_source(ceiling: dict[str, Any]) -> None:
    row = ceiling["own"]["Llasa 1B, PRM + ORM", "WER, Whisper-large-v3"]
    assert (row["part"], row["value"], row["source"]) == ("en", "1.46", "Llasa, arXiv 2502.04128")
    assert ceiling["own"]["CosyVoice3-0.5B", "SIM, WavLM-large"]["value"] == "0.718"


def test_killed_in_the_middle_it_goes_on_where_it_was(
    spoken_list: Path, tmp_path: Path, one_judge: dict[str, int]
) -> None:
    items = seed_tts(spoken_list)
    settings, jobs = EvalSettings("seed-tts", "tiny"), make_jobs("seed-tts", [], items)
    child = os.fork()
    if not child:
        for done in run(settings, jobs, ("dnsmos",), tmp_path / "out"):
            if done == 2:
                os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert list(run(settings, jobs, ("dnsmos",), tmp_path / "out")) == [2, 3, 4]
    assert list(one_judge) == [item.text for item in items[2:]]
    whole = evaluated(tmp_path / "whole", items, ("dnsmos",))
    again = evaluated(tmp_path / "out", items, ("dnsmos",))
    assert again == whole


def test_another_judge_hears_sounds_that_exist(spoken_list: Path, tmp_path: Path, one_judge: dict[str, int]) -> None:
    items = seed_tts(spoken_list)
    evaluated(tmp_path / "out", items, ("dnsmos",))
    sound = tmp_path / "out/items/recordings/00000.wav"
    before = sound.stat().st_mtime_ns
    found = evaluated(tmp_path / "out", items, ("dnsmos", "stoi"))
    assert (RECORDINGS, "STOI") in found
    assert sound.stat().st_mtime_ns == before
    assert sum(one_judge.values()) == len(items)


def test_a_judge_that_fails_for_one_item_leaves_the_rest(
    spoken_list: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = seed_tts(spoken_list)[:3]
    broken = [True]

    def hear(heard: judges.Heard) -> float:
        if broken[0] and heard.text == items[1].text:
            raise RuntimeError("out of memory\nand more")
        return 1.0

    monkeypatch.setitem(judges._MAKERS, "dnsmos", lambda written: judges.Judge(written, "judge", lambda: hear))
    judges.loaded.cache_clear()
    found = evaluated(tmp_path / "out", items, ("dnsmos", "stoi"))
    assert (found[RECORDINGS, "judge"]["items"], found[RECORDINGS, "judge"]["of"]) == ("2", "3")
    assert found[RECORDINGS, "STOI"]["items"] == "3"
    page = (tmp_path / "out/report.html").read_text()
    assert "2 of 3" in page
    assert f"{items[1].id}: dnsmos: out of memory" in page
    rows = list(csv.DictReader((tmp_path / "out/results.csv").open(newline="")))
    assert [row["remarks"] for row in rows] == ["", "dnsmos: out of memory", ""]
    broken[0] = False  # the same command tries again what failed, and only that
    assert evaluated(tmp_path / "out", items, ("dnsmos", "stoi"))[RECORDINGS, "judge"]["items"] == "3"


@pytest.fixture
def endless(codec_folder: Path, tmp_path: Path) -> Path:
    """A small random model whose end token is never likely: a large number in every state speaks against it."""
    folder = make_lm_folder(tmp_path / "endless", codec_folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][:, 0] = 20
    weights["lm_head.weight"][AutoTokenizer.from_pretrained(folder).eos_token_id, 0] = -50
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_model_that_never_ends_and_a_prompt_that_is_too_short_are_marked(
    spoken_list: Path, endless: Path, tmp_path: Path, one_judge: dict[str, int]
) -> None:
    soundfile.write(tmp_path / "short.wav", np.full(8000, 0.1), 16000)
    item, other = seed_tts(spoken_list)[:2]
    items = [replace(item, text="Go."), replace(other, prompt=str(tmp_path / "short.wav"))]
    found = evaluated(tmp_path / "out", items, ("dnsmos",), [Row(ONE_SAMPLE)], model=endless)
    assert (found[ONE_SAMPLE, "level"]["items"], found[ONE_SAMPLE, "level"]["of"]) == ("1", "2")
    stored = json.loads((tmp_path / "out/items/one-sample/00000.json").read_text())
    assert stored["facts"]["notes"] == ["1 of 1 chunks did not end and were cut off"]
    page = (tmp_path / "out/report.html").read_text()
    assert "did not end" in page
    assert "speech: the reference lasts 0.50 s, too short" in page


def test_the_page_holds_all_that_it_shows(spoken_list: Path, tmp_path: Path, one_judge: dict[str, int]) -> None:
    evaluated(tmp_path / "out", seed_tts(spoken_list), ("dnsmos",))
    page = (tmp_path / "out/report.html").read_text()
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)"', page))


def test_a_folder_belongs_to_one_model(spoken_list: Path, tmp_path: Path, one_judge: dict[str, int]) -> None:
    items = seed_tts(spoken_list)
    evaluated(tmp_path / "out", items, ("dnsmos",))
    with pytest.raises(LlasaError, match="another model"):
        evaluated(tmp_path / "out", items, ("dnsmos",), model="other")
    with pytest.raises(LlasaError, match="belongs to another item or search"):
        evaluated(tmp_path / "out", [replace(items[0], text="Other words."), *items[1:]], ("dnsmos",))


def test_two_processes_do_what_one_does(spoken_list: Path, tmp_path: Path) -> None:
    items = seed_tts(spoken_list)
    one, two = (evaluated(tmp_path / str(n), items, ("stoi",), processes=n) for n in (1, 2))
    assert one == two


def test_a_second_speaker_encoder_always_judges(spoken_list: Path) -> None:
    items = seed_tts(spoken_list)

    def chosen(written: str, *verify: str) -> tuple[str, ...]:
        searches = ["best-of:2" for _ in verify]
        return choose_judges(
            "seed-tts", "tiny", written, None, make_rows(searches, verify, "content", False, "speaker"), items
        )

    assert chosen("offline") == ("whisper-tiny", "campplus", "resemblyzer", "distillmos")
    assert chosen("resemblyzer") == ("resemblyzer", "campplus")
    assert chosen("resemblyzer,wavlm", "speaker") == ("resemblyzer", "wavlm")
    assert chosen("campplus", "campplus") == ("campplus", "resemblyzer")
    assert chosen("dnsmos", "speaker") == ("dnsmos",)
    assert chosen("paper") == (
        "whisper:openai/whisper-large-v3", "wavlm-large:wavlm_large_finetune.pth", "campplus",
    )  # fmt: skip
    with pytest.raises(LlasaError, match="every speaker encoder chooses in a search"):
        chosen("offline", "campplus,speaker")
    with pytest.raises(LlasaError, match="no judge called nobody"):
        chosen("nobody")


def test_words_and_searches_make_rows() -> None:
    rows = make_rows(["best-of:4", "chunked:beam:2x2"], ["content", "speaker"], "content", True, "speaker")
    assert [row.name for row in rows[:3]] == [ONE_SAMPLE, "best-of:4 by content", "chunked:beam:2x2 by speaker"]
    assert (rows[2].chunked, rows[2].strategy, rows[2].folder) == (True, "beam:2x2", "chunked-beam-2x2-by-speaker")
    assert rows[-1].verify == "content=1,speaker=1"
    assert len(rows) == 9
    for searches, verify, message in (
        (["best-of:4", "best-of:4"], [], "is there twice"),
        ([], ["content"], "add --search"),
        (["best-of:4"], ["content", "speaker"], "give each --search its own"),
        (["beam:4x4"], ["whisper"], "a beam needs a verifier that can score fragments"),
    ):
        with pytest.raises(LlasaError, match=message):
            make_rows(searches, verify, "content", False, "speaker")
    assert evaluation.default_verifier("tiny") == "content"

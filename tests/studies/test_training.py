"""A study of training at toy size: stopped, gone on with, spread over processes and over a cluster, written down."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stopping import stopping_at
from studies.grids import make_corpus, small_study

from llasa.errors import LlasaError
from llasa.studies.training.curves import write_report
from llasa.studies.training.grid import GridSettings, Run, check, grid, read_results, recipe, run
from llasa.train.settings import read_settings

NAMES = ["small-0.01h-0", "small-0.03h-0", "large-0.01h-0", "large-0.03h-0"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, codec_folder: Path) -> GridSettings:
    folder = tmp_path_factory.mktemp("study")
    make_corpus(folder)
    return GridSettings(**small_study(codec_folder, folder))


@pytest.fixture(scope="module")
def study(settings: GridSettings) -> Path:
    """A whole study, its second cell stopped after some steps and gone on with."""
    with stopping_at(19), pytest.raises(KeyboardInterrupt):
        list(run(settings))
    done, last = next(iter(run(settings)))
    assert last is None
    assert [one.name for one in done] == ["large-0.03h-0"]
    assert (Path(settings.out) / "cells/small-0.03h-0/lm/checkpoint.pt").exists()
    assert [one.name for _, one in run(settings) if one] == ["small-0.03h-0", "large-0.01h-0", "small-0.01h-0"]
    return Path(settings.out)


def results(settings: GridSettings) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in read_results(settings, grid(settings))}


def test_a_cell_says_how_it_was_trained_and_how_good_it_is(settings: GridSettings, study: Path) -> None:
    found = results(settings)
    assert list(found) == NAMES
    for name, one in found.items():
        amount = json.loads((study / "corpus/amounts.json").read_text())[str(one["hours"])]
        assert one["steps"] == round(amount["tokens"] / 600), name
        assert one["tokens"] == 600 * one["steps"]
        checks = {int(step): loss for step, loss in one["checks"].items()}
        assert max(checks) == one["steps"]
        assert checks[one["best"]] == min(checks.values())
        assert len(one["nats"]) == len(one["audio"]) == 9
        assert [set(said) for said in one["spoken"]] == [{"errors", "words", "similarity", "seconds"}]
        assert one["seconds"] > 0
        assert not (study / "cells" / name / "lm/checkpoint.pt").exists()
    assert found["large-0.01h-0"]["parameters"] > found["small-0.01h-0"]["parameters"]
    ratio = found["large-0.03h-0"]["flops"] / found["large-0.01h-0"]["flops"]
    assert ratio == pytest.approx(found["large-0.03h-0"]["steps"] / found["large-0.01h-0"]["steps"], rel=0.05)
    # These codes can be learnt: more passes over more speech find more of it.
    loss = {name: sum(one["nats"]) / sum(one["audio"]) for name, one in found.items()}
    assert loss["small-0.03h-0"] < loss["small-0.01h-0"]


def test_stopped_and_gone_on_with_is_the_same(settings: GridSettings, study: Path, tmp_path: Path) -> None:
    """In another folder, in processes of their own: what was stopped there was not here."""
    other = GridSettings(**{**vars(settings), "out": str(tmp_path / "other")})
    shutil.copytree(study, tmp_path / "other")
    shutil.rmtree(tmp_path / "other/cells/small-0.03h-0")
    assert [one.name for _, one in run(other, processes=2) if one] == ["small-0.03h-0"]
    again, before = (results(each)["small-0.03h-0"] for each in (other, settings))
    assert again["nats"] == pytest.approx(before["nats"], rel=1e-3)
    assert again["best"] == before["best"]


def test_the_report_holds_every_cell_and_its_sounds(settings: GridSettings, study: Path) -> None:
    lines = write_report(settings, grid(settings))
    assert any("the loss falls with the power" in line for line in lines)
    with (study / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [f"{row['size']}-{row['hours']}h-{row['seed']}" for row in rows] == NAMES
    for row in rows:
        assert float(row["nats_per_second_low"]) <= float(row["nats_per_second"]) <= float(row["nats_per_second_high"])
        assert float(row["flops"]) > 0
    with (study / "summary.csv").open() as file:
        assert sum(row["what"].startswith("nats a second: ") for row in csv.DictReader(file)) == 4
    written = (study / "report.html").read_text()
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)"', written))
    assert all(line in written for line in ("Compute", "the codec&#x27;s copy", NAMES[-1]))
    assert (study / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_another_study_is_not_mixed_in(settings: GridSettings, study: Path, tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match="holds a study with another epochs"):
        next(run(GridSettings(**{**vars(settings), "epochs": 2})))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(LlasaError, match="something other than a study"):
        next(run(GridSettings(**{**vars(settings), "out": str(tmp_path)})))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hours": [1]}, "two `sizes` and two numbers of `hours`"),
        ({"hours": [0, 1]}, "`hours` are above 0"),
        ({"sizes": ["small", "large"]}, "`sizes` gives each model a name"),
        ({"sizes": {"a/b": {}, "c": {}}}, "names a folder"),
        ({"checks": 0}, "`checks: 0` leaves nothing to do"),
        ({"lm": {"schedule": {"steps": 9}}}, "`schedule.steps` of a cell follows from the grid"),
    ],
)
def test_what_makes_no_grid_is_refused(settings: GridSettings, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LlasaError, match=re.escape(message)):
        check(GridSettings(**{**vars(settings), **changes}))


def test_a_key_that_no_recipe_has_is_refused(settings: GridSettings) -> None:
    with pytest.raises(LlasaError, match="`lm` of the study: unknown key `layers`"):
        recipe(GridSettings(**{**vars(settings), "lm": settings.lm | {"layers": 3}}), grid(settings)[0])


def test_the_shipped_recipe_has_three_sizes_that_grow(codec_folder: Path) -> None:
    from llasa.train.lm.memory import make_plan, read_config

    shipped = read_settings(GridSettings, Path(__file__).parents[2] / "recipes/tiny/study.yaml")
    check(shipped)
    shipped.lm["codec"] = "src/llasa/assets/tiny/codec"
    runs = grid(shipped)
    assert len(runs) == 9
    made = [recipe(shipped, Run(size, 1.0, 0)) for size in shipped.sizes]
    counts = [make_plan(one, read_config(one)).parameters for one in made]
    assert counts == sorted(counts)
    for one in made:
        assert all(head < one.model["num_attention_heads"] for _, head in one.losses.pointing_heads)
        assert all(layer < one.model["num_hidden_layers"] for layer, _ in one.losses.pointing_heads)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of a head that computes nothing, and nodes to be added."""
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    soon = {"health_check_period_ms": 500, "health_check_initial_delay_ms": 500}  # else a death is noticed late
    quiet = {"include_dashboard": False, "object_store_memory": 80 * 2**20}
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": soon, **quiet})
    try:
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


def test_on_a_cluster_a_cell_whose_node_dies_goes_on_elsewhere(
    settings: GridSettings, study: Path, cluster: Any, tmp_path: Path
) -> None:
    doomed = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    other = GridSettings(**{**vars(settings), "out": str(tmp_path / "other")})
    shutil.copytree(study, tmp_path / "other")
    for name in NAMES[:2]:
        shutil.rmtree(tmp_path / "other/cells" / name)
    names = []
    for _, one in run(other, ray=cluster.address):
        if one:
            names.append(one.name)
            if len(names) == 1:  # the other cell is on its way, on the only node there is
                cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
                cluster.remove_node(doomed, allow_graceful=False)
    assert names == ["small-0.03h-0", "small-0.01h-0"]
    again, before = (results(each)["small-0.01h-0"] for each in (other, settings))
    assert again["nats"] == pytest.approx(before["nats"], rel=1e-3)

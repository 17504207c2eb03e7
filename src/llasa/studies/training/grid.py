"""Runs a study of training: models of several sizes, each trained on several amounts of speech, all measured alike.

This module makes the grid and runs its cells one after another, in processes, or on a Ray cluster. `cell.py` trains and
measures a cell; `fit.py` evaluates the results. A cell's result is one JSON file, written when it is complete, and its
training has checkpoints, so a killed study continues where it was.

Every cell passes over its own speech the same number of times, so steps and compute grow with the hours.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llasa.data.origin import require_codes_of
from llasa.errors import LlasaError
from llasa.files import absolute, claimed, exists, is_folder
from llasa.measure.tables import write_text
from llasa.models.hub import find_model
from llasa.studies import workers
from llasa.studies.storage import open_folder, read
from llasa.studies.training.cell import RESULT, Cell, heard, run_cell
from llasa.studies.training.corpus import Amount, cut, hold_out, make_reader, place_of
from llasa.train.lm import memory as plan
from llasa.train.lm.settings import LMSettings
from llasa.train.settings import make_settings, merged

CELLS, CORPUS, COPIES = "cells", "corpus", "copies.json"
GIVEN = ("data.corpus", "out", "schedule.steps", "schedule.seed")  # what a cell's recipe has from the grid


@dataclass
class GridSettings:
    """`recipes/*/study.yaml`.

    `lm` is the recipe that all cells share, as `train lm` reads it, and `sizes` what makes each model different, by a
    name for it; `model` within both is put together. `corpus` is a folder of codes shards, of which each number of
    `hours` is taken from the front. With several `seeds` each cell is trained as often, and their mean is what counts.
    """

    corpus: str
    lm: dict[str, Any]
    sizes: dict[str, dict[str, Any]]
    hours: list[float]
    out: str
    # How often each cell passes over its speech. In several passes a large model learns a little speech by heart.
    epochs: float = 1
    # How often each is measured on the way; the best of these is what counts.
    checks: int = 8
    # Utterances of `lm.data.validation`: a quarter chooses the best check, the others are what the loss is measured on.
    held_out: int = 400
    # Of those, how many each model says.
    spoken: int = 20
    seeds: list[int] = field(default_factory=lambda: [0])


@dataclass(frozen=True)
class Run:
    """One cell's place in the grid."""

    size: str
    hours: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.size}-{self.hours:g}h-{self.seed}"


def check(settings: GridSettings) -> None:
    """Refuses what makes no grid, before anything is read.

    Raises:
        LlasaError: it says what to change.
    """
    if not isinstance(settings.sizes, dict) or not all(isinstance(part, dict) for part in settings.sizes.values()):
        raise LlasaError("`sizes` gives each model a name and what makes it different, such as `small: {model: {...}}`")
    for name in settings.sizes:
        if not re.fullmatch(r"[A-Za-z0-9_.]+", str(name)):
            raise LlasaError(f"the size {name!r} names a folder: use letters, digits, points")
    if len(settings.sizes) < 2 or len(set(settings.hours)) < 2:
        raise LlasaError("a grid has two `sizes` and two numbers of `hours` at least")
    for key in ("epochs", "checks", "held_out", "spoken"):
        if not getattr(settings, key) > 0:
            raise LlasaError(f"`{key}: {getattr(settings, key)}` leaves nothing to do: it is above 0")
    if not settings.seeds or min(settings.hours) <= 0:
        raise LlasaError("`hours` are above 0, and `seeds` has one at least")
    for values in (settings.lm, *settings.sizes.values()):
        if taken := [key for key in GIVEN if _has(values, key)]:
            raise LlasaError(f"`{taken[0]}` of a cell follows from the grid: leave it out of `lm` and `sizes`")


def _has(values: Any, key: str) -> bool:
    """Whether nested values have one by its dotted key."""
    for name in key.split("."):
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True


def grid(settings: GridSettings) -> list[Run]:
    """All cells, sorted by seed, then by size in the order of the recipe, then by hours."""
    return [
        Run(size, hours, seed)
        for seed in settings.seeds
        for size in settings.sizes
        for hours in sorted(set(map(float, settings.hours)))
    ]


def recipe(settings: GridSettings, run: Run, amount: Amount | None = None) -> LMSettings:
    """The recipe of one cell; without an amount of speech it has no end.

    Raises:
        LlasaError: a key that a recipe does not have, or one that it needs is missing.
    """
    folder = absolute(settings.out)
    values = merged(settings.lm, settings.sizes[run.size])
    for key in ("codec", "init"):
        values = values | _absolute(values, key)
    if isinstance(data := values.get("data"), dict):
        values["data"] = data | _absolute(data, "validation") | _absolute(data, "lexicon")
    given = {
        "data": {"corpus": {str(place_of(folder / CORPUS, run.hours)): 1}},
        "out": str(folder / CELLS / run.name / "lm"),
        "schedule": {"seed": run.seed},
    }
    cell = make_settings(LMSettings, merged(values, given), "`lm` of the study")
    if amount:
        schedule, tokens = cell.schedule, cell.data.tokens * (cell.data.rows or 1)
        schedule.steps = max(1, round(settings.epochs * amount.tokens / tokens))
        schedule.warmup = max(1, min(schedule.warmup, schedule.steps // 10))
    return cell


def _absolute(values: dict[str, Any], key: str) -> dict[str, str]:
    """That path in full if there is something there, for processes that run elsewhere."""
    path = values.get(key)
    return {key: str(absolute(path))} if path and exists(path) else {}


def run(settings: GridSettings, processes: int = 1, ray: str | None = None) -> Iterator[tuple[list[Run], Run | None]]:
    """Does the missing cells. Yields the cells that are done and the last of them, which is None for earlier runs.

    Without a cluster, each of several processes has one thread; one alone has all.

    Raises:
        LlasaError: the settings make no study, the folder is another study's or another run is writing into it, a cell
            fails, or there is no such cluster.
        KeyboardInterrupt: a cell was asked to stop.
    """
    check(settings)
    runs, out = grid(settings), Path(settings.out)
    some = recipe(settings, runs[0])
    for path in (settings.corpus, some.data.validation):
        if not is_folder(path):
            raise LlasaError(f"there is no folder {path} of codes shards: make it with `llasa data encode`")
    find_model(some.codec)
    require_codes_of([Path(settings.corpus), Path(some.data.validation)], some.codec)
    asked = {key: value for key, value in asdict(settings).items() if key != "out"}
    open_folder(out, asked, f"{CORPUS}/*")
    with claimed(out):
        amounts = cut(Path(settings.corpus), settings.hours, out / CORPUS, some)
        _copies(settings, some, out)
        cells = {one: _cell(settings, one, amounts[one.hours]) for one in runs}
        done = [one for one in runs if cells[one].is_done()]
        yield done, None
        # The longest first, so that no long cell is left for the end.
        todo = {one: cell for one, cell in cells.items() if one not in done}
        todo = dict(sorted(todo.items(), key=lambda item: -_work(item[1])))
        runs = list(todo)
        for place, finished in workers.share(run_cell, list(todo.values()), processes, ray):
            if not finished:
                raise KeyboardInterrupt
            done.append(runs[place])
            yield done, runs[place]


def _cell(settings: GridSettings, one: Run, amount: Amount) -> Cell:
    made = recipe(settings, one, amount)
    return Cell(Path(made.out).parent, made, settings.checks, settings.held_out, settings.spoken)


def _work(cell: Cell) -> float:
    made = plan.make_plan(cell.lm, plan.read_config(cell.lm))
    return made.flops * cell.lm.data.tokens * cell.lm.schedule.steps


def _copies(settings: GridSettings, some: LMSettings, out: Path) -> None:
    """Measures the codec's copies of the sentences to say, which no model over its codes is likely to surpass."""
    from llasa import audio
    from llasa.codec import load_codec
    from llasa.verifiers import RATE

    path = out / COPIES
    if exists(path):
        return
    codec, reader = load_codec(find_model(some.codec)), make_reader(some)
    found, texts = [], []
    unseen = hold_out(Path(some.data.validation), settings.held_out, reader, some.data.longest)
    for number, (row, other) in enumerate(unseen.to_say(settings.spoken, reader.rate)):
        own, reference = (codec.decode(np.asarray(one["codes"], np.uint16)) for one in (row, other))
        found.append(heard(row["text"], *(audio.resample(sound, codec.rate, RATE) for sound in (own, reference))))
        audio.save(out / f"copy-{number}.wav", own, codec.rate)
        texts.append(row["text"])
    if not found:
        raise LlasaError(f"no speaker in {some.data.validation} has two utterances to hold out: a study needs a pair")
    write_text(path, json.dumps({"spoken": found, "texts": texts}, ensure_ascii=False, indent=1) + "\n")


def read_results(settings: GridSettings, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The stored results of cells that are done, each with `size`, `hours` and `seed`.

    Raises:
        LlasaError: a file is damaged.
    """
    return [asdict(one) | {"name": one.name} | read(Path(settings.out) / CELLS / one.name / RESULT) for one in runs]

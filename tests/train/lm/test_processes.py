"""The language model on two processes over gloo: against one process with all their packs, and through kills."""

import shutil
import subprocess
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from curves import arguments, curve
from nested import lm_settings
from packed import union
from processes import start
from safetensors.torch import load_file

from llasa.errors import LlasaError
from llasa.text.lexicon import load_lexicon
from llasa.train import loop
from llasa.train.checkpoint import CHECKPOINT
from llasa.train.lm.data import Corpus, Reader, packs, sample_indices, samples
from llasa.train.lm.run import train
from llasa.train.lm.stage import Trainer, make_model
from llasa.train.schedule import make_optimisers, set_learning_rate

STEPS, RATE = 12, 50.0  # steps as in the recipe


@pytest.fixture(scope="module")
def whole(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, python: list[str]) -> Path:
    """A run on two processes that nothing interrupted, by the command of docs/train.md, but for the long imports."""
    out = tmp_path_factory.mktemp("whole") / "lm"
    llasa = str(Path(python[-1]).with_name("llasa"))
    launch = ["--standalone", "--nproc-per-node", "2", "--no-python", llasa, *arguments(recipe, out)]
    code = f"from torch.distributed.run import main; main({launch})"
    done = subprocess.run([*python, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
    assert done.stdout.count("validation") == 1
    assert done.stdout.count(f"lm {STEPS}/{STEPS}") == 1  # one process speaks
    return out


@pytest.fixture(scope="module")
def begun(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two processes that was killed after some steps."""
    out = tmp_path_factory.mktemp("begun") / "lm"
    workers = started(recipe, out, 3)
    for worker in workers:
        worker.kill()
    ended(workers, out, 3, -9)
    return out


def started(recipe: dict[str, Any], out: Path, until: int) -> list[BaseProcess]:
    """Two processes that have come to a step, and keep every step."""
    printed = out.with_suffix(".printed")
    workers = start(arguments(recipe, out, checkpoint_minutes=0.0), 2, printed)
    while f"lm {until}/" not in (printed.read_text() if printed.exists() else ""):
        assert all(worker.is_alive() for worker in workers), printed.read_text()
        time.sleep(0.02)
    return workers


def ended(workers: list[BaseProcess], out: Path, until: int, code: int) -> None:
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [code, code]
    assert until - 1 <= torch.load(out / CHECKPOINT, weights_only=True)["step"] < STEPS


def test_two_processes_learn_what_one_does_from_both_their_packs(recipe: dict[str, Any], whole: Path) -> None:
    settings = lm_settings(**recipe, out="")
    torch.manual_seed(settings.schedule.seed)
    model, vocabulary = make_model(settings)
    corpus, lexicon = (
        Corpus({Path(folder): 1 for folder in settings.data.corpus}),
        load_lexicon(Path(recipe["lexicon"])),
    )
    reader, pad = Reader(vocabulary, lexicon, RATE, settings.data.spell), vocabulary.tokenizer.pad_token_id
    streams = [
        packs(samples(corpus, reader, 0, 200, settings.data.joined, sample_indices([], p, 2)), 256, RATE, pad)
        for p in (0, 1)
    ]
    trainer = Trainer(model, settings).train()
    groups = make_optimisers(trainer, settings.schedule.lr, settings.schedule.muon_lr, decay=settings.schedule.decay)
    logged, differ = curve(whole), 0
    for step in range(STEPS):
        left, right = next(streams[0]), next(streams[1])
        differ += int((left.labels >= 0).sum()) != int((right.labels >= 0).sum())
        set_learning_rate(groups, step, settings.schedule)
        with torch.autocast("cpu", torch.bfloat16):
            terms = trainer(union(left, right))
        (terms["speech"] + settings.losses.pointing_weight * terms["pointing"]).backward()
        values = {key: float(value.detach()) for key, value in terms.items()}
        values["gradient"] = loop.clip(trainer.parameters(), 1.0)
        for optimiser in groups:
            optimiser.step()
            optimiser.zero_grad()
        assert logged[step + 1]["speech"] == pytest.approx(values["speech"], abs=1e-3)
        assert logged[step + 1]["pointing"] == pytest.approx(values["pointing"], abs=1e-3)
        assert logged[step + 1]["gradient"] == pytest.approx(values["gradient"], rel=0.02)
    assert differ > STEPS // 2  # or a plain mean over processes would do as well


def test_a_run_stopped_and_killed_ends_like_one_that_was_not(
    recipe: dict[str, Any], whole: Path, begun: Path, tmp_path: Path
) -> None:
    out, printed = tmp_path / "lm", tmp_path / "printed"
    shutil.copytree(begun, out)
    workers = started(recipe, out, 7)
    workers[1].terminate()  # one is asked, both stop
    ended(workers, out, 7, 0)
    workers = start(arguments(recipe, out), 2, printed)
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0], printed.read_text()
    assert curve(out) == curve(whole)
    ends = [torch.load(folder / CHECKPOINT, weights_only=True) for folder in (out, whole)]
    for part in ("model", "average"):
        assert all(torch.equal(ends[0][part][name], tensor) for name, tensor in ends[1][part].items())
    assert ends[0]["place"] == ends[1]["place"]
    shipped = [load_file(folder / "model/model.safetensors") for folder in (out, whole)]
    assert all(torch.equal(shipped[0][name], tensor) for name, tensor in shipped[1].items())


def test_one_process_goes_on_with_the_rows_of_two(
    recipe: dict[str, Any], whole: Path, begun: Path, tmp_path: Path
) -> None:
    out = tmp_path / "lm"
    shutil.copytree(begun, out)
    train(lm_settings(**recipe, out=str(out)))
    ours, theirs = curve(out), curve(whole)
    assert ours.keys() == theirs.keys()
    for step, values in theirs.items():
        for name in ("speech", "pointing"):
            assert ours[step][name] == pytest.approx(values[name], abs=1e-3)
    ends = [torch.load(folder / CHECKPOINT, weights_only=True)["place"] for folder in (out, whole)]
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("word", "environment"),
    [
        ("torchrun", {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}),
        ("FSDP", {"ACCELERATE_USE_FSDP": "true"}),
        ("rows", {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "2"}),
    ],
)
def test_what_a_launcher_cannot_have_says_so(
    word: str, environment: dict[str, str], recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LlasaError, match=word):
        train(lm_settings(**recipe, out=str(tmp_path / "lm")))
    assert not (tmp_path / "lm").exists()


def test_samples_longer_than_a_row_say_so(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match="longest"):
        train(lm_settings(**(recipe | {"tokens": 100}), out=str(tmp_path / "lm")))

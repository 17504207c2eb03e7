"""A model in parts (`shard: true`) over gloo: against a whole one, through kills, on fewer processes and on more."""

import math
import os
import resource
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from curves import arguments, curve
from nested import lm_settings
from processes import start
from safetensors.torch import load_file
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from transformers import LlamaForCausalLM

from llasa.errors import LlasaError
from llasa.train.lm.memory import make_plan, read_config, remedy
from llasa.train.lm.run import train
from llasa.train.settings import changed

STEPS = 7
# Three rows a step: two processes have one idle row in turns. Every checkpoint comes with a validation.
PARTS = {
    "factored": False, "muon_lr": 0, "pointing_heads": [], "rows": 3, "gradient_checkpointing": True, "shard": True,
    "checkpoint_minutes": 0.0, "steps": STEPS,
}  # fmt: skip


@pytest.fixture(scope="module")
def alone(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, a whole model."""
    out = tmp_path_factory.mktemp("alone") / "lm"
    train(lm_settings(**(recipe | PARTS | {"shard": False}), out=str(out)))
    return out


@pytest.fixture(scope="module")
def two(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes that nothing interrupted."""
    out = tmp_path_factory.mktemp("two") / "lm"
    go_on(recipe, out, 2)
    return out


@pytest.fixture(scope="module")
def begun(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes that were killed after two steps or so."""
    out = tmp_path_factory.mktemp("begun") / "lm"
    go_on(recipe, out, 2, 2)
    return out


def go_on(recipe: dict[str, Any], out: Path, count: int, until: int = STEPS, **changes: Any) -> list[str]:
    """Runs the command on so many processes; after a step before the last, all are killed. Returns what they said."""
    printed = out.with_suffix(f".{count}-{until}")
    workers = start(arguments(recipe | PARTS | changes, out), count, printed)
    if until < STEPS:
        while f"lm {until}/" not in (printed.read_text() if printed.exists() else ""):
            assert all(worker.is_alive() for worker in workers), printed.read_text()
            time.sleep(0.02)
        for worker in workers:
            worker.kill()
    for worker in workers:
        worker.join(120)
    expected = 0 if until == STEPS else -signal.SIGKILL
    assert [worker.exitcode for worker in workers] == [expected] * count, printed.read_text()
    return printed.read_text().splitlines()


def same(left: Path, right: Path) -> None:
    """Two curves within 1e-3 of each other, and two models."""
    ours, theirs = curve(left), curve(right)
    assert ours.keys() == theirs.keys()
    for step, values in theirs.items():
        assert ours[step]["speech"] == pytest.approx(values["speech"], abs=1e-3)
        assert ours[step]["gradient"] == pytest.approx(values["gradient"], rel=0.02)
    models = [load_file(out / "model/model.safetensors") for out in (left, right)]
    assert models[0].keys() == models[1].keys()
    for name, tensor in models[1].items():
        assert torch.allclose(models[0][name], tensor, atol=5e-3), name


def test_parts_learn_what_a_whole_does(alone: Path, two: Path) -> None:
    same(two, alone)
    assert [path.name for path in two.glob("*checkpoint*")] == [f"checkpoint-{STEPS:08d}"]
    assert len(list(two.glob("checkpoint-*/*.distcp"))) == 2
    LlamaForCausalLM.from_pretrained(two / "model")


def test_killed_at_any_step_it_ends_like_a_run_that_was_not(
    recipe: dict[str, Any], two: Path, begun: Path, tmp_path: Path
) -> None:
    shutil.copytree(begun, tmp_path / "lm")
    go_on(recipe, tmp_path / "lm", 2)
    assert curve(tmp_path / "lm") == curve(two)
    shipped = [load_file(out / "model/model.safetensors") for out in (tmp_path / "lm", two)]
    assert all(torch.equal(shipped[0][name], tensor) for name, tensor in shipped[1].items())


def test_another_number_of_processes_goes_on_along_the_same_curve(
    recipe: dict[str, Any], alone: Path, begun: Path, tmp_path: Path
) -> None:
    out = tmp_path / "lm"
    shutil.copytree(begun, out)
    newest = max(out.glob("checkpoint-*"))
    # What kills leave at worst: an older checkpoint, not yet removed, and half of a newer one.
    shutil.copytree(newest, out / "checkpoint-00000000")
    shutil.copytree(newest, out / ".checkpoint-00009999.tmp", ignore=shutil.ignore_patterns(".metadata"))
    for count, until in ((3, 4), (1, STEPS)):
        go_on(recipe, out, count, until)
    assert [path.name for path in out.glob("checkpoint-*")] == [f"checkpoint-{STEPS:08d}"]
    same(out, alone)
    assert not list(out.glob(".*.tmp"))


def test_a_full_disk_keeps_the_last_good_checkpoint(recipe: dict[str, Any], begun: Path, tmp_path: Path) -> None:
    out, printed = tmp_path / "lm", tmp_path / "printed"
    shutil.copytree(begun, out)
    (before,) = out.glob("checkpoint-*")
    sizes = {path.name: path.stat().st_size for path in before.iterdir()}
    model = (out / "model/model.safetensors").stat().st_size
    assert model + 4096 < min(sizes["__0_0.distcp"], sizes["__1_0.distcp"])
    workers = start(arguments(recipe | PARTS, out), 2, printed)
    for worker in workers:  # no file may be as large as its part of the checkpoint
        assert worker.pid is not None
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (model + 4096, resource.RLIM_INFINITY))
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [1, 1]
    said = [line for line in printed.read_text().splitlines() if "make room" in line]
    assert len(said) == 1, printed.read_text()
    assert "the last good checkpoint is kept" in said[0]
    assert "Traceback" not in printed.read_text()
    assert {path.name: path.stat().st_size for path in before.iterdir()} == sizes
    assert not list(out.glob(".*.tmp"))
    go_on(recipe, out, 2)  # there is room again


def test_a_loss_that_is_no_number_stops_all_and_one_says_so(recipe: dict[str, Any], tmp_path: Path) -> None:
    out, printed = tmp_path / "lm", tmp_path / "printed"
    workers = start(arguments(recipe | PARTS | {"lr": 1e30, "warmup": 4}, out), 2, printed)
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [1, 1]
    said = [line for line in printed.read_text().splitlines() if "the last good checkpoint is kept" in line]
    assert len(said) == 1, printed.read_text()
    step = int(said[0].split("at step ")[1].split(";")[0])
    (kept,) = out.glob("checkpoint-*")
    assert kept.name == f"checkpoint-{step - 1:08d}"


@pytest.mark.parametrize("sharded", [True, False])
def test_a_run_stays_whole_or_in_parts(sharded: bool, recipe: dict[str, Any], tmp_path: Path) -> None:
    settings = lm_settings(**(recipe | PARTS | {"steps": 2, "shard": not sharded}), out=str(tmp_path / "lm"))
    train(settings)
    with pytest.raises(LlasaError, match="set that, or another `out`"):
        train(lm_settings(**(recipe | PARTS | {"shard": sharded}), out=str(tmp_path / "lm")))


def test_a_damaged_checkpoint_says_so(recipe: dict[str, Any], tmp_path: Path) -> None:
    settings = lm_settings(**(recipe | PARTS | {"steps": 2}), out=str(tmp_path / "lm"))
    train(settings)
    (part,) = (tmp_path / "lm").glob("checkpoint-*/*.distcp")
    os.truncate(part, part.stat().st_size // 2)
    with pytest.raises(LlasaError, match=r"cannot resume from .*delete it"):
        train(settings)
    shutil.rmtree(part.parent)
    train(settings)


@pytest.mark.parametrize(
    "change", [{"factored": True}, {"output_groups": [2, 1]}, {"muon_lr": 1e-3}, {"pointing_heads": [[1, 1]]}]
)
def test_what_parts_cannot_have_is_refused(change: dict[str, Any], recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match="plain Llama with AdamW"):
        train(lm_settings(**(recipe | PARTS | change), out=str(tmp_path / "lm")))
    assert not (tmp_path / "lm").exists()


def test_a_plan_in_parts_is_what_a_process_has(recipe: dict[str, Any], two: Path) -> None:
    """Of weights, optimiser and average; a run that does not fit is told of `shard`, where that helps."""
    wanted = lm_settings(**(recipe | PARTS), out="")
    config = read_config(wanted)
    whole, half = make_plan(wanted, config), make_plan(wanted, config, processes=2)
    for name in ("weights", "gradients", "optimiser", "average"):
        assert half.memory[name] == whole.memory[name] // 2
    assert half.disk == whole.disk
    (folder,) = two.glob("checkpoint-*")
    metadata, held = FileSystemReader(folder).read_metadata(), Counter[str]()
    for index, stored in metadata.storage_data.items():
        tensor = metadata.state_dict_metadata[index.fqn]
        if isinstance(tensor, TensorStorageMetadata):
            held[stored.relative_path] += 4 * math.prod(tensor.chunks[index.index].sizes)
    kept = sum(half.memory[name] for name in ("weights", "optimiser", "average"))
    assert list(held.values()) == pytest.approx([kept, kept], rel=0.02)
    copies = lm_settings(**(recipe | PARTS | {"shard": False, "tokens": 256, "ema": 0}), out="")
    need = [make_plan(s, config, 8).peak for s in (copies, changed(copies, {"memory.shard": True}))]
    assert need[1] < need[0]
    assert remedy(copies, config, 8, False, need[1]).endswith("memory.shard: true")
    assert "shard" not in remedy(copies, config, 1, False, need[1])

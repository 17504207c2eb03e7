"""The loop that all stages share: killed at any step and continued, each ends as if it had never been stopped."""

import functools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nested import codec_settings, lm_settings, recogniser_settings, rl_settings
from safetensors.torch import load_file
from small_models import make_lm_folder
from train.codec_recipes import make_recipe
from train.recordings import make_recordings

from llasa.data.shards import AUDIO_SCHEMA, read_rows, write_shard
from llasa.errors import LlasaError
from llasa.train import loop
from llasa.train.checkpoint import load_checkpoint
from llasa.train.codec.run import train as train_codec
from llasa.train.lm.run import train as train_lm
from llasa.train.recogniser.run import train as train_recogniser
from llasa.train.rl.run import train as train_rl
from llasa.train.voice.finetune import FinetuneJob, finetune

STEPS = 5
STAGES = ("lm", "lm in parts", "codec", "recogniser", "finetune", "rl")
Train = Callable[[Path], Any]


@pytest.fixture(scope="module")
def stages(
    recipe: dict[str, Any], codec_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Train, str]]:
    """What trains each stage into a folder, and where in it the checkpoint is."""
    folder = tmp_path_factory.mktemp("stages")
    parts = {"factored": False, "muon_lr": 0, "pointing_heads": [], "shard": True}
    heard = make_recipe(folder / "codec") | {"steps": STEPS, "warmup": 2, "discriminators.at": 1, "perceptual.at": 3}
    voiced = folder / "voiced"
    voiced.mkdir()
    rows = [row | {"text": "ab"} for file in Path(heard["corpus"][0]).iterdir() for row in read_rows(file)]
    for i in range(3):  # several shards, and more lengths than a batch holds
        long = [row | {"seconds": row["seconds"] + 2.0 * (k % 2)} for k, row in enumerate(rows[i::3])]
        write_shard(voiced / f"{i}.parquet", long, AUDIO_SCHEMA)
    recognised = {
        "corpus": [str(voiced)], "validation": heard["validation"][0], "hidden": 32, "layers": 2, "tap": 1, "heads": 2,
        "intermediate": 32, "batch_seconds": 8.0, "steps": STEPS, "warmup": 2, "muon_lr": 1e-3,
    }  # fmt: skip
    base = make_lm_folder(folder / "base", codec_folder, initializer_range=0.02)
    job = FinetuneJob(str(make_recordings(folder / "my voice")), str(base), folder, steps=STEPS)
    lm = recipe | {"steps": STEPS}
    texts = folder / "texts.txt"
    texts.write_text("the cat\nshe sells\nthe river\n")
    spoken = {
        "model": str(base), "texts": str(texts), "held_out": 1, "prompts": 2, "group": 3, "passes": 2, "lora": 2,
        "sound": False, "verify": "content", "every": 3, "kl": 0.1, "steps": STEPS, "lr": 1e-3, "ema": 0.8,
    }  # fmt: skip
    return {
        "lm": (lambda out: train_lm(lm_settings(**lm, out=str(out))), ""),
        "lm in parts": (lambda out: train_lm(lm_settings(**(lm | parts), out=str(out))), ""),
        "codec": (lambda out: train_codec(codec_settings(**heard, out=str(out))), ""),
        "recogniser": (lambda out: train_recogniser(recogniser_settings(**recognised, out=str(out))), ""),
        "rl": (lambda out: train_rl(rl_settings(**spoken, out=str(out))), ""),
        "finetune": (lambda out: finetune(replace(job, out=out), lambda line: None), "training"),
    }


class Killed(BaseException):
    """Nothing that a training catches."""


@pytest.fixture(scope="module")
def begun(
    stages: dict[str, tuple[Train, str]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Path], Path]:
    """Copies a stage's run that died after two steps."""

    @functools.cache
    def begin(stage: str) -> Path:
        out = tmp_path_factory.mktemp("begun") / "out"
        torch.set_num_threads(1)
        killed(2, lambda: stages[stage][0](out))
        return out

    return lambda stage, out: shutil.copytree(begin(stage), out, symlinks=True)


def killed(at: int, go: Callable[[], object]) -> None:
    """Runs with a checkpoint after every step, and dies in the step after `at`."""
    clock = loop.Clock

    class Often(clock):  # type: ignore[misc, valid-type]
        count = 0

        def due(self) -> bool:
            self.count += 1
            if self.count > at:
                raise Killed
            return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Clock", Often)
        with pytest.raises(Killed):
            go()


def weights(out: Path) -> dict[str, torch.Tensor]:
    """All tensors that a run leaves, by file and name."""
    files = [path for path in out.rglob("*.safetensors") if ".tmp" not in str(path)]
    return {f"{file.relative_to(out)} {name}": tensor for file in files for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_step_and_continued_it_is_the_run_that_was_not(
    stage: str, stages: dict[str, tuple[Train, str]], begun: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    train, within = stages[stage]
    torch.set_num_threads(1)
    train(tmp_path / "whole")
    begun(stage, tmp_path / "parts")
    torch.manual_seed(1)  # another start of the process lies behind each part
    np.random.seed(1)
    killed(1, lambda: train(tmp_path / "parts"))
    train(tmp_path / "parts")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole
    (tmp_path / "file").touch()  # some libraries write for the owner alone, and not as the umask says
    modes = {path.stat().st_mode for path in (tmp_path / "whole").rglob("*.safetensors")}
    assert modes == {(tmp_path / "file").stat().st_mode}
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    logs = [(tmp_path / name / within / "log.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    losses = [[line.partition(', "realtime"')[0].partition(', "tokens_per')[0] for line in log] for log in logs]
    # Each checkpoint on the way came with a validation, which has a row of its own.
    assert [line for line in losses[0] if "gradient" in line] == [line for line in losses[1] if "gradient" in line]
    if stage not in ("finetune", "lm in parts", "rl"):
        ends = [load_checkpoint(tmp_path / name) for name in ("whole", "parts")]
        assert ends[0] is not None
        assert ends[1] is not None
        for part in ("model", "average"):
            assert all(torch.equal(ends[1][part][name], tensor) for name, tensor in ends[0][part].items())


class Trap:
    """Unpickled without care, it makes the file that it names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("stage", STAGES)
def test_no_code_in_a_checkpoint_runs(
    stage: str, stages: dict[str, tuple[Train, str]], begun: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    import pickle

    train, within = stages[stage]
    out, trap = tmp_path / "out", Trap(tmp_path / "ran")
    begun(stage, out)
    (path,) = [path for path in (out / within).glob("checkpoint*") if path.name[0] != "."]
    if path.is_dir():
        kept = path / ".metadata"
        kept.write_bytes(pickle.dumps(trap))
        pickle.loads(kept.read_bytes())
    else:
        torch.save(torch.load(path, weights_only=True) | {"step": trap}, path)
        torch.load(path, weights_only=False)
    assert trap.path.exists()  # the trap does work
    trap.path.unlink()
    with pytest.raises(LlasaError, match=r"delete it to start (this stage )?over") as caught:
        train(out)
    assert "\n" not in str(caught.value)
    assert not trap.path.exists()
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_no_code_in_a_part_of_a_checkpoint_runs(
    stages: dict[str, tuple[Train, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the parts themselves, where plain values are stored as pickles of their own."""
    train, _ = stages["lm in parts"]
    trap = Trap(tmp_path / "ran")
    with monkeypatch.context() as patch:
        patch.setattr(loop.parts, "json", SimpleNamespace(dumps=lambda run: trap))
        killed(2, lambda: train(tmp_path / "out"))
    with pytest.raises(LlasaError, match=r"delete it to start (this stage )?over"):
        train(tmp_path / "out")
    assert not trap.path.exists()


def test_a_recognisers_probes_run_no_code(tmp_path: Path) -> None:
    from llasa.train.codec.stage import load_phones

    torch.save({"phone.weight": Trap(tmp_path / "ran")}, tmp_path / "probes.pt")
    with pytest.raises(LlasaError, match=r"probes\.pt is damaged"):
        load_phones(codec_settings(semantic_encoder=str(tmp_path)), 32)
    assert not (tmp_path / "ran").exists()


def test_signals_and_threads_are_given_back(stages: dict[str, tuple[Train, str]], tmp_path: Path) -> None:
    import signal
    import threading

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stages["lm"][0](tmp_path / "lm")
    threads = set(threading.enumerate())
    stages["lm"][0](tmp_path / "again")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert set(threading.enumerate()) <= threads

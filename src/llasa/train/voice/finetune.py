"""Fine-tunes a model to a new voice: encodes recordings, trains a LoRA or all weights, and leaves a model's folder.

The folder is a working model from the start: the base with the new voice as its default. Whenever the loss on held-out
clips is the lowest so far, and only then, its weights are replaced. `training/` in it holds codes, checkpoint and logs,
from which the same command resumes.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llasa.data.report import write_json
from llasa.errors import LlasaError, need_extra
from llasa.files import absolute, claimed, exists, is_file, is_folder
from llasa.models.defaults import check_device
from llasa.models.folder import fingerprint, read_json
from llasa.train import loop
from llasa.train.checkpoint import CHECKPOINT, saving
from llasa.train.lm.data import Reader
from llasa.train.voice.data import (
    encode_recordings,
    find_recordings,
    make_voice,
    read_base,
    read_clips,
)
from llasa.train.voice.memory import make_plan
from llasa.train.voice.stage import RANK, FinetuneLog, FinetuneStage
from llasa.voice import check_name

Bar = Callable[[str], AbstractContextManager[Callable[[float, float, float], None]]]
JOB, RESULT = "job.json", "result.json"


@dataclass(frozen=True)
class FinetuneJob:
    """The settings of a fine-tuning.

    Attributes:
        data: recordings with their texts, as `llasa data encode` takes them.
        model: the base: an embedded name, a folder or a hub id.
        out: the folder to write.
        full: whether to train all weights instead of a LoRA.
        name: the voice's name; by default the name of the data.
        layout: the layout of the data, if it cannot be recognised.
        steps: the most steps, instead of a number that suits the data.
        device: a torch device, or None for the best one.
    """

    data: str
    model: str
    out: Path
    full: bool = False
    name: str | None = None
    layout: str | None = None
    steps: int | None = None
    device: str | None = None

    @property
    def voice(self) -> str:
        return check_name(self.name or name_of(self.data))


@dataclass(frozen=True)
class Result:
    """The loss a speech token on the held-out clips, before training and at its best, and the step of the best."""

    before: float
    after: float
    step: int
    steps: int


@contextmanager
def _no_bar(label: str) -> Iterator[Callable[[float, float, float], None]]:
    yield lambda *_: None


def name_of(data: str) -> str:
    """A name for recordings, in characters that a voice's name may have."""
    name = re.sub(r"[^\w .-]", "-", absolute(data).stem if os.path.exists(data) else data.rsplit("/")[-1])
    return name.lstrip("-. ").rstrip()[:64] or "voice"


def finetune(job: FinetuneJob, show: Callable[[str], None], bar: Bar = _no_bar) -> Result | None:
    """Trains or resumes training. Finished work is not repeated.

    Args:
        show: called with texts for the user: the report of the encoding, the plan, the progress.
        bar: makes a progress bar of the encoding from a label; it is given the number of finished shards and of all,
            and the seconds of audio encoded.

    Returns:
        The result; None if a signal stopped the training before its end.

    Raises:
        LlasaError: the recordings, the model or the folder cannot be used, the model does not fit into memory, the disk
            is full, or the loss is NaN.
    """
    need_extra("train", "peft", "pyarrow", "tensorboard", "datasets")
    name, device = job.voice, torch.device(check_device(job.device))
    if job.steps is not None and job.steps < 1:
        raise LlasaError(f"--steps is {job.steps}: it must be 1 or more")
    source, base = find_recordings(job.data, job.layout), read_base(job.model)
    training = job.out / "training"
    asked = {
        "data": f"{source.layout} {source.digest}", "model": fingerprint(base.folder), "codec": fingerprint(base.codec),
        "full": job.full, "name": name, "steps": job.steps,
    }  # fmt: skip
    _check_folder(job.out, asked)
    with claimed(job.out):
        with saving(training):
            training.mkdir(exist_ok=True)
        if not exists(training / JOB):
            write_json(training / JOB, asked)
        if exists(training / RESULT):
            return Result(**read_json(training / RESULT))
        with bar("encoding") as advance:
            report = encode_recordings(source, base, training / "codes", str(device), advance)
        show(report.table())
        clips = read_clips(training / "codes", job.data, source.layout, base, name)
        plan = make_plan(
            clips, Reader(base.vocabulary, base.lexicon, base.rate), base, job.full, job.steps, device, RANK
        )
        show(plan.text)
        stage = FinetuneStage(job.out, job.full, name, base, clips, plan, device)
        if not is_folder(job.out / "voices"):
            voice = make_voice(source, clips, base, name, str(asked["codec"]))
            voice.save(job.out / "voices" / f"{name}.safetensors")
        ended = loop.run(stage, stage.settings, log=functools.partial(FinetuneLog, show=show, plan=plan))
        if not ended:
            return None
        found = stage.found
        result = Result(found["before"], found["best"], found["best_step"], found["step"])
        write_json(training / RESULT, dataclasses.asdict(result))
        (training / CHECKPOINT).unlink(missing_ok=True)
        return result


def _check_folder(out: Path, asked: dict[str, Any]) -> None:
    """Refuses a folder that holds other files or was begun by another job.

    Raises:
        LlasaError: it does or was.
    """
    if is_file(out):
        raise LlasaError(f"{out} is a file: name a folder by --out")
    path = out / "training" / JOB
    if exists(path):
        begun = read_json(path)
        if differs := [key for key, value in asked.items() if begun.get(key) != value]:
            raise LlasaError(f"{out} was begun with other {' and '.join(differs)}: name another --out, or delete it")
    elif is_folder(out) and any(entry.name not in (".lock", "training") for entry in out.iterdir()):
        raise LlasaError(f"{out} holds other files: name a new folder by --out")

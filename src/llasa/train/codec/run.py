"""Trains the codec as a stage of the shared loop, on one process or several."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Xcodec2Model

from llasa.codec.convert import find
from llasa.codec.features import RATE
from llasa.data.shards import shard_files
from llasa.errors import LlasaError
from llasa.files import claimed, exists
from llasa.models.hub import OFFICIAL, is_non_commercial
from llasa.train import loop
from llasa.train.checkpoint import CHECKPOINT, replacing
from llasa.train.codec.data import Batch, Crops
from llasa.train.codec.encoders import Listener
from llasa.train.codec.memory import require_memory
from llasa.train.codec.quantising import fit_scales
from llasa.train.codec.settings import CodecSettings
from llasa.train.codec.stage import Trainer, backward
from llasa.train.codec.validation import validate
from llasa.train.processes import is_main, make_accelerator, together
from llasa.train.schedule import make_optimisers, scheduled_optimisers

FIRST_SECONDS = 100  # seconds of audio to fit a fresh codec's scales on
CARD = """---
license: cc-by-nc-4.0
base_model: {0}
---
Trained on from {0}, whose weights are licensed CC BY-NC 4.0. So are these: no commercial use.
"""


def train(settings: CodecSettings) -> None:
    """Trains or resumes training in `settings.out`; leaves the codec in `out/model`, in transformers' layout.

    It runs on one process, or on several under `torchrun` or `accelerate launch`, which divide the crops of every
    batch. A run that was stopped or killed and then resumed ends like one that was not.

    Raises:
        LlasaError: the settings or the launcher ask for something impossible, another run is writing into the folder,
            the disk is full, the corpus is damaged, or a loss is NaN.
    """
    settings.check()
    accelerator = make_accelerator()
    for frames, count in settings.data.shapes:
        if count % accelerator.num_processes:
            raise LlasaError(
                f"{accelerator.num_processes} processes cannot divide the batches of `data.shapes: [[{frames}, "
                f"{count}]]` equally: change the number of processes or of crops"
            )
    with together():
        require_memory(settings, accelerator.device, accelerator.num_processes)
    with contextlib.ExitStack() as lock:
        with together():
            if is_main():
                lock.enter_context(claimed(Path(settings.out)))
        with together():
            stage = CodecStage(settings, accelerator)
        loop.run(stage, settings)
        accelerator.wait_for_everyone()
        accelerator.end_training()


class CodecStage(loop.Stage):
    """The codec as a stage of the training.

    Attributes:
        trainer: the codec, its semantic decoder and its discriminators.
        learner: the parts of the trainer that the loop trains: all but the discriminators.
    """

    name = "codec"
    fixed = ("data.corpus", "data.shapes", "schedule.seed")  # these decide the order of the crops

    def __init__(self, settings: CodecSettings, accelerator: Any) -> None:
        self.settings, self.accelerator, self.device = settings, accelerator, accelerator.device
        data, schedule, perceptual = settings.data, settings.schedule, settings.perceptual
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32 for matrices that are not in bfloat16
        torch.manual_seed(schedule.seed)
        self.crops = Crops(data.corpus, data.shapes, schedule.seed, data.readers, settings.learns_pitch)
        for folder in data.validation:
            shard_files(Path(folder))  # fails now rather than at the first checkpoint
        self.trainer = Trainer(settings).to(self.device).train()
        self.card = CARD.format(settings.start) if _is_non_commercial(settings) else ""
        if settings.start is None and not exists(Path(settings.out) / CHECKPOINT):
            _fit(self.trainer, self.crops, self.device)
        self.listener: Listener | None = None
        if perceptual.model and perceptual.at < schedule.steps:
            first, last = perceptual.layers
            self.listener = Listener(perceptual.model, first, last, self.device)
        self.learner = nn.ModuleDict({"codec": self.trainer.codec, "semantic": self.trainer.semantic_decoder})
        rate, betas = schedule.lr * settings.discriminators.lr_share, (schedule.betas[0], schedule.betas[1])
        self.discriminating = make_optimisers(self.trainer.discriminators, rate, betas=betas)
        self.optimisers = [*scheduled_optimisers(self.learner, schedule), *self.discriminating]
        if settings.compile:
            self.trainer.codec.acoustic_encoder.compile()

    def batches(self, step: int, place: Any) -> Iterator[Batch]:
        return self.crops.batches(step, place, self.accelerator.process_index, self.accelerator.num_processes)

    def place(self, batch: Batch) -> Any:
        return batch.places

    def seconds(self, batch: Batch) -> float:
        return batch.wave.shape[-1] / RATE * len(batch.wave)

    def step(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        return backward(
            self.trainer,
            self.learner,
            batch.wave.to(self.device),
            batch.features.to(self.device),
            batch.pitch.to(self.device),
            self.discriminating if step >= self.settings.discriminators.at else [],
            self.listener if step >= self.settings.perceptual.at else None,
        )

    def validate(self, step: int) -> dict[str, float]:
        folders = [Path(path) for path in self.settings.data.validation]
        figures = validate(self.trainer.codec, folders, Path(self.settings.out), step)
        self.trainer.train()
        return figures

    def save(self) -> None:
        save_model(self.trainer.codec, Path(self.settings.out) / "model", self.card)

    def state_dict(self) -> dict[str, Any]:
        return self.trainer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state)


def _fit(trainer: Trainer, crops: Crops, device: torch.device) -> None:
    """Fits a fresh codec's scales on the first crops of one shape, which are the same in every process."""
    waves: list[torch.Tensor] = []
    features: list[torch.Tensor] = []
    for batch in crops.batches(0):
        if not waves or batch.wave.shape == waves[0].shape:
            waves.append(batch.wave)
            features.append(batch.features)
        if len(waves) == 8 or sum(wave.numel() for wave in waves) >= FIRST_SECONDS * RATE:
            break
    most = max(1, FIRST_SECONDS * RATE // waves[0].shape[-1])
    fit_scales(trainer.codec, torch.cat(waves)[:most].to(device), torch.cat(features)[:most].to(device))
    trainer.train()


def _is_non_commercial(settings: CodecSettings) -> bool:
    name = settings.start or ""
    return bool(name) and (name.startswith(OFFICIAL) or is_non_commercial(find(name)))


def save_model(model: Xcodec2Model, out: Path, card: str = "") -> None:
    """Writes the codec's folder, which replaces an older one only as a whole; `card` becomes its README.md, if any.

    Raises:
        LlasaError: the disk is full.
    """
    with replacing(out) as fresh:
        model.save_pretrained(fresh)
        if card:
            (fresh / "README.md").write_text(card, encoding="utf-8")

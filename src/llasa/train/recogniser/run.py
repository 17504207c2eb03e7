"""Trains the recogniser as a stage of the shared loop."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llasa.codec import load_codec
from llasa.data.shards import read_rows, shard_files
from llasa.errors import LlasaError
from llasa.files import claimed, whole
from llasa.train import loop
from llasa.train.checkpoint import replacing
from llasa.train.recogniser.data import Batch, batches
from llasa.train.recogniser.settings import RecogniserSettings
from llasa.train.recogniser.stage import Probes, collate, losses, make_model, validate
from llasa.train.schedule import scheduled_optimisers

HELD_OUT = 100  # rows


def train(settings: RecogniserSettings) -> None:
    """Trains or resumes training in `settings.out`; leaves the recogniser in `out/model`.

    Raises:
        LlasaError: the settings ask for something impossible, another run is writing into the folder, the disk is full,
            or a loss is NaN.
    """
    settings.check()
    with claimed(Path(settings.out)):
        loop.run(RecogniserStage(settings), settings)


class RecogniserStage(loop.Stage):
    """The recogniser as a stage of the training, in one process.

    Attributes:
        learner: the model and the probes.
    """

    name = "recogniser"
    fixed = (
        "data.corpus",
        "data.batch_seconds",
        "data.longest",
        "schedule.seed",
    )  # these decide the order of the rows

    def __init__(self, settings: RecogniserSettings) -> None:
        self.settings, data = settings, settings.data
        torch.manual_seed(settings.schedule.seed)
        self.model = make_model(settings).train()
        if settings.losses.tap > (layers := self.model.config.num_hidden_layers):
            raise LlasaError(f"`losses.tap` is {settings.losses.tap}: {settings.start} has only {layers} layers")
        self.codec = load_codec(data.codec) if data.codec else None
        self.probes = Probes(self.model.config.hidden_size)
        self.learner = nn.ModuleDict({"model": self.model, "probes": self.probes})
        self.optimisers = scheduled_optimisers(self.learner, settings.schedule)
        self.files = [file for folder in data.corpus for file in shard_files(Path(folder))]
        self.held_out = [row for file in shard_files(Path(data.validation))[:1] for row in read_rows(file)][:HELD_OUT]

    def batches(self, step: int, place: Any) -> Iterator[Batch]:
        data = self.settings.data
        return batches(self.files, self.settings.schedule.seed, data.batch_seconds, data.longest, place)

    def place(self, batch: Batch) -> Any:
        return batch.place

    def seconds(self, batch: Batch) -> float:
        return sum(row["seconds"] for row in batch.rows)

    def step(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        loss, terms = losses(self.model, self.probes, collate(batch.rows, self.codec), self.settings)
        loss.backward()
        return terms

    def validate(self, step: int) -> dict[str, float]:
        return validate(self.model, self.probes, self.held_out, self.settings.losses.tap, self.codec)

    def save(self) -> None:
        out = Path(self.settings.out)
        with replacing(out / "model") as fresh:
            self.model.save_pretrained(fresh)
        with whole(out / "probes.pt") as path:
            torch.save(self.probes.state_dict(), path)

    def state_dict(self) -> dict[str, Any]:
        return self.learner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state)

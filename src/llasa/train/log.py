"""Logs a stage's training: to `log.jsonl`, to TensorBoard and to the terminal."""

import json
import math
import os
import re
import time
from pathlib import Path

from llasa.errors import LlasaError
from llasa.files import exists
from llasa.train.checkpoint import saving

LOWER = "lower `schedule.lr` in the recipe and start the same command again"


class Log:
    """Writes the means of the losses at regular intervals, to TensorBoard, `log.jsonl` and the terminal.

    Attributes:
        sums: the losses since the last row. The checkpoint holds them, so a resumed run writes the same rows.
    """

    def __init__(self, folder: Path, name: str, total: int, every: int = 20, after: int | None = None) -> None:
        """
        Args:
            name: the stage's.
            total: steps of the run.
            every: steps between two rows.
            after: the checkpoint's step; rows of later steps are deleted, since those steps will be done again.
        """
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self.name, self.total = folder, name, total
        self.every = max(1, min(every, total // 10))
        with saving(folder):
            if after is not None:
                forget(folder / "log.jsonl", after)
            self.board = SummaryWriter(folder / "tensorboard", purge_step=None if after is None else after + 1)
        self.sums: dict[str, list[float]] = {}
        self.mark, self.seconds = time.perf_counter(), 0.0

    def step(self, step: int, audio_seconds: float, losses: dict[str, float]) -> None:
        """Adds one step's losses. When a row is due, writes their means and the hours of audio trained on per hour."""
        self.add(audio_seconds, losses)
        if step % self.every and step != self.total:
            return
        now = time.perf_counter()
        means, speed = self.means(), self.seconds / (now - self.mark)
        left = (self.total - step) * (now - self.mark) / self.every / 60
        self.write(step, means | {"realtime": speed})
        shown = "  ".join(f"{key} {value:.4g}" for key, value in means.items())
        print(f"{self.name} {step}/{self.total}  {shown}  {speed:.0f}x real time  {left:.0f} min left", flush=True)
        self.sums, self.mark, self.seconds = {}, now, 0.0

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """Writes a validation's results at once."""
        self.write(step, figures)
        print("validation", "  ".join(f"{key} {value:.4g}" for key, value in figures.items()), flush=True)

    def add(self, audio_seconds: float, losses: dict[str, float]) -> None:
        for key, value in losses.items():
            self.sums.setdefault(key, []).append(value)
        self.seconds += audio_seconds

    def means(self) -> dict[str, float]:
        """The means of the losses since the last row."""
        return {key: sum(values) / len(values) for key, values in self.sums.items()}

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes one row of figures at once."""
        with saving(self.folder):
            for key, value in values.items():
                self.board.add_scalar(f"{self.name}/{key}", value, step)
            with (self.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps({"step": step} | {k: round(v, 5) for k, v in values.items()}) + "\n")

    def close(self) -> None:
        """Ends TensorBoard's thread and closes its file."""
        with saving(self.folder):
            self.board.close()


def check_finite(name: str, step: int, losses: dict[str, float], remedy: str = LOWER) -> None:
    """Ends a run that has diverged, before it can overwrite its last good checkpoint.

    Args:
        remedy: advice that ends the message.

    Raises:
        LlasaError: a loss is NaN or infinite.
    """
    for key, value in losses.items():
        if not math.isfinite(value):
            raise LlasaError(f"{name}: {key} is {value} at step {step}; the last good checkpoint is kept: {remedy}")


def forget(path: Path, after: int) -> None:
    """Deletes a log's rows of steps later than `after`, and a last row that a kill left incomplete."""
    if exists(path):
        rows = [(re.match(r'\{"step": (\d+).*\}$', line), line) for line in path.read_text().splitlines()]
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text("".join(f"{line}\n" for match, line in rows if match and int(match[1]) <= after))
        os.replace(temporary, path)

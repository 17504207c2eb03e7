"""Trains a model with verifiers as the reward, as a stage of the shared loop, on one process or several."""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path

from llasa.errors import LlasaError
from llasa.files import claimed
from llasa.train import loop
from llasa.train.log import Log
from llasa.train.processes import is_main, make_accelerator, together
from llasa.train.rl.settings import RLSettings
from llasa.train.rl.stage import RLStage


def train(settings: RLSettings, after: Callable[[int, RLStage], None] | None = None) -> None:
    """Trains or resumes training in `settings.out`; leaves the model's folder, or the LoRA's, in `out/model`.

    A step has the same prompts and seeds on any number of processes.

    Args:
        after: called after every step, by every process.

    Raises:
        LlasaError: the settings or the launcher ask for something impossible, another run is writing into the folder,
            the disk is full, a verifier fails in all groups of a step, or the loss is NaN.
    """
    settings.check()
    accelerator = make_accelerator()
    processes = accelerator.num_processes
    if settings.rollouts.prompts % processes:
        raise LlasaError(
            f"`rollouts.prompts` is {settings.rollouts.prompts}: it must be a multiple of the {processes} processes"
        )
    with contextlib.ExitStack() as lock:
        with together():
            if is_main():
                lock.enter_context(claimed(Path(settings.out)))
        with together():
            stage = RLStage(settings, accelerator.device, processes)
        follow = (lambda step, average: after(step, stage)) if after else None
        loop.run(stage, settings, follow, functools.partial(Log, every=1))  # a step takes long
        if is_main() and stage.skipped:
            reasons = {"constant": "whose samples were all worth the same", "failed": "for which a verifier failed"}
            told = ", ".join(f"{count} {reasons[name]}" for name, count in stage.skipped.items())
            print(f"skipped groups: {told}", flush=True)
        accelerator.wait_for_everyone()
        accelerator.end_training()

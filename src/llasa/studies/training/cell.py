"""One cell of a study of training: a model of one size, trained on one amount of speech and then measured.

The schedule of its learning rate ends with its own steps. At equal distances it is checked on some held-out utterances,
and the weights of the best check are kept, because a model with too little to learn from gets worse towards its end.
These weights are measured on other utterances: the loss, the words that PocketSphinx understands, and the similarity to
the reference by Resemblyzer. Checks, checkpoint and result are kept, so a cell can continue after a stop.
"""

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM

from llasa import audio
from llasa.errors import NoSound
from llasa.files import exists, is_folder
from llasa.measure.independent import LISTENERS
from llasa.measure.tables import write_text
from llasa.models.defaults import check_device, half_precision
from llasa.models.folder import hush_transformers
from llasa.studies.training.corpus import HeldOut, hold_out, make_reader, packed
from llasa.train.checkpoint import CHECKPOINT
from llasa.train.lm.data import Corpus, Pack, Reader, samples
from llasa.train.lm.memory import make_plan, read_config
from llasa.train.lm.run import move, train
from llasa.train.lm.settings import LMSettings
from llasa.train.lm.stage import Trainer, save_model
from llasa.train.schedule import Average
from llasa.train.settings import changed
from llasa.tts import Llasa
from llasa.verifiers import RATE
from llasa.vocabulary import Vocabulary
from llasa.voice import Voice

RESULT, CHECKS, LOG, BEST = "result.json", "checks.json", "train.log", "best"
KEPT = 3  # how many sounds are kept
LENGTHS = 500  # samples from which the mean length of attention is estimated


@dataclass(frozen=True)
class Cell:
    """A cell: its folder, the recipe of its model, and how it is checked and measured."""

    folder: Path
    lm: LMSettings
    checks: int
    held_out: int
    spoken: int

    def is_done(self) -> bool:
        return exists(self.folder / RESULT)


def run_cell(cell: Cell) -> bool:
    """Trains and measures a cell, or continues it. Returns False if it was asked to stop during the training.

    Raises:
        LlasaError: as `train.lm.run.train`.
    """
    if cell.is_done():
        return True
    hush_transformers()
    cell.folder.mkdir(parents=True, exist_ok=True)
    reader = make_reader(cell.lm)
    unseen = hold_out(Path(cell.lm.data.validation), cell.held_out, reader, cell.lm.data.longest)
    checks = Checks(cell, list(packed(unseen.choosing, reader, cell.lm.data.tokens)))
    with (cell.folder / LOG).open("a") as log, contextlib.redirect_stdout(log):
        train(cell.lm, checks.after)
    if cell.lm.schedule.steps not in checks.found:
        return False
    found = checks.facts() | _compute(cell.lm, reader) | measure(cell, reader, unseen)
    write_text(cell.folder / RESULT, json.dumps(found, indent=1) + "\n")
    # The best check's weights are kept; to go on from here there is nothing.
    for name in (CHECKPOINT, "model"):
        path = Path(cell.lm.out) / name
        shutil.rmtree(path) if is_folder(path) else path.unlink(missing_ok=True)
    return True


class Checks:
    """Checks a training at some of its steps, and keeps the weights if they are the best so far.

    Attributes:
        found: by step, the mean loss a token, and the seconds and number of the steps before it.
    """

    def __init__(self, cell: Cell, held_out: Sequence[Pack]) -> None:
        self.folder, self.settings, self.held_out = cell.folder, cell.lm, held_out
        self.places = {max(1, cell.lm.schedule.steps * (k + 1) // cell.checks) for k in range(cell.checks)}
        path = self.folder / CHECKS
        known: dict[str, dict[str, float]] = json.loads(path.read_text()) if exists(path) else {}
        self.found = {int(step): check for step, check in known.items()}
        self.began: float | None = None
        self.seconds, self.steps = 0.0, 0

    @property
    def best(self) -> int:
        return min(self.found, key=lambda step: (self.found[step]["loss"], step))

    def after(self, step: int, trainer: Trainer, vocabulary: Vocabulary, average: Average) -> None:
        """Called by the training after every step. A check that a killed run made is repeated, with the same result."""
        now = time.perf_counter()
        if self.began is not None:
            self.seconds, self.steps = self.seconds + now - self.began, self.steps + 1
        if step in self.places:
            with average.swapped(trainer):
                losses = token_losses(trainer, self.held_out)
                loss = float(np.mean(np.concatenate([part for pack in losses for part in pack])))
                self.found[step] = {"loss": loss, "seconds": self.seconds, "steps": self.steps}
                if self.best == step:
                    save_model(trainer.model, vocabulary, self.settings, self.folder / BEST)
            print(f"check {step}: {loss:.4f}", flush=True)
            write_text(self.folder / CHECKS, json.dumps(self.found, indent=1) + "\n")
            self.seconds, self.steps = 0.0, 0
        self.began = time.perf_counter()

    def facts(self) -> dict[str, Any]:
        """The results of the training. Its seconds are those of a step times the steps, however often it stopped."""
        steps = sum(check["steps"] for check in self.found.values())
        seconds = sum(check["seconds"] for check in self.found.values()) / max(1, steps)
        return {
            "steps": self.settings.schedule.steps,
            "seconds": seconds * self.settings.schedule.steps,
            "best": self.best,
            "checks": {step: check["loss"] for step, check in sorted(self.found.items())},
        }


@torch.no_grad()
def token_losses(trainer: Trainer, held_out: Sequence[Pack]) -> list[list[np.ndarray]]:
    """For every utterance in every pack, the loss of each token to predict, in nats: (n,) float32."""
    device = next(trainer.parameters()).device
    was = trainer.training
    trainer.eval()
    result = []
    with half_precision(device.type):
        for pack in held_out:
            pack = move(pack, device)
            hidden = trainer.hidden(pack)
            wanted = pack.labels >= 0
            losses = torch.zeros(len(wanted), device=device)
            losses[wanted] = trainer.entropies(hidden[wanted], pack.labels[wanted])
            parts = [losses[a:b][wanted[a:b]].cpu().numpy() for a, b in pairwise(pack.bounds)]
            result.append([part for part in parts if part.size])
    trainer.seen.clear()
    trainer.train(was)
    return result


def _compute(lm: LMSettings, reader: Reader) -> dict[str, Any]:
    """Parameters, tokens and FLOPs of the training: 6 for each weight of a product and token, and the attention's."""
    config = read_config(lm)
    source = samples(
        Corpus({Path(folder): weight for folder, weight in lm.data.corpus.items()}),
        Reader(reader.vocabulary, reader.lexicon, reader.rate, lm.data.spell),
        lm.schedule.seed, lm.data.longest, lm.data.joined, count(),
    )  # fmt: skip
    lengths = np.array([len(sample.ids) for sample in islice(source, LENGTHS)], float)
    # A plan takes every sample for the longest; this is the length of the sample that a token is in, on average.
    typical = round(float(np.square(lengths).sum() / lengths.sum()))
    plan = make_plan(changed(lm, {"embeddings.factored": False, "data.longest": typical}), config)
    tokens = lm.schedule.steps * lm.data.tokens * (lm.data.rows or 1)
    tables = (1 if config.tie_word_embeddings else 2) * config.vocab_size * config.hidden_size
    return {
        "parameters": make_plan(
            changed(lm, {"embeddings.factored": False, "embeddings.output_groups": []}), config
        ).parameters,
        "embeddings": tables,
        "tokens": tokens,
        "flops": plan.flops * tokens,
        "machine": machine(),
    }


def machine() -> str:
    """The processor or GPU that computes here."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if exists(info) else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''} of {os.cpu_count()}"


def measure(cell: Cell, reader: Reader, unseen: HeldOut) -> dict[str, Any]:
    """The loss of each held-out utterance, and the listeners' figures of what the best weights say."""
    device = check_device(None)
    folder = cell.folder / BEST
    # As it was saved: without the aids of the training.
    plain = LMSettings()
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    losses = token_losses(Trainer(model, plain).to(device), list(packed(unseen.measuring, reader, cell.lm.data.tokens)))
    del model
    nats = [float(part.sum()) for pack in losses for part in pack]
    return {
        "nats": nats,
        "audio": [len(row["codes"]) / reader.rate for row in unseen.measuring],
        "spoken": _speak(cell, unseen.to_say(cell.spoken, reader.rate)),
    }


def _speak(cell: Cell, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    tts = Llasa.load(cell.folder / BEST)
    result = []
    for number, (row, other) in enumerate(pairs):
        voice = Voice(other["speaker"], other["text"], np.asarray(other["codes"], np.uint16), tts.codec_id)
        try:
            speech = tts.say(row["text"], voice, seed=number)
        except NoSound:
            samples = np.zeros(0, np.float32)
        else:
            samples = speech.samples
        reference = voice.sound(tts.codec, RATE)
        sound = audio.resample(samples, tts.rate, RATE) if samples.size else samples
        if number < KEPT:
            audio.save(cell.folder / f"{number}.wav", samples, tts.rate)
        result.append(heard(row["text"], sound, reference))
    return result


def heard(text: str, sound: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Word errors by PocketSphinx and similarity by Resemblyzer of one sound, at 16 kHz."""
    (rate, words), (similarity, _) = (
        LISTENERS[name].hear(text, sound, reference)[name] for name in ("pocketsphinx", "resemblyzer")
    )
    return {"errors": round(rate * words), "words": words, "similarity": similarity, "seconds": sound.size / RATE}

"""One cell of a study of training: a model of one size trained on one amount of speech, then measured.

The schedule of its learning rate runs out over its own steps. On the way it is checked at equal distances on some
held-out utterances, and the weights of the best check are what counts: a model that has too little to learn from gets
worse towards its end. Others measure those weights: the loss, what PocketSphinx understands of what it says, and how
much that sounds like the reference to Resemblyzer. What is finished is kept: checks, checkpoint, result.
"""

import contextlib
import json
import os
import platform
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM

from llasa import audio
from llasa.errors import LlasaError
from llasa.eval.independent import EARS
from llasa.eval.report import write_text
from llasa.eval.training_corpus import HeldOut, hold_out, make_reader, packed
from llasa.loading import check_device, hush_transformers
from llasa.train import loop
from llasa.train.lm import Settings, Trainer, save_model
from llasa.train.lm_data import Corpus, Pack, Reader, samples
from llasa.train.lm_run import move, train
from llasa.train.plan import make_plan, read_config
from llasa.tts import NO_SOUND, Llasa
from llasa.verifiers import RATE
from llasa.vocabulary import Vocabulary
from llasa.voice import Voice

RESULT, CHECKS, LOG, BEST = "result.json", "checks.json", "train.log", "best"
KEPT = 3  # of what is said, so many sounds are kept
LENGTHS = 500  # samples by which the mean length of what a token attends to is told


@dataclass(frozen=True)
class Cell:
    """One run: its folder, the recipe of its model, and how it is checked and measured."""

    folder: Path
    lm: Settings
    checks: int
    held_out: int
    spoken: int

    def is_done(self) -> bool:
        return (self.folder / RESULT).exists()


def run_cell(cell: Cell) -> bool:
    """Trains and measures, or goes on with it. False if it was asked to stop before the end of the training.

    Raises:
        LlasaError: as `lm_run.train`.
    """
    if cell.is_done():
        return True
    hush_transformers()
    cell.folder.mkdir(parents=True, exist_ok=True)
    reader = make_reader(cell.lm)
    unseen = hold_out(Path(cell.lm.validation), cell.held_out, reader, cell.lm.longest)
    checks = Checks(cell, list(packed(unseen.choosing, reader, cell.lm.tokens)))
    with (cell.folder / LOG).open("a") as log, contextlib.redirect_stdout(log), _own_signals():
        train(cell.lm, checks.after)
    if cell.lm.steps not in checks.found:
        return False
    found = checks.facts() | _compute(cell.lm, reader) | measure(cell, reader, unseen)
    write_text(cell.folder / RESULT, json.dumps(found, indent=1) + "\n")
    # The best check's weights are kept; to go on from here there is nothing.
    for name in (loop.CHECKPOINT, "model"):
        path = Path(cell.lm.out) / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Gives back the signals that a training takes to itself."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


class Checks:
    """Looks at a training after every step; at some, measures it and keeps it if it is the best so far.

    Attributes:
        found: by step, the mean loss a token, and the seconds of how many steps before it.
    """

    def __init__(self, cell: Cell, held_out: Sequence[Pack]) -> None:
        self.folder, self.settings, self.held_out = cell.folder, cell.lm, held_out
        self.places = {max(1, cell.lm.steps * (k + 1) // cell.checks) for k in range(cell.checks)}
        path = self.folder / CHECKS
        known: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
        self.found = {int(step): check for step, check in known.items()}
        self.began: float | None = None
        self.seconds, self.steps = 0.0, 0

    @property
    def best(self) -> int:
        return min(self.found, key=lambda step: (self.found[step]["loss"], step))

    def after(self, step: int, trainer: Trainer, vocabulary: Vocabulary, average: loop.Average) -> None:
        """Called by the training. A check that a killed run had made before is made again, and finds the same."""
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
        """What the training came to. Its seconds are those of a step times the steps, however often it was stopped."""
        steps = sum(check["steps"] for check in self.found.values())
        seconds = sum(check["seconds"] for check in self.found.values()) / max(1, steps)
        return {
            "steps": self.settings.steps,
            "seconds": seconds * self.settings.steps,
            "best": self.best,
            "checks": {step: check["loss"] for step, check in sorted(self.found.items())},
        }


@torch.no_grad()
def token_losses(trainer: Trainer, held_out: Sequence[Pack]) -> list[list[np.ndarray]]:
    """Of every utterance in every pack, the loss of each token it is to predict, in nats: (n,) float32."""
    device = next(trainer.parameters()).device
    was = trainer.training
    trainer.eval()
    result = []
    with torch.autocast(device.type, torch.bfloat16):
        for pack in held_out:
            pack = move(pack, device)
            hidden = trainer.model.model(
                input_ids=pack.ids[None],
                position_ids=pack.positions[None],
                bounds=pack.bounds,
                starts=pack.starts,
                use_cache=False,
            ).last_hidden_state[0]
            wanted = pack.labels >= 0
            losses = torch.zeros(len(wanted), device=device)
            losses[wanted] = trainer.entropies(hidden[wanted], pack.labels[wanted])
            parts = [losses[a:b][wanted[a:b]].cpu().numpy() for a, b in pairwise(pack.bounds)]
            result.append([part for part in parts if part.size])
    trainer.seen.clear()
    trainer.train(was)
    return result


def _compute(lm: Settings, reader: Reader) -> dict[str, Any]:
    """Parameters, tokens and FLOPs of the training: 6 for each weight of a product and token, and the attention's."""
    config = read_config(lm)
    source = samples(
        Corpus({Path(folder): weight for folder, weight in lm.corpus.items()}),
        Reader(reader.vocabulary, reader.lexicon, reader.rate, lm.spell),
        lm.seed, lm.longest, lm.joined, count(),
    )  # fmt: skip
    lengths = np.array([len(sample.ids) for sample in islice(source, LENGTHS)], float)
    # A plan takes every sample for the longest; this is the length of the sample that a token is in, on average.
    typical = round(float(np.square(lengths).sum() / lengths.sum()))
    plan = make_plan(replace(lm, factored=False, longest=typical), config)
    tokens = lm.steps * lm.tokens * (lm.rows or 1)
    tables = (1 if config.tie_word_embeddings else 2) * config.vocab_size * config.hidden_size
    return {
        "parameters": make_plan(replace(lm, factored=False, output_groups=[]), config).parameters,
        "embeddings": tables,
        "tokens": tokens,
        "flops": plan.flops * tokens,
        "machine": machine(),
    }


def machine() -> str:
    """What computes here."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''} of {os.cpu_count()}"


def measure(cell: Cell, reader: Reader, unseen: HeldOut) -> dict[str, Any]:
    """The loss of each held-out utterance, and how what the best weights say is heard."""
    device = check_device(None)
    folder = cell.folder / BEST
    # As it was saved: what helped it in training is no part of it.
    plain = replace(cell.lm, factored=False, output_groups=[], pointing_heads=[], gradient_checkpointing=False)
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    losses = token_losses(Trainer(model, plain).to(device), list(packed(unseen.measuring, reader, cell.lm.tokens)))
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
        except LlasaError as error:
            if str(error) != NO_SOUND:
                raise
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
        EARS[name].hear(text, sound, reference)[name] for name in ("pocketsphinx", "resemblyzer")
    )
    return {"errors": round(rate * words), "words": words, "similarity": similarity, "seconds": sound.size / RATE}

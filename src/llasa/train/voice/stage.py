"""Defines fine-tuning as a stage of the shared loop: its steps, its validation and the folder that it writes."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from llasa.models.defaults import half_precision, is_half
from llasa.models.folder import hush_transformers
from llasa.models.weights import open_weights
from llasa.train import loop
from llasa.train.lm.data import Pack, Reader, packs, sample_indices, samples
from llasa.train.lm.run import move
from llasa.train.lm.settings import Data, LMSettings, Memory
from llasa.train.lm.stage import Trainer
from llasa.train.lm.validation import validate
from llasa.train.log import Log, check_finite
from llasa.train.schedule import scheduled_optimisers
from llasa.train.settings import Schedule
from llasa.train.voice.data import Base, Clips, validation_packs
from llasa.train.voice.memory import FinetunePlan
from llasa.train.voice.tuned import describe, with_lora, write_weights

RANK = 32
PATIENCE = 5  # training ends after this many validations without an improvement
REMEDY = "try other recordings, or a LoRA instead of --full"


class FinetuneLog(Log):
    """The log of fine-tuning: one row and one line with every validation."""

    def __init__(
        self, folder: Path, name: str, total: int, after: int | None, show: Callable[[str], None], plan: FinetunePlan
    ) -> None:
        super().__init__(folder, name, total, after=after)
        self.show, self.tokens, self.first = show, plan.step_tokens, after or 0
        if after:
            show(f"resuming from step {after}")

    def step(self, step: int, audio_seconds: float, losses: dict[str, float]) -> None:
        self.add(audio_seconds, {"speech": losses["speech"]})

    def validated(self, step: int, figures: dict[str, float]) -> None:
        loss, means = figures["validation"], self.means()
        if not means:
            self.write(step, figures)
            self.show(f"validation {loss:.4f} before training")
            self.mark = time.perf_counter()
            return
        speed = max(1, step - self.first) / (time.perf_counter() - self.mark)
        self.write(step, means | {"validation": loss, "tokens_per_second": speed * self.tokens})
        mark = " *" if figures["better"] else "  "
        self.show(
            f"{self.name} {step}/{self.total}  loss {means['speech']:.4f}  validation {loss:.4f}{mark}  "
            f"{speed * self.tokens:,.0f} tokens/s  at most {(self.total - step) / speed / 60:.0f} min left"
        )
        self.sums = {}


class FinetuneStage(loop.Stage):
    """A model that learns a voice, in one process. With several GPUs, use `llasa train lm` with `init`.

    Attributes:
        learner: the model with its losses; a LoRA or all its weights learn.
        found: the loss on held-out clips before training and the best since, the step of the best, how many validations
            ago it was, and the last validated step.
    """

    name = "finetune"
    remedy = REMEDY
    learner: Trainer

    def __init__(
        self, out: Path, full: bool, voice: str, base: Base, clips: Clips, plan: FinetunePlan, device: torch.device
    ) -> None:
        self.out, self.voice, self.base, self.clips, self.plan = out, voice, base, clips, plan
        self.device, self.every = device, plan.every
        torch.manual_seed(0)
        hush_transformers()
        open_weights(base.folder, "cpu", torch.float32)  # reads no weights yet, but reports damaged files
        # Frozen weights need no more precision than for speaking.
        self.half = is_half(device.type)
        dtype = torch.bfloat16 if self.half and not full else torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(base.folder, dtype=dtype)
        self.adapted: Any = None if full else with_lora(model, RANK)
        self.settings = LMSettings(
            out=str(out / "training"),
            codec=str(base.codec),
            memory=Memory(gradient_checkpointing=plan.checkpointing),
            schedule=Schedule(steps=plan.steps, lr=plan.lr, warmup=plan.warmup, ema=0.0),
        )
        self.learner = Trainer(model, self.settings).to(device).train()
        self.weights = {name: p for name, p in self.learner.named_parameters() if p.requires_grad}
        self.optimisers = scheduled_optimisers(self.learner, self.settings.schedule)
        reader = Reader(base.vocabulary, base.lexicon, base.rate)
        self.held_out = [move(pack, device) for pack in validation_packs(clips, reader, base, plan.tokens)]
        self.found: dict[str, Any] = {}
        self.better = False

    @property
    def finished(self) -> bool:  # type: ignore[override]
        return self.found.get("waited", 0) >= PATIENCE

    def autocast(self) -> AbstractContextManager:
        return half_precision(self.device.type)

    def batches(self, step: int, place: Any) -> Iterator[list[Pack]]:
        plan, base = self.plan, self.base
        # With a lexicon, some words stay in letters, so that the model can still read unknown ones.
        reader = Reader(base.vocabulary, base.lexicon, base.rate, Data().spell)
        indices = sample_indices(place or [], 0, 1)
        source = samples(self.clips.corpus, reader, 0, plan.longest, plan.joined, indices)
        stream = packs(source, plan.tokens, base.rate, base.vocabulary.tokenizer.pad_token_id or 0)
        while True:
            yield [next(stream) for _ in range(plan.rows)]

    def place(self, batch: list[Pack]) -> Any:
        return [(batch[-1].waiting, batch[-1].last)]

    def seconds(self, batch: list[Pack]) -> float:
        return sum(pack.seconds for pack in batch)

    def step(self, batch: list[Pack], step: int) -> dict[str, torch.Tensor]:
        """Computes gradients over some rows, in which every speech token counts the same."""
        counts = [int((pack.labels >= 0).sum()) for pack in batch]
        total = 0.0
        for pack, count in zip(batch, counts, strict=True):
            with self.autocast():
                loss = self.learner(move(pack, self.device))["speech"] * (count / sum(counts))
            loss.backward()
            total += float(loss.detach())
        return {"speech": torch.tensor(total)}

    def validate(self, step: int) -> dict[str, float]:
        with self.autocast():
            loss = validate(self.learner, self.held_out, Path(self.settings.out), step)["loss"]
        check_finite(self.name, step, {"validation loss": loss}, REMEDY)
        self.better = bool(self.found) and loss < self.found["best"]
        if not self.found:
            self.found = {"before": loss, "best": loss, "best_step": 0, "waited": 0}
        elif self.better:
            self.found |= {"best": loss, "best_step": step, "waited": 0}
        else:
            self.found["waited"] += 1
        self.found["step"] = step
        return {"validation": loss} | ({"better": float(self.better)} if step else {})

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "found": self.found}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state["weights"][name])
        self.found = state["found"]

    def save(self) -> None:
        """Writes the weights into the model's folder, if they are the best so far; the first time, writes all files."""
        first = self.found["step"] == 0
        if first or self.better:
            write_weights(self.out, self.learner.model, self.adapted, self.base)
        if first:
            describe(self.out, self.adapted, self.base, self.voice)

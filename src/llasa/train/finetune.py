"""Fine-tunes a model to a new voice, in one go: recordings to codes, LoRA or all weights, a folder that speaks.

The folder is a model from the first moment on, the base's with the new voice as its default, and better from time to
time: whenever the loss on held-out clips is the lowest so far, and only then, its weights are replaced. `training/` in
it holds codes, checkpoint and logs; the same command goes on from there.
"""

import dataclasses
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from llasa.checkpoint import open_checkpoint
from llasa.data.report import write_json
from llasa.defaults import dtype_of
from llasa.errors import LlasaError, need_extra
from llasa.lexicon import save_lexicon
from llasa.loading import HUB_ID, check_device, fingerprint, hush_transformers, read_json
from llasa.locks import claimed
from llasa.lora import BASE
from llasa.train import loop
from llasa.train.finetune_data import (
    Base,
    Clips,
    encode_recordings,
    find_recordings,
    make_voice,
    read_base,
    read_clips,
    validation_packs,
)
from llasa.train.finetune_plan import Plan, make_plan
from llasa.train.lm import Settings, Trainer
from llasa.train.lm_data import Pack, Reader, packs, sample_indices, samples
from llasa.train.lm_run import move
from llasa.train.lm_validation import validate
from llasa.voice import check_name
from llasa.writing import whole

RANK = 32
PATIENCE = 5  # validations in a row that are no better: then it ends
CHECKPOINT_MINUTES = 4.0
STAGE = "finetune"
REMEDY = "other recordings may do, or a LoRA instead of --full"
Bar = Callable[[str], AbstractContextManager[Callable[[float, float, float], None]]]
JOB, RESULT = "job.json", "result.json"


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
        data: recordings with their texts, as `llasa data encode` takes them.
        model: the base: an embedded name, a folder or a hub id.
        full: trains all weights instead of a LoRA.
        name: of the voice; by default that of the data.
        layout: of the data, if it does not look like it.
        steps: at most so many, instead of what suits the data.
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
    """Loss a speech token on the held-out clips: the base's after the reference, and the best; the step of that."""

    before: float
    after: float
    step: int
    steps: int


@contextmanager
def _no_bar(label: str) -> Iterator[Callable[[float, float, float], None]]:
    yield lambda *_: None


def name_of(data: str) -> str:
    """What recordings are called, in characters that can name a voice."""
    name = re.sub(r"[^\w .-]", "-", Path(data).resolve().stem if os.path.exists(data) else data.rsplit("/")[-1])
    return name.lstrip("-. ").rstrip()[:64] or "voice"


def finetune(job: Job, tell: Callable[[str], None], bar: Bar = _no_bar) -> Result | None:
    """Trains, or goes on training; nothing is done again that is done.

    Args:
        tell: called with what is to be read: the report, the plan, how far it is.
        bar: shows how far the encoding is, given a label: shards finished and in all, seconds of audio encoded.

    Returns:
        What came of it; None if it was asked to stop before its end.

    Raises:
        LlasaError: the recordings, the model or the folder will not do, the model does not fit into memory, the disk
            is full, or the loss is no longer a number.
    """
    need_extra("train", "peft", "pyarrow", "tensorboard", "datasets")
    name, device = job.voice, torch.device(check_device(job.device))
    if job.steps is not None and job.steps < 1:
        raise LlasaError(f"--steps {job.steps} leaves nothing to train: it is 1 or more")
    source, base = find_recordings(job.data, job.layout), read_base(job.model)
    training = job.out / "training"
    asked = {
        "data": f"{source.layout} {source.digest}", "model": fingerprint(base.folder), "codec": fingerprint(base.codec),
        "full": job.full, "name": name, "steps": job.steps,
    }  # fmt: skip
    _check_folder(job.out, asked)
    with claimed(job.out):
        with loop.saving(training):
            training.mkdir(exist_ok=True)
        if not (training / JOB).exists():
            write_json(training / JOB, asked)
        if (training / RESULT).exists():
            return Result(**read_json(training / RESULT))
        with bar("encoding") as advance:
            report = encode_recordings(source, base, training / "codes", str(device), advance)
        tell(report.table())
        clips = read_clips(training / "codes", job.data, source.layout, base, name)
        plan = make_plan(
            clips, Reader(base.vocabulary, base.lexicon, base.rate), base, job.full, job.steps, device, RANK
        )
        tell(plan.text)
        run = _Run(job, base, clips, plan, device, training, tell)
        if not (job.out / "voices").is_dir():
            voice = make_voice(source, clips, base, name, str(asked["codec"]))
            voice.save(job.out / "voices" / f"{name}.safetensors")
        result = run.train()
        if result is not None:
            write_json(training / RESULT, dataclasses.asdict(result))
            (training / loop.CHECKPOINT).unlink(missing_ok=True)
        return result


def _check_folder(out: Path, asked: dict[str, Any]) -> None:
    """Refuses a folder that holds something else, or what another job began.

    Raises:
        LlasaError: it does.
    """
    if out.is_file():
        raise LlasaError(f"cannot write to {out}: it is a file; name a folder by --out")
    path = out / "training" / JOB
    if path.exists():
        begun = read_json(path)
        if differs := [key for key, value in asked.items() if begun.get(key) != value]:
            raise LlasaError(f"{out} was begun with other {' and '.join(differs)}: name another --out, or delete it")
    elif out.is_dir() and any(entry.name not in (".lock", "training") for entry in out.iterdir()):
        raise LlasaError(f"{out} holds something else already: name a new folder by --out")


class _Run:
    """One training, its model loaded. Single-process: what needs several GPUs is `llasa train lm` with `init`."""

    def __init__(
        self, job: Job, base: Base, clips: Clips, plan: Plan, device: torch.device, out: Path, tell: Callable
    ) -> None:
        self.job, self.base, self.clips, self.plan, self.device, self.out = job, base, clips, plan, device, out
        self.tell = tell
        torch.manual_seed(0)
        hush_transformers()
        open_checkpoint(base.folder, "cpu", torch.float32)  # which reads nothing yet, but says what is wrong
        # Weights that stay as they are need no more precision than they will be spoken with.
        self.half = dtype_of(None, device.type) == torch.bfloat16
        dtype = torch.bfloat16 if self.half and not job.full else torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(base.folder, dtype=dtype)
        self.adapted: Any = None
        if not job.full:
            from peft import LoraConfig, get_peft_model

            # Every matrix of the layers, scaled by alpha / rank = 1 (Schulman et al., "LoRA Without Regret", 2025).
            lora = LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
            self.adapted = get_peft_model(model, lora)
        settings = Settings({}, "", str(base.codec), str(out), gradient_checkpointing=plan.checkpointing)
        self.trainer = Trainer(model, settings).to(device).train()
        self.weights = {name: p for name, p in self.trainer.named_parameters() if p.requires_grad}
        self.groups = loop.optimisers(self.trainer, plan.lr)

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def train(self) -> Result | None:
        """To the end, or to where a signal stops it."""
        reader = Reader(self.base.vocabulary, self.base.lexicon, self.base.rate)
        plan, saved = self.plan, loop.load_checkpoint(self.out)
        log = loop.Log(self.out, STAGE, plan.steps, after=saved["step"] if saved else None)
        held_out = [move(pack, self.device) for pack in validation_packs(self.clips, reader, self.base, plan.tokens)]
        state: dict[str, Any]
        if saved:
            state = saved["state"]
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(saved["weights"][name])
            for optimiser, moments in zip(self.groups, saved["optimisers"], strict=True):
                optimiser.load_state_dict(moments)
            self.tell(f"going on from step {state['step']}")
        else:
            loss = self._validate(held_out, 0)
            self._save_model(first=True)
            state = {"step": 0, "stood": [], "before": loss, "best": loss, "best_step": 0, "waited": 0}
            log.write(0, {"validation": loss})
            self.tell(f"validation {loss:.4f} before training")
        clock = loop.Clock(CHECKPOINT_MINUTES)
        stream = self._stream(state["stood"])
        began, first, losses = time.perf_counter(), state["step"], []
        while state["step"] < plan.steps and state["waited"] < PATIENCE:
            step = state["step"]
            batch = [next(stream) for _ in range(plan.rows)]
            loop.set_learning_rate(self.groups, step, plan.warmup, plan.steps)
            losses.append(self._step(batch, step + 1))
            state |= {"step": (step := step + 1), "stood": [(batch[-1].waiting, batch[-1].last)]}
            if at_end := step % plan.every == 0 or step == plan.steps:
                loss = self._validate(held_out, step)
                better = loss < state["best"]
                if better:
                    self._save_model()
                    state |= {"best": loss, "best_step": step, "waited": 0}
                else:
                    state["waited"] += 1
                speed = (step - first) / (time.perf_counter() - began)
                mean = sum(losses) / len(losses)
                log.write(step, {"speech": mean, "validation": loss, "tokens_per_second": speed * plan.step_tokens})
                self.tell(
                    f"{STAGE} {step}/{plan.steps}  loss {mean:.4f}  validation {loss:.4f}{' *' if better else '  '}  "
                    f"{speed * plan.step_tokens:,.0f} tokens/s  at most {(plan.steps - step) / speed / 60:.0f} min left"
                )
                losses = []
            if clock.due() or at_end:
                optimisers = [optimiser.state_dict() for optimiser in self.groups]
                loop.save_checkpoint(
                    self.out, {"step": step, "state": state, "weights": self.weights, "optimisers": optimisers}
                )
            if clock.stop:
                return None
        return Result(state["before"], state["best"], state["best_step"], state["step"])

    def _stream(self, stood: list[tuple[list[int], int]]) -> Iterator[Pack]:
        plan, pad = self.plan, self.base.vocabulary.tokenizer.pad_token_id or 0
        # Where there is a lexicon, some words stay in letters, so that unknown ones can be read on.
        reader = Reader(self.base.vocabulary, self.base.lexicon, self.base.rate, Settings.spell)
        source = samples(self.clips.corpus, reader, 0, plan.longest, plan.joined, sample_indices(stood, 0, 1))
        return packs(source, plan.tokens, self.base.rate, pad)

    def _step(self, batch: list[Pack], step: int) -> float:
        """One step over some rows, every speech token counting the same; its mean loss."""
        counts = [int((pack.labels >= 0).sum()) for pack in batch]
        total = 0.0
        for pack, count in zip(batch, counts, strict=True):
            with self.autocast():
                loss = self.trainer(move(pack, self.device))["speech"] * (count / sum(counts))
            loss.backward()
            total += float(loss.detach())
        norm = loop.clip(self.weights.values(), 1.0)
        loop.check_finite(STAGE, step, {"loss": total, "gradient": norm}, REMEDY)
        for optimiser in self.groups:
            optimiser.step()
            optimiser.zero_grad()
        return total

    def _validate(self, held_out: list[Pack], step: int) -> float:
        with self.autocast():
            loss = validate(self.trainer, held_out, self.out, step)["loss"]
        loop.check_finite(STAGE, step, {"validation loss": loss}, REMEDY)
        return loss

    def _save_model(self, first: bool = False) -> None:
        """The weights into the model's folder, at once; what does not change, and makes it a model, the first time."""
        out = self.job.out
        if self.adapted is None:
            stored = self.base.config.get("dtype") or self.base.config.get("torch_dtype") or "float32"
            tied = self.trainer.model.config.tie_word_embeddings
            tensors = {k: v for k, v in self.trainer.model.state_dict().items() if k != "lm_head.weight" or not tied}
            tensors = {name: tensor.to("cpu", getattr(torch, stored)) for name, tensor in tensors.items()}
        else:
            from peft import get_peft_model_state_dict

            tensors = get_peft_model_state_dict(self.adapted, save_embedding_layers=False)
        with whole(out / ("adapter_model.safetensors" if self.adapted else "model.safetensors")) as path:
            save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path, {"format": "pt"})
        if not first:
            return
        if self.adapted is None:
            self._describe_whole()
        else:
            config = self.adapted.peft_config["default"]
            config.base_model_name_or_path, config.inference_mode = self.base.name, True
            write_json(out / BASE, {"fingerprint": fingerprint(self.base.folder)})
            with whole(out / "generation_config.json") as path:
                path.write_text(self._sampling(), encoding="utf-8")
            with loop.saving(out):
                config.save_pretrained(str(out))

    def _describe_whole(self) -> None:
        """Everything of a model's folder but its weights."""
        out, config = self.job.out, dict(self.base.config)
        config.pop("default_voice", None)
        named = config.get("codec")
        if named and (self.base.folder / named).is_dir():  # said from where the base lies
            config["codec"] = str(self.base.codec)
        if HUB_ID.fullmatch(self.base.name):
            config["base_model"] = self.base.name  # what `llasa export` knows its licence by
        with loop.saving(out):
            self.base.vocabulary.tokenizer.save_pretrained(out)
        if self.base.lexicon:
            save_lexicon(self.base.lexicon, out)
        with whole(out / "generation_config.json") as path:
            path.write_text(self._sampling(), encoding="utf-8")
        write_json(out / "config.json", config)

    def _sampling(self) -> str:
        """The base's generation_config.json with the new voice as the default."""
        path = self.base.folder / "generation_config.json"
        settings = read_json(path) if path.exists() else {}
        return json.dumps(settings | {"default_voice": self.job.voice}, indent=2) + "\n"

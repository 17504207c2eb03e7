"""The run that trains a codec: batches, steps, checkpoints, on one process or several."""

import contextlib
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Xcodec2Model

from llasa.codec.convert import find
from llasa.codec.features import RATE
from llasa.data.shards import shard_files
from llasa.errors import LlasaError
from llasa.loading import OFFICIAL, is_non_commercial
from llasa.locks import claimed
from llasa.train import loop
from llasa.train.codec import Settings, Trainer, check, train_step
from llasa.train.codec_data import Crops
from llasa.train.codec_plan import require_memory
from llasa.train.codec_validation import validate
from llasa.train.encoders import Listener
from llasa.train.processes import make_accelerator, together
from llasa.train.quantising import fit_scales

ORDER = ("corpus", "shapes", "seed")  # what the order of the crops follows from
FIRST_SECONDS = 100  # of audio, that a fresh codec's scales are fitted on
CARD = """---
license: cc-by-nc-4.0
base_model: {0}
---
Trained on from {0}, whose weights are licensed CC BY-NC 4.0. So are these: no commercial use.
"""


def train(settings: Settings) -> None:
    """Trains, or goes on training, in `settings.out`; leaves the codec in `out/model`, in transformers' layout.

    On one process, or on several under `torchrun` or `accelerate launch`, which share out the crops of every batch. The
    batches, and whatever is drawn at random in a step, follow from the seed and the step: a run that was stopped or
    killed ends like one that was not.

    Raises:
        LlasaError: the settings or the launcher ask for what cannot be, another run is writing into the folder, the
            disk is full, the corpus is damaged, or a loss is no longer a number.
    """
    check(settings)
    accelerator = make_accelerator()
    for frames, count in settings.shapes:
        if count % accelerator.num_processes:
            raise LlasaError(
                f"{accelerator.num_processes} processes cannot share out the batches of `shapes: [[{frames}, {count}]]`"
                " equally: change the number of either"
            )
    with together():
        require_memory(settings, accelerator.device, accelerator.num_processes)
    with contextlib.ExitStack() as lock:
        with together():
            if accelerator.is_main_process:
                lock.enter_context(claimed(Path(settings.out)))
        _train(settings, accelerator)
        accelerator.wait_for_everyone()
        accelerator.end_training()


def _train(settings: Settings, accelerator: Any) -> None:
    main, processes, device = accelerator.is_main_process, accelerator.num_processes, accelerator.device
    out = Path(settings.out)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for what is not in bfloat16
    torch.manual_seed(settings.seed)
    with together():
        crops = Crops(settings.corpus, settings.shapes, settings.seed, settings.readers, settings.learns_pitch)
        for folder in settings.validation:
            shard_files(Path(folder))  # before the first checkpoint needs them
        saved = loop.load_checkpoint(out)
        trainer = Trainer(settings).to(device).train()
        card = CARD.format(settings.start) if _is_non_commercial(settings) else ""
        if saved is None and settings.start is None:
            _fit(trainer, crops, device)
        listener = None
        if settings.perceptual and settings.perceptual_at < settings.steps:
            first, last = settings.perceptual_layers
            listener = Listener(settings.perceptual, first, last, device)
        makers = nn.ModuleDict({"codec": trainer.codec, "semantic": trainer.semantic_decoder})
        betas = (settings.betas[0], settings.betas[1])
        groups = loop.optimisers(makers, settings.lr, settings.muon_lr, betas)
        judging = loop.optimisers(trainer.judges, settings.lr * settings.judges_lr, betas=betas)
        average = loop.Average(trainer.codec, settings.ema)
        if saved is not None:
            _restore(saved, settings, trainer, groups + judging, average)
    # Of the rest of it, gigabytes of memory, nothing is kept.
    saved = {key: value for key, value in (saved or {}).items() if key in ("step", "places", "log")}
    step = saved.get("step", 0)
    if settings.compile:
        trainer.codec.acoustic_encoder.compile()
    stream = crops.batches(step, saved.get("places"), accelerator.process_index, processes)
    clock = loop.Clock(settings.checkpoint_minutes, quiet=not main)
    if main:
        log = loop.Log(out, "codec", settings.steps, after=step)
        log.sums = saved.get("log", {})
    while step < settings.steps:
        batch = next(stream)
        torch.manual_seed(settings.seed + 1_000_003 * step + accelerator.process_index)  # for dropout
        set_learning_rate(groups + judging, step, settings)
        values = train_step(
            trainer,
            makers,
            groups,
            judging,
            batch.wave.to(device),
            batch.features.to(device),
            batch.pitch.to(device),
            step >= settings.adversarial_at,
            listener if step >= settings.perceptual_at else None,
        )
        step += 1
        # What all must agree on before the next step: whether to stop after this one, and whether to save it.
        facts = torch.tensor([*values.values(), clock.stop, main and clock.due()], device=device)
        *means, stop, due = accelerator.reduce(facts, "mean").tolist()
        values = dict(zip(values, means, strict=True))
        if not all(map(math.isfinite, means)):  # in all processes alike: one of them says so
            with together():
                loop.check_finite("codec", step, values)
        average.update(trainer.codec, step)
        if main:
            log.step(step, batch.wave.shape[-1] / RATE * len(batch.wave) * processes, values)
        if stop or due or step == settings.steps:
            with together():
                if main:
                    with average.swapped(trainer.codec), loop.saving(out):
                        figures = validate(trainer.codec, [Path(p) for p in settings.validation], out, step)
                        save_model(trainer.codec, out / "model", card)
                    log.write(step, figures)
                    print("validation", "  ".join(f"{k} {v:.4g}" for k, v in figures.items()), flush=True)
                    # Last of all: what a kill left half done before this is done again.
                    stood = {"step": step, "places": batch.places, "log": log.sums, "settings": asdict(settings)}
                    states = [optimiser.state_dict() for optimiser in groups + judging]
                    state = {"model": trainer.state_dict(), "optimisers": states, "average": average.weights}
                    loop.save_checkpoint(out, state | stood)
            trainer.train()
        if stop:
            return


def _fit(trainer: Trainer, crops: Crops, device: torch.device) -> None:
    """Fits a fresh codec's scales on the first crops of one shape, the same in every process."""
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


def set_learning_rate(groups: list[torch.optim.Optimizer], step: int, settings: Settings) -> None:
    """A linear warm-up, then a cosine to the end of the run; with `lr_fall` a straight line, after which it stays."""
    s = settings
    if s.lr_fall is None or step < s.warmup:
        loop.set_learning_rate(groups, step, s.warmup, s.steps, s.lr_floor)
        return
    share = 1 - (1 - s.lr_floor) * min(1.0, (step - s.warmup) / s.lr_fall)
    for optimiser in groups:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share


def _restore(
    saved: dict[str, Any], settings: Settings, trainer: Trainer, optimisers: list[Any], average: loop.Average
) -> None:
    """Puts all back where the checkpoint was made.

    Raises:
        LlasaError: it is of a codec of other sizes, of a run in which something else learnt, or of another corpus.
    """
    out = Path(settings.out)
    loop.require_same(out, saved["settings"], asdict(settings), ORDER)
    with loop.resuming(out, optimisers):
        trainer.load_state_dict(saved["model"])
        for optimiser, state in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        average.load(saved["average"], trainer.codec)


def _is_non_commercial(settings: Settings) -> bool:
    name = settings.start or ""
    return bool(name) and (name.startswith(OFFICIAL) or is_non_commercial(find(name)))


def save_model(model: Xcodec2Model, out: Path, card: str = "") -> None:
    """The codec's folder, whole before it replaces an older one, with a README.md if `card` has words for it.

    Raises:
        LlasaError: the disk is full.
    """
    fresh = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    with loop.saving(out.parent, fresh):
        model.save_pretrained(fresh)
        if card:
            (fresh / "README.md").write_text(card, encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        fresh.rename(out)

"""The run that trains the language model: streams, steps, checkpoints, on one process or several."""

import contextlib
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from llasa.data.origin import require_codes_of
from llasa.errors import LlasaError
from llasa.lexicon import load_lexicon
from llasa.loading import codec_sizes
from llasa.locks import claimed
from llasa.train import loop
from llasa.train.lm import Settings, Trainer, make_model, save_model
from llasa.train.lm_data import Corpus, Pack, Reader, pack, packs, sample_indices, samples
from llasa.train.lm_state import Learner, keep, require_plain, restore, shard
from llasa.train.lm_validation import validate
from llasa.train.plan import require_memory
from llasa.train.processes import make_accelerator, together
from llasa.vocabulary import Vocabulary

TERMS = ("speech", "text", "pointing")
After = Callable[[int, Trainer, Vocabulary, loop.Average], None]


def train(settings: Settings, after: After | None = None) -> None:
    """Trains, or goes on training, in `settings.out`; leaves the model folder in `out/model`.

    On one process, or on several under `torchrun` or `accelerate launch`. Every row of a step has its own share of the
    corpus, and the rows are shared out among the processes: whichever makes one, it is the same. Where each stood is
    part of the checkpoint: a run that was stopped or killed ends like one that was not, on as many processes or others.

    Args:
        after: called after every step, by every process.

    Raises:
        LlasaError: the settings or the launcher ask for what cannot be, another run is writing into the folder, the
            disk is full, or the loss is no longer a number.
    """
    if settings.longest > settings.tokens:
        raise LlasaError(f"a sample of `longest: {settings.longest}` doesn't fit into `tokens: {settings.tokens}`")
    if not settings.corpus and not settings.chat:
        raise LlasaError("`corpus` names nothing to train on: `FOLDER: 1`, a folder of codes shards")
    if settings.sampled and settings.shard:
        raise LlasaError("`sampled` and `shard` do not go together: leave one of them out")
    if settings.rows is not None and settings.rows < 1:
        raise LlasaError(f"`rows: {settings.rows}` leaves nothing to train on: it is 1 or more")
    require_plain(settings)
    accelerator = make_accelerator()
    with together():
        require_codes_of([Path(folder) for folder in (*settings.corpus, settings.validation)], settings.codec)
    require_memory(settings, accelerator.device, accelerator.num_processes)
    with contextlib.ExitStack() as lock:
        with together():
            if accelerator.is_main_process:
                lock.enter_context(claimed(Path(settings.out)))
        _train(settings, accelerator, after)


def _train(settings: Settings, accelerator: Any, after: After | None) -> None:
    from accelerate.utils import gather_object

    main, processes, device = accelerator.is_main_process, accelerator.num_processes, accelerator.device
    out = Path(settings.out)
    torch.manual_seed(settings.seed)
    model, vocabulary = make_model(settings)
    trainer = Trainer(model, settings).train()
    if in_parts := settings.shard and processes > 1:
        shard(trainer)
    # Copies are kept alike by DDP, which a model for evaluation goes without.
    wrapped = accelerator.prepare_model(trainer, evaluation_mode=in_parts)
    groups = loop.optimisers(trainer, settings.lr, settings.muon_lr, decay=settings.decay)
    average = loop.Average(trainer, settings.ema if main or in_parts else 0.0)
    learner = Learner(trainer, groups, average)
    with together():
        saved = restore(settings, learner)
    step, rows = saved["step"], settings.rows or len(saved["streams"]) or processes
    if main and rows < processes:
        print(f"{processes - rows} of {processes} processes have nothing to do: a step has {rows} rows", flush=True)

    rate, pad = codec_sizes(settings.codec)[1], vocabulary.tokenizer.pad_token_id or 0
    lexicon = load_lexicon(Path(settings.lexicon)) if settings.lexicon else None
    reader = Reader(vocabulary, lexicon, rate, settings.spell)
    corpus = Corpus({Path(folder): weight for folder, weight in settings.corpus.items()}, chat=settings.chat)
    mine = range(accelerator.process_index, rows, processes)
    streams = []
    for row in mine:
        indices = sample_indices(saved["streams"], row, rows)
        source = samples(corpus, reader, settings.seed, settings.longest, settings.joined, indices)
        streams.append(packs(source, settings.tokens, rate, pad))
    # All compute equally many rows, those without samples at the end.
    idle = [pack([], settings.tokens, rate, pad)] * (-(-rows // processes) - len(mine))

    clock = loop.Clock(settings.checkpoint_minutes, quiet=not main)
    if main:
        log = loop.Log(out, "lm", settings.steps, after=step)
        log.sums = saved["log"]
    if main or in_parts:
        unseen, still = Corpus({Path(settings.validation): 1}, 150, "val"), Reader(vocabulary, lexicon, rate)
        fixed = packs(samples(unseen, still, 0, settings.longest, 0.0, itertools.count()), settings.tokens, rate, pad)
        held_out = [move(next(fixed), device) for _ in range(4)]
        talks = (still.sample([row], random.Random(0)) for row in Corpus({}, 150, "val", settings.chat).rows)
        if short := [talk for talk in talks if len(talk.ids) <= settings.longest]:
            written = packs(itertools.cycle(short), settings.tokens, rate, pad)
            held_out += [move(next(written), device) for _ in range(2)]
    while step < settings.steps:
        batch = [move(row, device) for row in [*map(next, streams), *idle]]
        if settings.sampled and step % 2:
            with accelerator.autocast():
                batch = [trainer.reading_itself(row, vocabulary.speech, settings.seed + row.last) for row in batch]
        loop.set_learning_rate(groups, step, settings.warmup, settings.steps, settings.lr_floor)
        losses = backward(settings, accelerator, wrapped, batch)
        # What all must agree on before the next step: whether to stop after this one, and whether to save it.
        facts = losses.new_tensor([sum(row.seconds for row in batch), clock.stop, main and clock.due()])
        speech, text, pointing, *facts = accelerator.reduce(torch.cat([losses, facts]), "mean").tolist()
        values = {"speech": speech} | ({"text": text} if settings.chat else {})
        values |= {"pointing": pointing} if settings.pointing_heads else {}
        values["gradient"] = float(accelerator.clip_grad_norm_(trainer.parameters(), 1.0))
        for optimiser in groups:
            optimiser.step()
            optimiser.zero_grad()
        step += 1
        if not all(map(math.isfinite, values.values())):  # in all processes alike: one of them says so
            with together():
                loop.check_finite("lm", step, values)
        seconds, stop, due = facts[0] * processes, facts[1] > 0, facts[2] > 0
        average.update(trainer, step)
        if after:
            after(step, trainer, vocabulary, average)
        if main:
            log.step(step, seconds, values)
        if stop or due or step == settings.steps:
            stood = gather_object([(row, at.waiting, at.last) for row, at in zip(mine, batch, strict=False)])
            with together():
                if main or in_parts:
                    with average.swapped(trainer), accelerator.autocast(), loop.saving(out):
                        figures = validate(trainer, held_out, out, step)
                        save_model(model, vocabulary, settings, out / "model", write=main)
                if main:
                    log.write(step, figures)
                    print("validation", "  ".join(f"{k} {v:.4f}" for k, v in figures.items()), flush=True)
            # Last of all: what a kill left half done before this is done again.
            run = {"step": step, "streams": [where for _, *where in sorted(stood)], "log": log.sums if main else {}}
            keep(out, asdict(settings), learner, run, main)
        if stop:
            break
    accelerator.wait_for_everyone()
    # Before the processes part: the last to hold their connection ends its threads, and DDP would do so while holding
    # Python's lock, which one of those threads may be waiting for.
    del wrapped
    accelerator.free_memory()
    accelerator.end_training()


def backward(settings: Settings, accelerator: Any, wrapped: Any, batch: list[Pack]) -> torch.Tensor:
    """Adds up the gradients of a process' rows of a step, as if they and those of all processes were one row.

    Returns:
        This process' part of each of TERMS: their mean over the processes is the mean over all tokens of the step.
    """
    spoken = [(pack.labels >= 0) & ~pack.chat for pack in batch]
    kinds = zip(spoken, [p.chat for p in batch], [p.pointers >= 0 for p in batch], strict=True)
    counts = torch.stack([torch.stack([kind.sum() for kind in pack]) for pack in kinds])
    totals = accelerator.reduce(counts.sum(0), "sum")
    # Where one pack has more tokens than another, its mean loss counts for more: all tokens count the same, and those
    # of text as much as those of speech.
    weights = counts * accelerator.num_processes / totals.clamp(min=1)
    shares = torch.cat([totals[:2] / totals[:2].sum().clamp(min=1), weights.new_tensor([settings.pointing_weight])])
    added = torch.zeros_like(shares)
    for i, row in enumerate(batch):
        # In parts this changes nothing: every row's gradients go to their owners at once. Kept whole until the last,
        # they would take the memory that parts are there to save.
        with contextlib.nullcontext() if i == len(batch) - 1 else accelerator.no_sync(wrapped):
            terms = wrapped(row)
            zero = torch.zeros_like(terms["speech"])
            losses = torch.stack([terms.get(name, zero) for name in TERMS]) * weights[i]
            accelerator.backward((losses * shares).sum())
        added += losses.detach()
    return added


def move(pack: Pack, device: torch.device) -> Pack:
    """The pack with its tensors on a device."""
    names = ("ids", "labels", "positions", "pointers", "chat", "starts")
    tensors = {name: getattr(pack, name) for name in names}
    if device.type == "cuda":  # from pinned memory the copy is made while the GPU computes
        tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
    return replace(pack, **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})

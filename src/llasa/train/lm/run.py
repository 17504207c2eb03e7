"""Trains the language model as a stage of the shared loop, on one process or several."""

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from llasa.data.origin import require_codes_of
from llasa.files import claimed
from llasa.models.folder import codec_sizes
from llasa.text.lexicon import load_lexicon
from llasa.train import loop
from llasa.train.lm.data import Corpus, Pack, Reader, pack, packs, sample_indices, samples
from llasa.train.lm.memory import require_memory
from llasa.train.lm.settings import LMSettings
from llasa.train.lm.stage import Trainer, make_model, save_model
from llasa.train.lm.validation import validate
from llasa.train.processes import gather, is_main, make_accelerator, together
from llasa.train.schedule import Average, scheduled_optimisers
from llasa.vocabulary import Vocabulary

TERMS = ("speech", "text", "pointing", "phones")
After = Callable[[int, Trainer, Vocabulary, Average], None]


def train(settings: LMSettings, after: After | None = None) -> None:
    """Trains or resumes training in `settings.out`; leaves the model folder in `out/model`.

    It runs on one process, or on several under `torchrun` or `accelerate launch`. Every row of a step has its own part
    of the corpus, and the rows are divided among the processes, which does not change them. The checkpoint holds each
    row's place. So a run that was stopped or killed and then resumed ends like one that was not, on any number of
    processes.

    Args:
        after: called after every step, by every process.

    Raises:
        LlasaError: the settings or the launcher ask for something impossible, another run is writing into the folder,
            the disk is full, or the loss is NaN.
    """
    settings.check()
    accelerator = make_accelerator()
    with together():
        folders = [Path(folder) for folder in (*settings.data.corpus, settings.data.validation)]
        require_codes_of(folders, settings.codec)
    require_memory(settings, accelerator.device, accelerator.num_processes)
    with contextlib.ExitStack() as lock:
        with together():
            if is_main():
                lock.enter_context(claimed(Path(settings.out)))
        stage = LMStage(settings, accelerator)
        trainer, vocabulary = stage.learner, stage.vocabulary
        loop.run(stage, settings, (lambda step, average: after(step, trainer, vocabulary, average)) if after else None)
        accelerator.wait_for_everyone()
        # Free the model before the connection ends. Whoever frees the connection last ends its threads, and DDP would
        # do so while it holds Python's lock, for which one of those threads may be waiting.
        del stage
        accelerator.free_memory()
        accelerator.end_training()


class LMStage(loop.Stage):
    """The language model as a stage of the training.

    Attributes:
        learner: the model with its losses.
        wrapped: the same, wrapped by accelerate.
    """

    name = "lm"
    # These decide the order of the samples and the sizes of the model.
    fixed = (
        "data.corpus", "data.chat", "schedule.seed", "data.tokens", "data.longest", "data.joined", "data.spell",
        "data.recognition", "model", "embeddings.factored", "embeddings.output_groups", "losses.pointing_heads",
    )  # fmt: skip
    learner: Trainer

    def __init__(self, settings: LMSettings, accelerator: Any) -> None:
        self.settings, self.accelerator = settings, accelerator
        data, schedule = settings.data, settings.schedule
        torch.manual_seed(schedule.seed)
        model, self.vocabulary = make_model(settings)
        self.learner = Trainer(model, settings).train()
        self.in_parts = settings.memory.shard
        split = self.in_parts and accelerator.num_processes > 1
        if split:
            shard(self.learner)
        # DDP keeps copies of the model equal. A model in parts needs no DDP: in evaluation mode accelerate adds none.
        self.wrapped = accelerator.prepare_model(self.learner, evaluation_mode=split)
        self.optimisers = scheduled_optimisers(self.learner, schedule)
        self.rate = codec_sizes(settings.codec)[1]
        self.pad = self.vocabulary.tokenizer.pad_token_id or 0
        self.lexicon = load_lexicon(Path(data.lexicon)) if data.lexicon else None
        with together():
            self.held_out = self._hold_out() if is_main() or self.in_parts else []

    def _hold_out(self) -> list[Pack]:
        """Four rows of held-out speech, and two of held-out conversations if there are any."""
        data, device = self.settings.data, self.accelerator.device
        reader = Reader(self.vocabulary, self.lexicon, self.rate)
        unseen = samples(
            Corpus({Path(data.validation): 1}, 150, "val"), reader, 0, data.longest, 0.0, itertools.count()
        )
        speech = packs(unseen, data.tokens, self.rate, self.pad)
        found = [move(next(speech), device) for _ in range(4)]
        if data.recognition:
            hearing = Reader(self.vocabulary, self.lexicon, self.rate, recognition=1.0)
            unheard = samples(
                Corpus({Path(data.validation): 1}, 150, "val"), hearing, 0, data.longest, 0.0, itertools.count()
            )
            heard = packs(unheard, data.tokens, self.rate, self.pad)
            found += [move(next(heard), device) for _ in range(2)]
        talks = (reader.sample([row], random.Random(0)) for row in Corpus({}, 150, "val", data.chat).rows)
        if short := [talk for talk in talks if len(talk.ids) <= data.longest]:
            written = packs(itertools.cycle(short), data.tokens, self.rate, self.pad)
            found += [move(next(written), device) for _ in range(2)]
        return found

    def batches(self, step: int, place: Any) -> Iterator[list[Pack]]:
        """This process' rows of each step; `place` has the place of every row's stream of samples."""
        data, saved = self.settings.data, place or []
        processes, number = self.accelerator.num_processes, self.accelerator.process_index
        rows = data.rows or len(saved) or processes
        if is_main() and rows < processes:
            print(f"{processes - rows} of {processes} processes are idle: a step has only {rows} rows", flush=True)
        reader = Reader(self.vocabulary, self.lexicon, self.rate, data.spell, data.recognition)
        corpus = Corpus({Path(folder): weight for folder, weight in data.corpus.items()}, chat=data.chat)
        self.mine = range(number, rows, processes)
        streams = []
        for row in self.mine:
            indices = sample_indices(saved, row, rows)
            source = samples(corpus, reader, self.settings.schedule.seed, data.longest, data.joined, indices)
            streams.append(packs(source, data.tokens, self.rate, self.pad))
        # All processes compute equally many rows; where a row is missing, an empty one stands in.
        idle = [pack([], data.tokens, self.rate, self.pad)] * (-(-rows // processes) - len(self.mine))
        while True:
            yield [move(row, self.accelerator.device) for row in [*map(next, streams), *idle]]

    def place(self, batch: list[Pack]) -> list[Any]:
        own = [(row, at.waiting, at.last) for row, at in zip(self.mine, batch, strict=False)]
        return [where for _, *where in sorted(itertools.chain(*gather(own)))]

    def seconds(self, batch: list[Pack]) -> float:
        return sum(row.seconds for row in batch)

    def step(self, batch: list[Pack], step: int) -> dict[str, torch.Tensor]:
        settings = self.settings
        if settings.losses.sampled and step % 2:
            with self.accelerator.autocast():
                batch = [
                    self.learner.reading_itself(row, self.vocabulary.speech, settings.schedule.seed + row.last)
                    for row in batch
                ]
        losses = dict(zip(TERMS, backward(settings, self.accelerator, self.wrapped, batch), strict=True))
        absent = {
            "text": not settings.data.chat and not settings.data.recognition,
            "pointing": not settings.losses.pointing_heads,
            "phones": not settings.data.recognition,
        }
        return {name: loss for name, loss in losses.items() if not absent.get(name)}

    def validate(self, step: int) -> dict[str, float]:
        with self.accelerator.autocast():
            return validate(self.learner, self.held_out, Path(self.settings.out), step)

    def save(self) -> None:
        out = Path(self.settings.out) / "model"
        save_model(self.learner.model, self.vocabulary, self.settings, out, write=is_main())

    def state_dict(self) -> dict[str, Any]:
        return self.learner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state)


def shard(trainer: Trainer) -> None:
    """Splits the weights among the processes, in place (FSDP2). Optimisers must be made afterwards."""
    from torch.distributed.fsdp import fully_shard

    for layer in trainer.model.model.layers:
        fully_shard(layer)
    # The rest is split up again after each forward pass, too. Otherwise a step after a validation would compute with
    # the weights gathered for the validation.
    fully_shard(trainer, reshard_after_forward=True)


def backward(settings: LMSettings, accelerator: Any, wrapped: Any, batch: list[Pack]) -> torch.Tensor:
    """Adds up the gradients of this process' rows of a step, as if all rows of all processes were one row.

    Returns:
        This process' part of each of TERMS; their mean over the processes is the mean over all tokens of the step.
    """
    spoken = [(pack.labels >= 0) & ~pack.chat for pack in batch]
    heard = [p.chat[:0] if p.phones is None else p.phones >= 0 for p in batch]
    kinds = zip(spoken, [p.chat for p in batch], [p.pointers >= 0 for p in batch], heard, strict=True)
    counts = torch.stack([torch.stack([kind.sum() for kind in pack]) for pack in kinds])
    totals = accelerator.reduce(counts.sum(0), "sum")
    weighed = settings.losses
    # A pack with more tokens than another weighs more, so that all tokens count the same, in text and in speech.
    weights = counts * accelerator.num_processes / totals.clamp(min=1)
    shares = torch.cat(
        [
            totals[:2] / totals[:2].sum().clamp(min=1),
            weights.new_tensor([weighed.pointing_weight, weighed.phone_weight]),
        ]
    )
    added = torch.zeros_like(shares)
    for i, row in enumerate(batch):
        # With FSDP2 this has no effect: every row's gradients go to their owners at once. To keep them whole until the
        # last row would take the memory that FSDP2 saves.
        with contextlib.nullcontext() if i == len(batch) - 1 else accelerator.no_sync(wrapped):
            terms = wrapped(row)
            zero = torch.zeros_like(terms["speech"])
            losses = torch.stack([terms.get(name, zero) for name in TERMS]) * weights[i]
            accelerator.backward((losses * shares).sum())
        added += losses.detach()
    return added


def move(pack: Pack, device: torch.device) -> Pack:
    """The pack with its tensors on a device."""
    names = ("ids", "labels", "positions", "pointers", "chat", "starts", "phones")
    tensors = {name: getattr(pack, name) for name in names if getattr(pack, name) is not None}
    if device.type == "cuda":  # from pinned memory, the GPU copies while it computes
        tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
    return replace(pack, **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})

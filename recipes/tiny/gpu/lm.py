#!/usr/bin/env python3
"""Trains the embedded voice's language model for a given time, on a GPU or a CPU.

    python recipes/tiny/gpu/lm.py --codes runs/codes/train runs/real:2 --codec runs/codec/model \\
        --lexicon runs --out runs/lm --minutes 1.6

It is `llasa train lm` by time instead of by steps: the learning rate warms up, then falls along a cosine that ends with
the time, however fast the machine is. The result is the same model folder, OUT/model, with weights in half precision,
averaged over the last part of the run. It is replaced every --save seconds, so a run that is cut short leaves one, too.
OUT/log.jsonl has the losses. The script needs only torch, transformers, numpy, pyarrow and soundfile.

--codes takes folders of codes shards (`llasa data encode`); `:2` after a folder uses its utterances twice. One in a
hundred sentences is held out, whoever says it, and the log has the held-out loss of each folder. If the shards say when
each phone ends, two attention heads are taught to attend to the phone spoken next. --codec is any folder whose
config.json has `quantization_levels`; --lexicon is a folder with a lexicon.txt.gz (`llasa data lexicon`).

A step is one row of --tokens tokens, packed from whole samples: 65,536 on a GPU, 4,096 on a CPU. --workers processes
make samples ahead of the training. --pieces also writes the weights in pieces of 16 MiB (OUT/pieces, with their
sha256), for channels that take no large files; `cat model.safetensors.part-*` joins them.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

sys.path.insert(0, str(Path(__file__).parents[3] / "src"))
from llasa.data.shards import shard_files
from llasa.models.defaults import half_precision
from llasa.models.folder import codec_sizes, hush_transformers
from llasa.text.lexicon import load_lexicon
from llasa.train.lm.data import Pack, Reader, Sample, pack, packs, sample_indices, samples
from llasa.train.lm.run import move
from llasa.train.lm.settings import Data, Embeddings, LMSettings, Losses
from llasa.train.lm.stage import Trainer, make_model, save_model
from llasa.train.lm.validation import measure
from llasa.train.log import check_finite
from llasa.train.schedule import Average, scheduled_optimisers, set_learning_rate
from llasa.train.settings import Schedule

HELD_OUT = 100  # one in this many sentences is held out
PIECE = 16 * 2**20
SCALE = 100_000  # the steps of the learning rate's schedule, which follow the time
TENSORS = ("ids", "labels", "positions", "pointers", "chat", "starts")


class Utterances:
    """Rows of codes shards in memory: a corpus for `llasa.train.lm.data.samples`.

    Attributes:
        rows: the utterances.
        order: their indices, each repeated by its folder's weight.
        speakers: the indices of each speaker's utterances.
    """

    def __init__(self, folders: dict[Path, int], held_out: bool) -> None:
        self.rows: list[dict[str, Any]] = []
        self.order: list[int] = []
        self.speakers: dict[str, list[int]] = defaultdict(list)
        for folder, weight in folders.items():
            for file in shard_files(folder):
                for row in read(file):
                    if row["text"] and is_held_out(row["text"]) == held_out:
                        self.order += [len(self.rows)] * weight
                        self.speakers[row["speaker"]].append(len(self.rows))
                        self.rows.append(row)


def read(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a shard, with codes and ends as arrays."""
    table = pq.read_table(file).combine_chunks()
    columns = {name: table.column(name).to_pylist() for name in ("text", "speaker")}
    lists = dict[str, Any]()
    for name, kind in (("codes", np.uint16), ("ends", np.float32), ("phones", None)):
        if name not in table.column_names:
            lists[name] = [()] * len(table)
            continue
        column = table.column(name).combine_chunks()
        column = column.chunk(0) if hasattr(column, "chunk") else column
        values = column.flatten().to_numpy(zero_copy_only=False)
        cuts = np.cumsum([length or 0 for length in column.value_lengths().to_pylist()])[:-1]
        parts = np.split(values if kind is None else values.astype(kind), cuts)
        lists[name] = [part.tolist() for part in parts] if kind is None else parts
    for index in range(len(table)):
        yield {name: column[index] for name, column in (columns | lists).items()}


def is_held_out(text: str) -> bool:
    return int.from_bytes(hashlib.sha256(text.lower().encode()).digest()[:4]) % HELD_OUT == 0


class Packs(IterableDataset):
    """Endless packs; each worker makes its own part of the samples."""

    def __init__(self, corpus: Utterances, reader: Reader, settings: LMSettings, pad: int) -> None:
        self.corpus, self.reader, self.settings, self.pad = corpus, reader, settings, pad

    def __iter__(self) -> Iterator[Pack]:
        info, its = get_worker_info(), self.settings
        indices = sample_indices([], *(info.id, info.num_workers) if info else (0, 1))
        source = samples(self.corpus, self.reader, its.schedule.seed, its.data.longest, its.data.joined, indices)
        for made in packs(source, its.data.tokens, self.reader.rate, self.pad):
            # Arrays go through a pipe; tensors would need shared memory, of which a container has little.
            yield replace(made, **{name: getattr(made, name).numpy() for name in TENSORS})


def as_tensors(made: Pack) -> Pack:
    return replace(made, **{name: torch.from_numpy(getattr(made, name)) for name in TENSORS})


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--codes", nargs="+", required=True, metavar="DIR[:WEIGHT]", help="folders of codes shards")
    p.add_argument("--codec", required=True, metavar="FOLDER", help="the codec's folder, with a config.json")
    p.add_argument("--lexicon", required=True, metavar="FOLDER", help="a folder with lexicon.txt.gz")
    p.add_argument("--out", required=True, type=Path, metavar="DIR")
    p.add_argument("--minutes", required=True, type=float, help="time for training, without reading and saving")
    p.add_argument("--init", metavar="FOLDER", help="a model of the same sizes to start from")
    size = p.add_argument_group("the model")
    size.add_argument("--hidden", type=int, default=320)
    size.add_argument("--intermediate", type=int, help="default: 3 x hidden")
    size.add_argument("--layers", type=int, default=8)
    size.add_argument("--heads", type=int, help="default: hidden / 64")
    size.add_argument(
        "--groups", type=int, nargs="*", default=[], help="levels of each output group; default: one softmax"
    )
    size.add_argument("--pointing", default="2.0,4.0", help="LAYER.HEAD of the taught heads; empty: none")
    size.add_argument("--pointing-weight", type=float, default=0.2)
    step = p.add_argument_group("the steps")
    step.add_argument("--tokens", type=int, help="tokens of a step; default 65536 on a GPU, 4096 on a CPU")
    step.add_argument("--lr", type=float, default=4e-3, help="peak for embeddings and norms (AdamW)")
    step.add_argument("--muon-lr", type=float, default=6e-3, help="peak for the layers' matrices (Muon); 0: AdamW")
    step.add_argument("--floor", type=float, default=0.02, help="share of the peak at the end")
    step.add_argument("--warmup", type=float, default=0.04, help="share of the time")
    step.add_argument("--ema", type=float, default=0.999)
    data = p.add_argument_group("the samples")
    data.add_argument(
        "--joined", type=float, default=0.5, help="how often another of the speaker's utterances precedes"
    )
    data.add_argument("--longest", type=int, default=1024, help="the most tokens of a sample")
    data.add_argument("--spell", type=float, default=0.08, help="share of words in letters instead of phones")
    data.add_argument(
        "--sampled",
        type=float,
        default=0.9,
        help="largest share of the model's own codes in its input, every other step",
    )
    data.add_argument("--workers", type=int, help="default: all processors but two, at least one")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", help="default: the GPU if there is one")
    p.add_argument("--validate", type=float, default=20, metavar="SECONDS")
    p.add_argument("--save", type=float, default=30, metavar="SECONDS")
    p.add_argument("--pieces", action="store_true", help="also write the weights in pieces of 16 MiB")
    return p.parse_args()


def settings_of(a: argparse.Namespace, folders: dict[Path, int], device: torch.device) -> LMSettings:
    heads = a.heads or max(1, a.hidden // 64)
    model = {
        "hidden_size": a.hidden, "intermediate_size": a.intermediate or 3 * a.hidden, "num_hidden_layers": a.layers,
        "num_attention_heads": heads, "num_key_value_heads": heads, "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    }  # fmt: skip
    return LMSettings(
        out=str(a.out),
        codec=a.codec,
        init=a.init,
        model=model,
        data=Data(
            corpus={str(folder): weight for folder, weight in folders.items()},
            lexicon=a.lexicon,
            spell=a.spell,
            joined=a.joined,
            longest=a.longest,
            tokens=a.tokens or (65_536 if device.type == "cuda" else 4096),
        ),
        embeddings=Embeddings(output_groups=a.groups),
        losses=Losses(
            pointing_heads=[[int(n) for n in pair.split(".")] for pair in a.pointing.split(",") if pair],
            pointing_weight=a.pointing_weight,
            sampled=a.sampled,
        ),
        schedule=Schedule(
            steps=SCALE,
            lr=a.lr,
            muon_lr=a.muon_lr,
            warmup=int(SCALE * a.warmup),
            lr_floor=a.floor,
            ema=a.ema,
            seed=a.seed,
        ),
    )


def held_out(folders: dict[Path, int], reader: Reader, settings: LMSettings, pad: int) -> dict[str, list[Pack]]:
    """The held-out utterances of each folder that has any, each alone: at most four rows of 16,384 tokens."""
    found, tokens = dict[str, list[Pack]](), min(settings.data.tokens, 16_384)
    for folder in folders:
        kept = Utterances({folder: 1}, held_out=True)
        rows: list[list[Sample]] = [[]]
        for sample in samples(kept, reader, 0, settings.data.longest, 0.0, range(len(kept.order))):
            if sum(len(other.ids) for other in [*rows[-1], sample]) > tokens:
                rows.append([])
            rows[-1].append(sample)
        if rows[0]:
            name = folder.name if folder.name not in found else str(folder)
            found[name] = [pack(row, tokens, reader.rate, pad) for row in rows[:4]]
    return found


def main() -> None:
    a = arguments()
    began = time.perf_counter()
    device = torch.device(a.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    folders = dict[Path, int]()
    for name in a.codes:
        path, _, weight = name.rpartition(":")
        folders |= {Path(path): int(weight)} if path and weight.isdigit() else {Path(name): 1}
    settings = settings_of(a, folders, device)
    a.out.mkdir(parents=True, exist_ok=True)
    log = (a.out / "log.jsonl").open("a")

    def report(**values: Any) -> None:
        rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}
        print("  ".join(f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items()), flush=True)
        log.write(json.dumps(rounded) + "\n")
        log.flush()

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    hush_transformers()
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    model, vocabulary = make_model(settings)
    rate, pad = codec_sizes(settings.codec)[1], vocabulary.tokenizer.pad_token_id or 0
    lexicon = load_lexicon(Path(a.lexicon))
    corpus = Utterances(folders, held_out=False)
    frames = sum(len(row["codes"]) for row in corpus.rows)
    workers = a.workers if a.workers is not None else max(1, len(os.sched_getaffinity(0)) - 2)
    # This comes before any use of the GPU, because the workers are forks of this process.
    stream = iter(
        DataLoader(
            Packs(corpus, Reader(vocabulary, lexicon, rate, settings.data.spell), settings, pad),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            collate_fn=lambda made: made,
            multiprocessing_context="fork" if workers else None,
        )
    )
    unseen = {
        name: [move(row, device) for row in rows]
        for name, rows in held_out(folders, Reader(vocabulary, lexicon, rate), settings, pad).items()
    }
    trainer = Trainer(model, settings).train().to(device)
    groups = scheduled_optimisers(trainer, settings.schedule)
    average = Average(trainer, settings.schedule.ema)
    size = sum(parameter.numel() for parameter in trainer.parameters())
    report(
        utterances=len(corpus.rows), hours=frames / rate / 3600, held_out=list(unseen), parameters=size,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu", workers=workers,
        setup_seconds=time.perf_counter() - began,
    )  # fmt: skip

    def validate(step: int, seconds: float) -> None:
        with half_precision(device.type), average.swapped(trainer):
            for name, rows in unseen.items():
                figures, _ = measure(trainer, rows)
                report(step=step, seconds=seconds, validation=name, **figures)

    def save() -> None:
        with average.swapped(trainer):
            save_model(model, vocabulary, settings, a.out / "model", dtype=torch.float16)

    total, step, terms, waited = a.minutes * 60, 0, list[torch.Tensor](), 0.0
    batch = move(as_tensors(next(stream)), device)  # waits for the workers to start, before the time begins
    start = mark = time.perf_counter()
    validated = saved = start
    while (now := time.perf_counter()) - start < total:
        progress = int(SCALE * (now - start) / total)
        set_learning_rate(groups, progress, settings.schedule)
        with half_precision(device.type):
            if settings.losses.sampled and step % 2:
                batch = trainer.reading_itself(batch, vocabulary.speech, a.seed + step)
            found = trainer(batch)
            loss = found["speech"] + settings.losses.pointing_weight * found.get("pointing", 0.0)
        loss.backward()
        # Nothing here waits for the GPU: figures stay on it until they are logged.
        norm = torch.nn.utils.clip_grad_norm_(trainer.parameters(), 1.0)
        for optimiser in groups:
            optimiser.step()
            optimiser.zero_grad()
        step += 1
        average.update(trainer, step)
        nothing = torch.full_like(norm, float("nan"))
        terms.append(torch.stack([found["speech"].detach(), found.get("pointing", nothing).detach(), norm]))
        before = time.perf_counter()
        batch = move(as_tensors(next(stream)), device)
        now = time.perf_counter()
        waited += now - before
        if step == 10 or now - mark >= 5:
            speech, pointing, gradient = torch.stack(terms).nanmean(0).tolist()
            check_finite("lm", step, {"speech": speech, "gradient": gradient}, "lower --lr and --muon-lr")
            now = time.perf_counter()
            report(
                step=step, seconds=now - start, speech=speech, pointing=pointing, gradient=gradient,
                tokens_a_second=len(terms) * settings.data.tokens / (now - mark),
                waited_for_samples=waited / (now - mark),
            )  # fmt: skip
            terms, waited, mark = [], 0.0, now
        if now - validated >= a.validate:
            validate(step, now - start)
            validated = mark = time.perf_counter()
            terms, waited = [], 0.0
        if now - saved >= a.save:
            save()
            saved = mark = time.perf_counter()
            terms, waited = [], 0.0
    seconds = time.perf_counter() - start
    save()
    validate(step, seconds)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    report(step=step, seconds=seconds, tokens=step * settings.data.tokens, peak_gb=peak)
    if a.pieces:
        write_pieces(a.out / "model" / "model.safetensors", a.out / "pieces")
    print(f"{a.out / 'model'} is complete", flush=True)


def write_pieces(file: Path, folder: Path) -> None:
    """Writes a file in pieces of at most 16 MiB, and the sha256 of each and of the whole, for `sha256sum -c`."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = file.read_bytes()
    sums = [f"{hashlib.sha256(whole).hexdigest()}  {file.name}"]
    for number, at in enumerate(range(0, len(whole), PIECE)):
        name, part = f"{file.name}.part-{number:02d}", whole[at : at + PIECE]
        (folder / name).write_bytes(part)
        sums.append(f"{hashlib.sha256(part).hexdigest()}  {name}")
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n")


if __name__ == "__main__":
    main()

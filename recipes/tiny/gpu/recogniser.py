#!/usr/bin/env python3
r"""Trains the recogniser by which `say` judges its own takes, for N minutes on whatever is there: CTC over letters.

    python recipes/tiny/gpu/recogniser.py --corpus shards/kokoro --corpus shards/real=2 --corpus shards/copies=0.5 \
        --start src/llasa/assets/tiny/recogniser --out runs/recogniser --minutes 1.5

A corpus is a folder of audio shards (Parquet, 16 kHz; `llasa data` makes them). `=2` behind it: its rows come twice an
epoch; `=0.5`: each comes in every other; `=0`: they only validate, for speakers that are to stay unheard. Rows without
a text are left out, and of the others one in a hundred is held out, by its words, so that no two readings of a sentence
part. To hear the codec's copies, make audio shards of them and name these too.

From fresh weights the first some hundred steps pass before it writes any letter; `--start` with an older recogniser, of
other speakers even, saves them.

The sound is decoded once, by all cores, and stays on the device; so does all else that is done with it. The minutes
count from the start of the program to its end. The learning rate follows them: up in their first twentieth, then down a
cosine. Every 30 s, at the end and on SIGTERM the averaged weights are written into OUT/recogniser, the folder that lies
beside a voice's `lm` and that the verifier `content` loads. OUT/log.jsonl has losses and errors, by corpus and by what
its speakers' names begin with.
"""

import argparse
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from llasa.codec.features import HOP, RATE, mel_features
from llasa.data.shards import read_rows, row_audio, shard_files
from llasa.errors import LlasaError
from llasa.loading import hush_transformers
from llasa.train import loop, semantic
from llasa.verifiers.wording import words

BEGUN = time.monotonic()
UNIT = 1 << 16  # a pace of 1, in fixed point
GRID = 32  # a batch's frames are a multiple: a GPU is fastest at round numbers, and a CPU plans for each new one
CHUNK = 32  # recordings that a process decodes at once
EVERY = 20  # steps between looks at the losses: a look waits for the device


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--corpus", action="append", required=True, metavar="DIR[=WEIGHT]", help="audio shards; give it several times")
    add("--out", type=Path, required=True, help="folder for recogniser/ and log.jsonl")
    add("--minutes", type=float, required=True, help="from start to end, reading included")
    add("--start", default="", metavar="FOLDER", help="a recogniser to go on from, in its size")
    add("--device", help="cuda where there is one, else cpu")
    add("--batch-seconds", type=float, help="of speech in a step (600; on a CPU 60)")
    add("--lr", type=float, default=1.5e-3, help="its peak (%(default)s)")
    add("--muon-lr", type=float, default=2e-3, help="that of the layers' matrices, by Muon (%(default)s); 0: AdamW")
    add("--hidden", type=int, default=192)
    add("--layers", type=int, default=6)
    add("--positions", default="", help="relative_key or rotary; by default attention knows no order")
    add("--middle", type=float, default=0.3, help="weight of a second CTC loss, on the middle layer (%(default)s)")
    add("--noise", type=float, default=0.5, help="share of recordings with noise (%(default)s)")
    add("--pace", type=float, default=0.1, help="most by which one is sped up or slowed down (%(default)s)")
    add("--masks", type=float, default=1.0, help="how much of time and pitch is masked; 0: nothing (%(default)s)")
    add("--ema", type=float, default=0.995)
    add("--longest", type=float, default=17.0, help="seconds of the longest recording used (%(default)s)")
    add("--held-out", type=float, default=1.0, help="per cent of each corpus that validates (%(default)s)")
    add("--validate-every", type=float, default=20.0, metavar="SECONDS")
    add("--processes", type=int, default=len(os.sched_getaffinity(0)), help="that decode (%(default)s)")
    add("--seed", type=int, default=0)
    return parser.parse_args()


@dataclass
class Clip:
    """A recording: what shards say of it, and where it lies among all."""

    audio: bytes
    text: str
    source: str
    weight: float
    held_out: bool
    start: int = 0
    size: int = 0


def read(corpora: list[str], longest: float, held_out: float) -> list[Clip]:
    """The recordings with a text of all corpora."""
    clips = []
    for named in corpora:
        folder, _, weight = named.partition("=")
        try:
            files = shard_files(Path(folder))
        except LlasaError as error:
            print(f"going on without: {error}", flush=True)
            continue
        for file in files:
            for row in read_rows(file, ["text", "audio", "speaker", "seconds"]):
                if not row.get("text") or not 0.5 <= row["seconds"] <= longest:
                    continue
                speaker = re.match("[A-Za-z]*", row.get("speaker") or "")
                key = "".join(c for c in row["text"].lower() if c.isalnum())
                share = zlib.crc32(key.encode()) / 2**32 * 100
                source = f"{Path(folder).name}/{speaker[0] if speaker else ''}".rstrip("/")
                amount = float(weight or 1)
                clips.append(Clip(row["audio"], row["text"], source, amount, amount == 0 or share < held_out))
    return clips


def decode(chunk: list[tuple[int, bytes, str]]) -> tuple[list[int], list[int], np.ndarray, list[list[int]]]:
    """Numbers, sizes, samples and CTC symbols of those recordings in a chunk that can be used."""
    kept, sizes, sounds, spoken = [], [], [], []
    for number, audio, text in chunk:
        try:
            sound = row_audio({"audio": audio})
            symbols = semantic.letters(" ".join(words(text)))
        except Exception as error:  # of whatever in it is damaged: the others are worth more
            print(f"recording {number} left out: {error!r}", file=sys.stderr, flush=True)
            continue
        if sound.ndim == 1 and len(sound) >= RATE // 4 and 0 < len(symbols) <= len(sound) // HOP:
            kept.append(number)
            sizes.append(len(sound))
            sounds.append((sound * 32767).clip(-32768, 32767).astype(np.int16))
            spoken.append(symbols)
    return kept, sizes, np.concatenate(sounds or [np.zeros(0, np.int16)]), spoken


def collected(parts: Any, clock: loop.Clock, until: float) -> Iterator[Any]:
    """What the processes decode, until all is there; or, if one of them is lost or slow, until that time."""
    while not clock.stop:
        try:
            yield parts.next(timeout=1)
        except StopIteration:
            return
        except multiprocessing.TimeoutError:
            pass
        if time.monotonic() > until:
            print("decoding takes too long: going on with what is there", flush=True)
            return


class Speech:
    """All recordings one after another on the device, and what is said in each."""

    def __init__(self, clips: list[Clip], parts: Iterator[Any], device: torch.device) -> None:
        """
        Args:
            parts: what `decode` gives, in any order.
        """
        decoded = list(parts)
        self.device, self.clips = device, []
        self.sound = torch.empty(sum(len(samples) for _, _, samples, _ in decoded), dtype=torch.int16, device=device)
        symbols, end = [], 0
        for numbers, sizes, samples, spoken in decoded:
            self.sound[end : end + len(samples)] = torch.from_numpy(samples).to(device)
            for number, size in zip(numbers, sizes, strict=True):
                clip = clips[number]
                clip.start, clip.size, clip.audio = end, size, b""
                self.clips.append(clip)
                end += size
            symbols += spoken
        if not self.clips:
            raise LlasaError("no recording of these corpora can be used: they need texts, and sound at 16 kHz")
        self.counts = [len(row) for row in symbols]
        lines = [torch.tensor(row) for row in symbols]
        self.symbols = nn.utils.rnn.pad_sequence(lines, batch_first=True).to(device)
        self.starts = torch.tensor([clip.start for clip in self.clips]).to(device)
        self.sizes = torch.tensor([clip.size for clip in self.clips]).to(device)

    def wave(self, rows: torch.Tensor, paces: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, width) float32 of recordings at paces in units of `UNIT`, by cubic interpolation; and their lengths."""
        sizes, starts = self.sizes[rows][:, None], self.starts[rows][:, None]
        at = torch.arange(width, device=self.device) * paces[:, None]
        first, x = at >> 16, (at & (UNIT - 1)).float() / UNIT
        p, q, r, s = (
            self.sound[(first + k).clamp_min(0).minimum(sizes - 1) + starts].float() / 2**15 for k in (-1, 0, 1, 2)
        )
        wave = q + 0.5 * x * (r - p + x * (2 * p - 5 * q + 4 * r - s + x * (3 * (q - r) + s - p)))
        return wave, sizes[:, 0] * UNIT // paces


@dataclass
class Batch:
    """Rows of `Speech` that go through the model together; all numbers of the host."""

    rows: list[int]
    paces: list[int]
    lengths: list[int]  # samples at that pace


def frames_of(length: int) -> int:
    """Feature frames of the batch in which a recording of so many samples is the longest."""
    return math.ceil((length // HOP + 1) / GRID) * GRID


def plan(speech: Speech, rows: list[int], paces: list[int], seconds: float) -> list[Batch]:
    """Recordings in batches of about one length, the longest first."""
    lengths = [speech.clips[row].size * UNIT // pace for row, pace in zip(rows, paces, strict=True)]
    order = sorted(range(len(rows)), key=lambda k: -lengths[k])
    batches, begin = [], 0
    while begin < len(order):
        width = frames_of(lengths[order[begin]]) * HOP
        chosen = order[begin : begin + max(1, int(seconds * RATE / width))]
        batches.append(Batch(*([values[k] for k in chosen] for values in (rows, paces, lengths))))
        begin += len(chosen)
    return batches


def epochs(speech: Speech, pace: float, seconds: list[float], rng: random.Random) -> Iterator[Batch]:
    """Batches to learn from, without end. `seconds` holds a batch's, and may change."""
    learnt = [(row, clip.weight) for row, clip in enumerate(speech.clips) if not clip.held_out]
    if not learnt:
        raise LlasaError("all recordings are held out: name a corpus without =0")
    while True:
        rows = [row for row, weight in learnt for _ in range(int(weight) + (rng.random() < weight % 1))]
        batches = plan(speech, rows, [round(UNIT * rng.uniform(1 - pace, 1 + pace)) for _ in rows], seconds[0])
        rng.shuffle(batches)
        yield from batches


def hear(
    speech: Speech, batch: Batch, noise: float = 0.0, masks: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A batch as the model wants it: features, their mask and labels on the device, frames and letters on the host."""
    rows, paces = (torch.tensor(values).to(speech.device) for values in (batch.rows, batch.paces))
    wave, lengths = speech.wave(rows, paces, frames_of(max(batch.lengths)) * HOP - 1)
    if noise:
        wave = wave + hiss(wave, lengths, noise)
    features, mask = mel_features(wave, lengths)
    if masks:
        features = features * kept(features.shape, mask.sum(1), masks, speech.device)
    frames = torch.tensor([length // HOP + 1 for length in batch.lengths])
    counts = torch.tensor([speech.counts[row] for row in batch.rows])
    return features, mask, speech.symbols[rows][:, : int(counts.max())].contiguous(), frames, counts


def hiss(wave: torch.Tensor, lengths: torch.Tensor, share: float) -> torch.Tensor:
    """Noise for a share of the rows, dark or bright, 5 to 40 dB below the speech."""
    valid = torch.arange(wave.shape[1], device=wave.device) < lengths[:, None]
    level = ((wave * valid).square().sum(1) / lengths).sqrt()
    drawn = torch.rand(3, len(wave), device=wave.device)
    loud = level * 10 ** (-(5 + 35 * drawn[0]) / 20) * (drawn[1] < share)
    tilt = 1.6 * drawn[2] - 0.95
    white = torch.randn(len(wave), wave.shape[1] + 1, device=wave.device)
    coloured = (white[:, 1:] - tilt[:, None] * white[:, :-1]) / (1 + tilt.square()).sqrt()[:, None]
    return coloured * loud[:, None]


def kept(shape: torch.Size, frames: torch.Tensor, amount: float, device: torch.device) -> torch.Tensor:
    """SpecAugment (Park et al. 2019): 0 in stripes of time and of pitch, 1 elsewhere. (B, T, 160)."""

    def stripes(count: int, widest: float, length: Any, size: int) -> torch.Tensor:
        drawn = torch.rand(2, len(frames), count, 1, device=device)
        width = drawn[0] * widest * length
        start = drawn[1] * (length - width)
        at = torch.arange(size, device=device)
        return ((at >= start) & (at < start + width)).any(1)

    bands = shape[2] // 2
    over_time = stripes(5, 0.04 * amount, frames[:, None, None], shape[1])
    over_pitch = stripes(2, 0.25 * min(1.0, amount), bands, bands)
    return ~over_time[:, :, None] * ~over_pitch.repeat(1, 2)[:, None, :]


def ctc(logits: torch.Tensor, labels: torch.Tensor, frames: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The mean over the rows of a letter's loss. Labels are int64 and lengths the host's: neither cuDNN nor a wait."""
    return F.ctc_loss(logits.float().log_softmax(-1).transpose(0, 1), labels, frames, counts, zero_infinity=True)


@torch.no_grad()
def validate(model: Any, speech: Speech, seconds: float) -> dict[str, float]:
    """Errors of the best path, of letters and of words, of all held-out recordings and of each source's."""
    rows = [row for row, clip in enumerate(speech.clips) if clip.held_out]
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(4))
    model.eval()
    for batch in plan(speech, rows, [UNIT] * len(rows), seconds):
        features, mask, labels, frames, counts = hear(speech, batch)
        with torch.autocast(speech.device.type, torch.bfloat16):
            logits = model.lm_head(model.wav2vec2_bert(features, mask).last_hidden_state)
        texts = semantic.greedy(logits.float().cpu(), frames)
        for row, text, label, count in zip(batch.rows, texts, labels.tolist(), counts.tolist(), strict=True):
            wanted = "".join(semantic.SYMBOLS[i] for i in label[:count]).replace("|", " ")
            found = " ".join(text.split())
            ours, theirs = wanted.split(), found.split()
            errors = [semantic.edit_distance(wanted, found), len(wanted), semantic.edit_distance(ours, theirs)]
            for name in ("all", speech.clips[row].source):
                sums[name] += [*errors, len(ours)]
    model.train()
    return {
        f"{kind}/{name}": float(sums[name][k] / max(1, sums[name][k + 1]))
        for name in sorted(sums) for kind, k in (("letters", 0), ("words", 2))
    }  # fmt: skip


class Run:
    """A training run: weights, their average, the log, and what is done every so often."""

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        settings = semantic.Settings(
            [], "", "", options.start, hidden=options.hidden, intermediate=4 * options.hidden, layers=options.layers,
            positions=options.positions,
        )  # fmt: skip
        self.options, self.device = options, device
        self.model: Any = semantic.make_model(settings).to(device).train()
        self.middle = nn.Linear(self.model.config.hidden_size, len(semantic.SYMBOLS)).to(device)
        self.both = nn.ModuleDict({"model": self.model, "middle": self.middle})
        self.optimise()
        self.average, self.step, self.seconds = loop.Average(self.both, options.ema), 0, 0.0
        self.good = self.copy()

    def optimise(self, slower: float = 1.0) -> None:
        lr, muon_lr = self.options.lr * slower, self.options.muon_lr * slower
        self.groups = loop.optimisers(self.both, lr, muon_lr, betas=(0.9, 0.98))

    def copy(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        own = {name: value.clone() for name, value in self.both.state_dict().items()}
        return own, {name: value.clone() for name, value in self.average.weights.items()}

    def restore(self) -> None:
        self.both.load_state_dict(self.good[0])
        self.average.load(self.good[1], self.both)

    def learn(self, speech: Speech, batch: Batch) -> torch.Tensor:
        """One step; its losses and the gradient's norm, on the device."""
        options, layer = self.options, self.model.config.num_hidden_layers // 2
        features, mask, labels, frames, counts = hear(speech, batch, options.noise, options.masks)
        with torch.autocast(self.device.type, torch.bfloat16):
            heard = self.model.wav2vec2_bert(features, mask, output_hidden_states=True)
            logits = self.model.lm_head(heard.last_hidden_state)
            early = self.middle(heard.hidden_states[layer])
        loss = ctc(logits, labels, frames, counts)
        second = ctc(early, labels, frames, counts) if options.middle else torch.zeros_like(loss)
        (loss + options.middle * second).backward()
        norm = nn.utils.clip_grad_norm_(self.both.parameters(), 1.0)
        for optimiser in self.groups:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.seconds += sum(batch.lengths) / RATE
        self.average.update(self.both, self.step)
        return torch.stack([loss, second, norm]).detach()

    def log(self, values: dict[str, float]) -> None:
        now = time.monotonic() - BEGUN
        row = {"step": self.step, "time": now, **values}
        with (self.options.out / "log.jsonl").open("a") as file:
            file.write(json.dumps({key: round(value, 5) for key, value in row.items()}) + "\n")
        shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        print(f"{now:6.1f} s  step {self.step}  {shown}", flush=True)

    def validate(self, speech: Speech) -> None:
        """Nothing that fails here ends the run."""
        try:
            with self.average.swapped(self.both):
                self.log(validate(self.model, speech, self.options.batch_seconds))
        except Exception:
            traceback.print_exc()
            self.model.train()

    def write(self) -> None:
        """The averaged weights into OUT/recogniser, whole before they replace older ones."""
        fresh, folder = self.options.out / ".recogniser.tmp", self.options.out / "recogniser"
        shutil.rmtree(fresh, ignore_errors=True)
        with self.average.swapped(self.both):
            semantic.save_recogniser(self.model, fresh)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def train(run: Run, speech: Speech, clock: loop.Clock) -> None:
    """Steps until the time is over, less what the last validation and writing will take."""
    options, begun = run.options, time.monotonic()
    end = BEGUN + 60 * options.minutes - min(8.0, max(1.0, 3 * options.minutes))
    total = round(1000 * (end - begun))
    seconds, slower, checked = [options.batch_seconds], 1.0, begun
    stream = epochs(speech, options.pace, seconds, random.Random(options.seed))
    losses: list[torch.Tensor] = []
    mark, heard = begun, 0.0
    while not clock.stop and time.monotonic() < end:
        elapsed = round(1000 * (time.monotonic() - begun))
        loop.set_learning_rate(run.groups, elapsed, max(1, total // 20), total, floor=0.01)
        try:
            losses.append(run.learn(speech, next(stream)))
        except torch.cuda.OutOfMemoryError:
            seconds[0] /= 2
            print(f"out of memory: {seconds[0]:.0f} s in a step from now on", flush=True)
            if seconds[0] < options.longest:
                raise
            for optimiser in run.groups:
                optimiser.zero_grad(set_to_none=True)
            stream = epochs(speech, options.pace, seconds, random.Random(run.step))
            torch.cuda.empty_cache()
            continue
        if run.step % EVERY:
            continue
        values, now = torch.stack(losses).mean(0).tolist(), time.monotonic()
        losses = []
        if not all(math.isfinite(value) for value in values):
            slower /= 2
            print(f"a loss is no number at step {run.step}: back, and at {slower} of the rate", flush=True)
            run.restore()
            run.optimise(slower)
            continue
        run.good = run.copy()
        speed = (run.seconds - heard) / (now - mark)
        run.log({"ctc": values[0], "middle": values[1], "gradient": values[2], "realtime": speed})
        mark, heard = now, run.seconds
        if now - checked > options.validate_every and end - now > options.validate_every / 2:
            run.validate(speech)
            checked = mark = time.monotonic()
        if clock.due():
            run.write()
            mark = time.monotonic()
    if losses and not torch.stack(losses).isfinite().all():
        run.restore()


def main() -> None:
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    hush_transformers()
    # The processes that decode are forked before anything opens the device.
    quiet = (signal.SIGINT, signal.SIG_IGN)
    with multiprocessing.get_context("fork").Pool(options.processes, signal.signal, quiet) as pool:
        clock = loop.Clock(0.5, quiet=True)
        clips = read(options.corpus, options.longest, options.held_out)
        tasks = [(number, clip.audio, clip.text) for number, clip in enumerate(clips)]
        parts = pool.imap_unordered(decode, [tasks[k : k + CHUNK] for k in range(0, len(tasks), CHUNK)])
        device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        options.batch_seconds = options.batch_seconds or (60.0 if device.type == "cpu" else 600.0)
        torch.manual_seed(options.seed)
        run = Run(options, device)
        speech = Speech(clips, collected(parts, clock, BEGUN + 25 * options.minutes), device)
    hours: dict[str, float] = defaultdict(float)
    for clip in speech.clips:
        hours[clip.source + " held out" * clip.held_out] += clip.size / RATE / 3600
    run.log({f"hours of {name}": value for name, value in sorted(hours.items())})
    try:
        train(run, speech, clock)
    except Exception:
        traceback.print_exc()
        run.restore()
    if not run.step:
        raise LlasaError("stopped before the first step: nothing is written")
    run.write()
    run.validate(speech)
    memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most" if device.type == "cuda" else ""
    print(
        f"{options.out / 'recogniser'} is written, {time.monotonic() - BEGUN:.0f} s after the start{memory}", flush=True
    )


if __name__ == "__main__":
    try:
        main()
    except LlasaError as error:
        sys.exit(str(error))

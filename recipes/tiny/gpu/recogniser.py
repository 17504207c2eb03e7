#!/usr/bin/env python3
r"""Trains the recogniser that scores candidates of a search, for a given time on a GPU or a CPU: CTC over letters.

    python recipes/tiny/gpu/recogniser.py --corpus shards/kokoro --corpus shards/real=2 --corpus shards/copies=0.5 \
        --start src/llasa/assets/tiny/recogniser --out runs/recogniser --minutes 1.5

A corpus is a folder of audio shards (Parquet, 16 kHz; `llasa data` makes them). A weight may follow it. With `=2`, each
row is used twice an epoch; with `=0.5`, in every other epoch; with `=0`, only for validation, which tests speakers that
the training never hears. Rows without a text are left out. Of the others, one in a hundred is held out, chosen by its
words, so that all readings of a sentence are on the same side. To train on the codec's copies of speech, make audio
shards of them and name these, too.

With fresh weights, some hundred steps pass before the model writes any letter. `--start` with an older recogniser, even
of other speakers, saves this time.

The sound is decoded once, by all cores, and stays on the device, where everything else is computed. The minutes count
from the start of the program to its end. The learning rate follows them: a linear warm-up in the first twentieth, then
a cosine. Every 30 s, at the end and on SIGTERM, the averaged weights are written into OUT/recogniser. This is the
folder that belongs beside a voice's `lm`, and the verifier `content` loads it. OUT/log.jsonl has losses, and errors by
corpus and by the letters at the start of the speakers' names.
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
from llasa.models.defaults import half_precision
from llasa.models.folder import hush_transformers
from llasa.text.wording import words
from llasa.train.loop import Clock
from llasa.train.recogniser import stage
from llasa.train.recogniser.settings import RecogniserSettings, Sizes
from llasa.train.schedule import Average, make_optimisers, set_learning_rate
from llasa.train.settings import Schedule

BEGUN = time.monotonic()
UNIT = 1 << 16  # a pace of 1, in fixed point
GRID = (
    32  # a batch's frames are a multiple of this: GPUs are fastest at round numbers, and CPUs plan for each new shape
)
CHUNK = 32  # recordings that a process decodes at once
EVERY = 20  # steps between two checks of the losses, since each check waits for the device


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--corpus", action="append", required=True, metavar="DIR[=WEIGHT]", help="audio shards; may be repeated")
    add("--out", type=Path, required=True, help="folder for recogniser/ and log.jsonl")
    add("--minutes", type=float, required=True, help="time from start to end, including reading")
    add("--start", default="", metavar="FOLDER", help="a recogniser to start from, which also decides the size")
    add("--device", help="by default cuda if there is one, else cpu")
    add("--batch-seconds", type=float, help="seconds of speech in a step (600; on a CPU 60)")
    add("--lr", type=float, default=1.5e-3, help="peak learning rate (%(default)s)")
    add("--muon-lr", type=float, default=2e-3, help="peak for the layers' matrices, by Muon (%(default)s); 0: AdamW")
    add("--hidden", type=int, default=192)
    add("--layers", type=int, default=6)
    add("--positions", default="", help="relative_key or rotary; by default attention has no positions")
    add("--middle", type=float, default=0.3, help="weight of a second CTC loss, on the middle layer (%(default)s)")
    add("--noise", type=float, default=0.5, help="share of recordings with noise (%(default)s)")
    add("--pace", type=float, default=0.1, help="the largest change of a recording's speed (%(default)s)")
    add("--masks", type=float, default=1.0, help="how much time and frequency is masked; 0: none (%(default)s)")
    add("--ema", type=float, default=0.995)
    add("--longest", type=float, default=17.0, help="seconds of the longest recording used (%(default)s)")
    add("--held-out", type=float, default=1.0, help="per cent of each corpus held out for validation (%(default)s)")
    add("--validate-every", type=float, default=20.0, metavar="SECONDS")
    add("--processes", type=int, default=len(os.sched_getaffinity(0)), help="processes that decode (%(default)s)")
    add("--seed", type=int, default=0)
    return parser.parse_args()


@dataclass
class Clip:
    """A recording: its row in a shard, and the place of its samples in `Speech.sound`."""

    audio: bytes
    text: str
    source: str
    weight: float
    held_out: bool
    start: int = 0
    size: int = 0


def read(corpora: list[str], longest: float, held_out: float) -> list[Clip]:
    """Reads the recordings that have a text, from all corpora."""
    clips = []
    for named in corpora:
        folder, _, weight = named.partition("=")
        try:
            files = shard_files(Path(folder))
        except LlasaError as error:
            print(f"left out a corpus: {error}", flush=True)
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
    """Numbers, sizes, samples and CTC symbols of the usable recordings of a chunk."""
    kept, sizes, sounds, spoken = [], [], [], []
    for number, audio, text in chunk:
        try:
            sound = row_audio({"audio": audio})
            symbols = stage.letters(" ".join(words(text)))
        except Exception as error:  # one damaged recording must not lose the rest
            print(f"recording {number} left out: {error!r}", file=sys.stderr, flush=True)
            continue
        if sound.ndim == 1 and len(sound) >= RATE // 4 and 0 < len(symbols) <= len(sound) // HOP:
            kept.append(number)
            sizes.append(len(sound))
            sounds.append((sound * 32767).clip(-32768, 32767).astype(np.int16))
            spoken.append(symbols)
    return kept, sizes, np.concatenate(sounds or [np.zeros(0, np.int16)]), spoken


def collected(parts: Any, clock: Clock, until: float) -> Iterator[Any]:
    """What the processes decode, until they have finished or the time `until` has come, if one is lost or slow."""
    while not clock.stop:
        try:
            yield parts.next(timeout=1)
        except StopIteration:
            return
        except multiprocessing.TimeoutError:
            pass
        if time.monotonic() > until:
            print("decoding takes too long: continuing with the recordings decoded so far", flush=True)
            return


class Speech:
    """All recordings in one tensor on the device, with their texts."""

    def __init__(self, clips: list[Clip], parts: Iterator[Any], device: torch.device) -> None:
        """
        Args:
            parts: results of `decode`, in any order.
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
            raise LlasaError("no recording of these corpora can be used: give recordings at 16 kHz that have texts")
        self.counts = [len(row) for row in symbols]
        lines = [torch.tensor(row) for row in symbols]
        self.symbols = nn.utils.rnn.pad_sequence(lines, batch_first=True).to(device)
        self.starts = torch.tensor([clip.start for clip in self.clips]).to(device)
        self.sizes = torch.tensor([clip.size for clip in self.clips]).to(device)

    def wave(self, rows: torch.Tensor, paces: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Waveforms (B, width) float32 of recordings at paces in units of `UNIT`, by cubic interpolation; lengths."""
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
    """Rows of `Speech` that go through the model together; all numbers are on the host."""

    rows: list[int]
    paces: list[int]
    lengths: list[int]  # samples at that pace


def frames_of(length: int) -> int:
    """Feature frames of a batch whose longest recording has `length` samples."""
    return math.ceil((length // HOP + 1) / GRID) * GRID


def plan(speech: Speech, rows: list[int], paces: list[int], seconds: float) -> list[Batch]:
    """Groups recordings into batches of similar length, the longest first."""
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
    """Endless batches for training. `seconds` holds the seconds of a batch, which may change."""
    learnt = [(row, clip.weight) for row, clip in enumerate(speech.clips) if not clip.held_out]
    if not learnt:
        raise LlasaError("all recordings are held out: name a corpus without =0")
    while True:
        rows = [row for row, weight in learnt for _ in range(int(weight) + (rng.random() < weight % 1))]
        batches = plan(speech, rows, [round(UNIT * rng.uniform(1 - pace, 1 + pace)) for _ in rows], seconds[0])
        rng.shuffle(batches)
        yield from batches


def model_input(
    speech: Speech, batch: Batch, noise: float = 0.0, masks: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The input of the model for a batch: features, mask and labels on the device; frames and letters on the host."""
    rows, paces = (torch.tensor(values).to(speech.device) for values in (batch.rows, batch.paces))
    wave, lengths = speech.wave(rows, paces, frames_of(max(batch.lengths)) * HOP - 1)
    if noise:
        wave = wave + noise_for(wave, lengths, noise)
    features, mask = mel_features(wave, lengths)
    if masks:
        features = features * spec_augment(features.shape, mask.sum(1), masks, speech.device)
    frames = torch.tensor([length // HOP + 1 for length in batch.lengths])
    counts = torch.tensor([speech.counts[row] for row in batch.rows])
    return features, mask, speech.symbols[rows][:, : int(counts.max())].contiguous(), frames, counts


def noise_for(wave: torch.Tensor, lengths: torch.Tensor, share: float) -> torch.Tensor:
    """Noise of various colours for a share of the rows, 5 to 40 dB below the speech."""
    valid = torch.arange(wave.shape[1], device=wave.device) < lengths[:, None]
    level = ((wave * valid).square().sum(1) / lengths).sqrt()
    drawn = torch.rand(3, len(wave), device=wave.device)
    loud = level * 10 ** (-(5 + 35 * drawn[0]) / 20) * (drawn[1] < share)
    tilt = 1.6 * drawn[2] - 0.95
    white = torch.randn(len(wave), wave.shape[1] + 1, device=wave.device)
    coloured = (white[:, 1:] - tilt[:, None] * white[:, :-1]) / (1 + tilt.square()).sqrt()[:, None]
    return coloured * loud[:, None]


def spec_augment(shape: torch.Size, frames: torch.Tensor, amount: float, device: torch.device) -> torch.Tensor:
    """The mask of SpecAugment (Park et al. 2019), (B, T, 160): 0 in stripes of time and of frequency, 1 elsewhere."""

    def stripes(count: int, widest: float, length: Any, size: int) -> torch.Tensor:
        drawn = torch.rand(2, len(frames), count, 1, device=device)
        width = drawn[0] * widest * length
        start = drawn[1] * (length - width)
        at = torch.arange(size, device=device)
        return ((at >= start) & (at < start + width)).any(1)

    bands = shape[2] // 2
    over_time = stripes(5, 0.04 * amount, frames[:, None, None], shape[1])
    over_bands = stripes(2, 0.25 * min(1.0, amount), bands, bands)
    return ~over_time[:, :, None] * ~over_bands.repeat(1, 2)[:, None, :]


def ctc(logits: torch.Tensor, labels: torch.Tensor, frames: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The CTC loss a letter, averaged over the rows.

    Labels are int64, which avoids cuDNN, and lengths are on the host, which avoids waiting for the device.
    """
    return F.ctc_loss(logits.float().log_softmax(-1).transpose(0, 1), labels, frames, counts, zero_infinity=True)


@torch.no_grad()
def validate(model: Any, speech: Speech, seconds: float) -> dict[str, float]:
    """Letter and word error rates of the best path, over all held-out recordings and over those of each source."""
    rows = [row for row, clip in enumerate(speech.clips) if clip.held_out]
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(4))
    model.eval()
    for batch in plan(speech, rows, [UNIT] * len(rows), seconds):
        features, mask, labels, frames, counts = model_input(speech, batch)
        with half_precision(speech.device.type):
            logits = model.lm_head(model.wav2vec2_bert(features, mask).last_hidden_state)
        texts = stage.greedy(logits.float().cpu(), frames)
        for row, text, label, count in zip(batch.rows, texts, labels.tolist(), counts.tolist(), strict=True):
            wanted = "".join(stage.SYMBOLS[i] for i in label[:count]).replace("|", " ")
            found = " ".join(text.split())
            ours, theirs = wanted.split(), found.split()
            errors = [stage.edit_distance(wanted, found), len(wanted), stage.edit_distance(ours, theirs)]
            for name in ("all", speech.clips[row].source):
                sums[name] += [*errors, len(ours)]
    model.train()
    return {
        f"{kind}/{name}": float(sums[name][k] / max(1, sums[name][k + 1]))
        for name in sorted(sums) for kind, k in (("letters", 0), ("words", 2))
    }  # fmt: skip


class Run:
    """A training run: weights, their average, optimisers, log, validation and saving."""

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        width = options.hidden
        sizes = Sizes(hidden=width, intermediate=4 * width, layers=options.layers, positions=options.positions)
        settings = RecogniserSettings(start=options.start, sizes=sizes)
        self.options, self.device = options, device
        self.model: Any = stage.make_model(settings).to(device).train()
        self.middle = nn.Linear(self.model.config.hidden_size, len(stage.SYMBOLS)).to(device)
        self.both = nn.ModuleDict({"model": self.model, "middle": self.middle})
        self.optimise()
        self.average, self.step, self.seconds = Average(self.both, options.ema), 0, 0.0
        self.good = self.copy()

    def optimise(self, slower: float = 1.0) -> None:
        lr, muon_lr = self.options.lr * slower, self.options.muon_lr * slower
        self.groups = make_optimisers(self.both, lr, muon_lr, betas=(0.9, 0.98))

    def copy(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        own = {name: value.clone() for name, value in self.both.state_dict().items()}
        return own, {name: value.clone() for name, value in self.average.weights.items()}

    def restore(self) -> None:
        self.both.load_state_dict(self.good[0])
        self.average.load(self.good[1], self.both)

    def learn(self, speech: Speech, batch: Batch) -> torch.Tensor:
        """Takes one step; returns its losses and the gradient's norm, on the device."""
        options, layer = self.options, self.model.config.num_hidden_layers // 2
        features, mask, labels, frames, counts = model_input(speech, batch, options.noise, options.masks)
        with half_precision(self.device.type):
            output = self.model.wav2vec2_bert(features, mask, output_hidden_states=True)
            logits = self.model.lm_head(output.last_hidden_state)
            early = self.middle(output.hidden_states[layer])
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
        """Validates and logs the errors. A failure here does not end the run."""
        try:
            with self.average.swapped(self.both):
                self.log(validate(self.model, speech, self.options.batch_seconds))
        except Exception:
            traceback.print_exc()
            self.model.train()

    def write(self) -> None:
        """Writes the averaged weights into OUT/recogniser, which replaces an older one only as a whole."""
        fresh, folder = self.options.out / ".recogniser.tmp", self.options.out / "recogniser"
        shutil.rmtree(fresh, ignore_errors=True)
        with self.average.swapped(self.both):
            stage.save_recogniser(self.model, fresh)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def train(run: Run, speech: Speech, clock: Clock) -> None:
    """Trains until the time is over, less the time for the last validation and for writing."""
    options, begun = run.options, time.monotonic()
    end = BEGUN + 60 * options.minutes - min(8.0, max(1.0, 3 * options.minutes))
    total = round(1000 * (end - begun))
    schedule = Schedule(steps=total, warmup=max(1, total // 20), lr_floor=0.01)
    seconds, slower, checked = [options.batch_seconds], 1.0, begun
    stream = epochs(speech, options.pace, seconds, random.Random(options.seed))
    losses: list[torch.Tensor] = []
    mark, logged = begun, 0.0
    while not clock.stop and time.monotonic() < end:
        elapsed = round(1000 * (time.monotonic() - begun))
        set_learning_rate(run.groups, elapsed, schedule)
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
            print(
                f"a loss is NaN at step {run.step}: restoring earlier weights, with {slower} of the learning rate",
                flush=True,
            )
            run.restore()
            run.optimise(slower)
            continue
        run.good = run.copy()
        speed = (run.seconds - logged) / (now - mark)
        run.log({"ctc": values[0], "middle": values[1], "gradient": values[2], "realtime": speed})
        mark, logged = now, run.seconds
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
    # The decoding processes are forked before anything opens the device.
    quiet = (signal.SIGINT, signal.SIG_IGN)
    with multiprocessing.get_context("fork").Pool(options.processes, signal.signal, quiet) as pool:
        clock = Clock(0.5, quiet=True)
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
        raise LlasaError("stopped before the first step, and wrote nothing: allow more minutes")
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

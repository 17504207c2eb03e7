"""Trains the embedded voice's codec for a given time, on a GPU or a CPU, and encodes the corpus with it.

    python recipes/tiny/gpu/codec.py runs/corpus/train runs/corpus/real --out runs/codec --minutes 240

First, encoder and decoder learn together. Then the codes are frozen, the corpus is encoded into OUT/codes, and for
`--finish` more minutes the decoder alone learns with discriminators. A GPU does in minutes what takes a CPU hours. The
same command resumes a stopped run. OUT/model is the codec.
"""

import argparse
import concurrent.futures
import io
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch
import torch.nn.functional as F

from llasa.codec.harmonic import HarmonicCodec, HarmonicCodecConfig
from llasa.data.shards import CODES_SCHEMA
from llasa.errors import LlasaError
from llasa.train.checkpoint import load_tensors
from llasa.train.codec import harmonic_training as harmonic
from llasa.train.codec.discriminators import (
    discriminator_loss,
    full_discriminators,
    generator_losses,
    small_discriminators,
)

HOP = 320
KINDS = [(0, 1.0), (160, 1.0), (80, 1.09), (240, 0.92)]  # copies of an utterance: samples cut in front, slowdown


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="+", help="folders of audio shards; DIR=2 weighs twice as much an hour")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=240.0, help="time for encoder and decoder together")
    parser.add_argument("--finish", type=float, default=0.0, help="minutes for the decoder with discriminators")
    parser.add_argument("--whisper", help="a Whisper's folder or hub id; its encoder teaches the codes what is said")
    parser.add_argument("--seconds", type=float, help="seconds of speech a step; 360 on a GPU, 15 on a CPU")
    parser.add_argument("--discriminators", choices=["full", "small"], help="full on a GPU, small on a CPU")
    parser.add_argument("--copies", action="store_true", help="also encode three altered copies of every utterance")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--checkpoint-minutes", type=float, default=3.0)
    parser.add_argument("--config", type=json.loads, default={}, help="sizes as JSON, see HarmonicCodecConfig")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def read_shard(path: str) -> list[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    """The rows of one shard without their audio, each with its samples and fundamental."""
    result = []
    for row in pq.read_table(path).to_pylist():
        try:
            samples, rate = soundfile.read(io.BytesIO(row.pop("audio")), dtype="float32")
            if rate != 16000 or samples.ndim != 1 or len(samples) < 8000 or not np.abs(samples).max() > 1e-3:
                continue
            track = row.pop("f0", None)
            f0 = np.frombuffer(track, np.float16).astype(np.float32) if track else None
            wave, f0, cut = harmonic.prepare(samples, HOP, f0)
        except Exception as error:  # one damaged clip must not lose the rest
            print(f"{path}: {row.get('id')} left out ({error})", flush=True)
            continue
        row["ends"] = [max(0.0, end - cut) for end in row.get("ends") or []]
        result.append((row, wave, f0))
    return result


def load(
    folders: list[str], workers: int, device: torch.device, held: int = 100
) -> tuple[list[Any], harmonic.Utterances]:
    """Loads every utterance of the folders onto the device; every `held`-th is held out."""
    rows: list[dict[str, Any]] = []
    waves, tracks, weights = [], [], []
    files = [
        (str(f), float(weight or 1))
        for name, _, weight in (x.partition("=") for x in folders)
        for f in sorted(Path(name).glob("*.parquet"))
    ]
    started = time.time()
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(files))) as pool:
        for (_, weight), found in zip(files, pool.map(read_shard, [f for f, _ in files]), strict=True):
            for row, wave, track in found:
                weights.append(0.0 if len(rows) % held == held - 1 else weight * len(wave))
                rows.append(row)
                waves.append(wave)
                tracks.append(track)
    lengths = torch.tensor([len(wave) for wave in waves])
    starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]])
    print(
        f"{len(rows)} utterances, {lengths.sum() / 16000 / 3600:.2f} hours, read in {time.time() - started:.0f} s",
        flush=True,
    )
    return rows, harmonic.Utterances(
        torch.from_numpy(np.concatenate(waves)).to(device), torch.from_numpy(np.concatenate(tracks)).to(device),
        starts.to(device), lengths.to(device), None, torch.tensor(weights).to(device),
    )  # fmt: skip


def batches_by_length(data: harmonic.Utterances, codes: int) -> list[list[int]]:
    """Indices of utterances in batches of similar length, each of at most `codes` codes with padding."""
    lengths = data.lengths.tolist()
    result: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not result or lengths[i] // HOP * (len(result[-1]) + 1) > codes:
            result.append([])
        result[-1].append(i)
    return result


def whole(data: harmonic.Utterances, indices: list[int]) -> torch.Tensor:
    """Whole utterances, the shorter ones padded with zeros: (B, N)."""
    lengths, starts = data.lengths[indices], data.starts[indices]
    size = int(lengths.max())
    place = torch.arange(size, device=data.samples.device)
    index = (starts[:, None] + place).clamp_max(len(data.samples) - 1)
    return data.samples[index].float() / 32767 * (place < lengths[:, None])


def add_whisper_features(data: harmonic.Utterances, whisper: str, device: torch.device) -> int:
    """Computes Whisper's features of every utterance, normalised by channel, into `data`; returns their width."""
    encoder = harmonic.load_whisper(whisper).to(device)
    width = encoder.config.d_model
    found = torch.zeros(len(data.samples) // HOP, width, dtype=torch.float16, device=device)
    for indices in batches_by_length(data, 40000 if device.type == "cuda" else 1500):
        wave = whole(data, indices)[:, : 29 * 16000]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            features = harmonic.whisper_features(encoder, wave)
        for row, index in enumerate(indices):
            count = min(int(data.lengths[index]) // HOP, features.shape[1])
            first = int(data.starts[index]) // HOP
            found[first : first + count] = features[row, :count].half()
    some = found[:: max(1, len(found) // 200000)].float()
    data.heard = found.sub_(some.mean(0).half()).div_(some.std(0).clamp_min(1e-3).half())
    return width


class Run:
    """A stage of training that runs for a given time: its learner, optimisers, average, checkpoint and log."""

    def __init__(
        self,
        name: str,
        learner: torch.nn.Module,
        groups: list[torch.optim.Optimizer],
        minutes: float,
        args: argparse.Namespace,
    ) -> None:
        self.name, self.learner, self.groups, self.seconds = name, learner, groups, minutes * 60
        self.out, self.interval = args.out, args.checkpoint_minutes * 60
        self.average = {k: v.detach().clone() for k, v in learner.codec.state_dict().items()}
        self.step, self.spent, self.stop = 0, 0.0, False
        self.sums: dict[str, list[torch.Tensor]] = {}
        self.path = args.out / f"{name}.pt"
        self.peaks = [[group["lr"] for group in one.param_groups] for one in groups]
        if self.path.exists():
            state = load_tensors(self.path, "delete it to start over", next(learner.parameters()).device)
            learner.load_state_dict(state["learner"])
            for one, kept in zip(groups, state["groups"], strict=True):
                one.load_state_dict(kept)
            self.average, self.step, self.spent = state["average"], state["step"], state["spent"]
            print(f"{name}: resuming at step {self.step}", flush=True)
        self.mark = self.saved = self.logged = time.time()

    def has_time(self) -> bool:
        """Whether there is time left. Also sets the learning rate for the next step, and saves at intervals."""
        now = time.time()
        self.spent += now - self.mark
        self.mark = now
        if now - self.saved > self.interval:
            self.save()
        for one, peaks in zip(self.groups, self.peaks, strict=True):
            for group, peak in zip(one.param_groups, peaks, strict=True):
                group["lr"] = peak * harmonic.cosine(self.spent / max(1.0, self.seconds), 0.03)
        return self.spent < self.seconds and not self.stop

    def done(self, terms: dict[str, torch.Tensor]) -> None:
        """To call after a step: updates the average and logs the losses."""
        self.step += 1
        decay = min(0.999, (1 + self.step) / (10 + self.step))
        own = self.learner.codec.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [own[k] for k in self.average], 1 - decay)
        for key, value in terms.items():
            self.sums.setdefault(key, []).append(value.detach())
        if self.step == 3 or time.time() - self.logged > 10:
            means = {key: float(torch.stack(values).mean()) for key, values in self.sums.items()}
            rate = len(next(iter(self.sums.values()))) / (time.time() - self.logged)
            self.sums, self.logged = {}, time.time()
            line = {
                "stage": self.name,
                "step": self.step,
                "seconds": round(self.spent),
                "steps_a_second": round(rate, 2),
            }
            line |= {key: round(value, 4) for key, value in means.items()}
            print(json.dumps(line), flush=True)
            with (self.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        state: dict[str, Any] = {
            "learner": self.learner.state_dict(),
            "groups": [one.state_dict() for one in self.groups],
        }
        state |= {"average": self.average, "step": self.step, "spent": self.spent}
        torch.save(state, f"{self.path}.tmp")
        os.replace(f"{self.path}.tmp", self.path)
        self.saved = time.time()
        save_model(self.learner.codec, self.average, self.out / "model")


def save_model(codec: HarmonicCodec, average: dict[str, torch.Tensor], folder: Path) -> None:
    """Writes the averaged codec in half precision. The folder appears whole or not at all."""
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    copy = HarmonicCodec(codec.config)
    copy.load_state_dict({k: v.cpu() for k, v in average.items()})
    copy.half().save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def step(loss: torch.Tensor, parameters: list[torch.nn.Parameter], groups: list[torch.optim.Optimizer]) -> torch.Tensor:
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    for one in groups:
        one.step()
        one.zero_grad(set_to_none=True)
    return norm


def optimisers(codec: torch.nn.Module, lr: float, others: list[torch.nn.Parameter]) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the rest."""
    inner = [
        p
        for name, p in codec.named_parameters()
        if p.ndim == 2 and (".up." in name or ".down." in name) and p.requires_grad
    ]
    chosen = {id(p) for p in inner}
    rest = [p for p in codec.parameters() if p.requires_grad and id(p) not in chosen] + others
    return [
        torch.optim.AdamW(rest, lr, betas=(0.8, 0.98), weight_decay=0.01),
        torch.optim.Muon(inner, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
    ]


@torch.no_grad()
def encode(codec: HarmonicCodec, rows: list[Any], data: harmonic.Utterances, out: Path, copies: bool) -> None:
    """Writes the corpus' codes as shards, including rows without a text.

    With `copies`, every utterance is encoded four times: unchanged, cut by 10 ms in front, slower, and faster. The last
    two count as other speakers. A language model that trains on all of them memorises less.
    """
    codec.eval()
    made = [found for kind in (KINDS if copies else KINDS[:1]) for found in encoded(codec, rows, data, kind)]
    out.mkdir(parents=True, exist_ok=True)
    size = 2000
    for first in range(0, len(made), size):
        path = out / f"{first // size:04d}.parquet"
        pq.write_table(pa.Table.from_pylist(made[first : first + size], schema=CODES_SCHEMA), f"{path}.tmp")
        os.replace(f"{path}.tmp", path)
    used = np.bincount(
        np.concatenate([row["codes"] for row in made]), minlength=int(np.prod(codec.config.quantization_levels))
    )
    share = used[used > 0] / used.sum()
    print(f"codes: {(used > 0).mean():.1%} used, perplexity {np.exp(-(share * np.log(share)).sum()):.0f}", flush=True)
    (out / "READY").touch()


def encoded(
    codec: HarmonicCodec, rows: list[Any], data: harmonic.Utterances, kind: tuple[int, float]
) -> list[dict[str, Any]]:
    """The rows of CODES_SCHEMA of one kind of copies of all utterances; see `KINDS`."""
    later, slower = kind
    result: list[dict[str, Any]] = [{}] * len(rows)
    for indices in batches_by_length(data, 40000 if data.samples.is_cuda else 3000):
        wave = whole(data, indices)[:, later:]
        if slower != 1:
            wave = harmonic.stretched(wave, round(wave.shape[1] * slower))
        # Silence on both sides, as when a file is encoded alone; the padding of a batch is silence, too.
        codes = codec.encode(F.pad(wave, (0, HOP + -wave.shape[1] % HOP)))
        for index, found in zip(indices, codes.cpu().numpy(), strict=True):
            row, count = rows[index], int((int(data.lengths[index]) - later) * slower) // HOP
            result[index] = {name: row.get(name) for name in CODES_SCHEMA.names} | {
                "id": row["id"] + (f"-{later}-{slower}" if kind != KINDS[0] else ""),
                "speaker": row["speaker"] + (f"@{slower}" if slower != 1 else ""),
                "ends": [max(0.0, end - later / 16000) * slower for end in row["ends"]],
                "codes": found[:count].astype(np.uint16),
                "seconds": count * HOP / 16000,
            }
    return result


def together(
    codec: HarmonicCodec, data: harmonic.Utterances, width: int, args: argparse.Namespace, rng: torch.Generator
) -> Run:
    """The first stage: encoder and decoder learn together."""
    device = data.samples.device
    learner = harmonic.Learner(codec, width).to(device)
    others = list(learner.tell.parameters()) if learner.tell else []
    groups = optimisers(codec, 1.5e-3, others)
    run = Run("together", learner, groups, args.minutes, args)
    signal.signal(signal.SIGTERM, lambda *_: setattr(run, "stop", True))
    parameters = list(learner.parameters())
    codes = 96
    count = max(1, round(args.seconds * 50 / codes))
    learner.train()
    while run.has_time():
        if run.step % 4 == 3:  # a changed speed makes other speakers
            share = float(torch.empty(()).uniform_(0.88, 1.16))
            batch = harmonic.faster(harmonic.crops(data, count, round(codes * share), HOP, rng), codes, HOP)
        else:
            batch = harmonic.crops(data, count, codes, HOP, rng)
        gain = torch.empty(count, 1, device=device).uniform_(-8, 6).mul_(0.115).exp_()  # -8 to 6 dB
        batch["wave"] = batch["wave"] * gain
        made, terms = learner(batch)
        terms["spectra"] = harmonic.spectral_loss(made, batch["wave"])
        loss = (
            terms["spectra"]
            + 0.7 * terms["pitch"]
            + 0.15 * terms["voice"]
            + 0.15 * terms.get("heard", 0.0)
            + 0.3 * terms["spread"]
        )
        terms["gradient"] = step(loss, parameters, groups)
        run.done(terms)
    run.save()
    return run


def finish(codec: HarmonicCodec, data: harmonic.Utterances, args: argparse.Namespace, rng: torch.Generator) -> Run:
    """The second stage: codes are frozen, and the decoder alone learns with discriminators."""
    device = data.samples.device
    learner = harmonic.Learner(codec).to(device)
    codec.encoder.requires_grad_(False)
    if args.discriminators == "full":
        discriminators = full_discriminators([2, 3, 5, 7, 11], [126, 334, 876, 1418])
    else:
        discriminators = small_discriminators([2, 5], [334, 876], 8)
    discriminators = discriminators.to(device)
    groups = optimisers(codec, 5e-4, [])
    discriminating = torch.optim.AdamW(discriminators.parameters(), 4e-4, betas=(0.8, 0.99))
    learner.judges = discriminators  # checkpoints hold them under this name
    run = Run("finish", learner, [*groups, discriminating], args.finish, args)
    signal.signal(signal.SIGTERM, lambda *_: setattr(run, "stop", True))
    decoder = [p for p in codec.parameters() if p.requires_grad]
    codes = 64
    count = max(1, round(args.seconds / 6 * 50 / codes))
    half = lambda: torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")  # noqa: E731
    # Discriminators get only the part of a crop that the decoder makes with enough context before it.
    edge = 8 * HOP
    while run.has_time():
        batch = harmonic.crops(data, count, codes, HOP, rng)
        made, terms = learner(batch, frozen=True)
        real, made = batch["wave"][:, edge:], made[:, edge:]
        with half():
            own = discriminator_loss(discriminators(real), discriminators(made.detach()))
        own.backward()
        torch.nn.utils.clip_grad_norm_(discriminators.parameters(), 10.0)
        discriminating.step()
        discriminating.zero_grad(set_to_none=True)
        discriminators.requires_grad_(False)
        with half():
            with torch.no_grad():
                truth = discriminators(real)
            fooling, matching = generator_losses(truth, discriminators(made))
        spectra = harmonic.spectral_loss(made, real)
        share = min(1.0, run.step / 100)  # the discriminators get some steps to learn first
        loss = 6 * spectra + share * (fooling + 3 * matching) + 0.7 * terms["pitch"] + 0.15 * terms["voice"]
        terms |= {"spectra": spectra, "fooling": fooling, "matching": matching, "judges": own}
        terms["gradient"] = step(loss, decoder, groups)
        discriminators.requires_grad_(True)
        run.done(terms)
    run.save()
    return run


def main() -> None:
    args = arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cuda = device.type == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    args.seconds = args.seconds or (360 if cuda else 15)
    args.discriminators = args.discriminators or ("full" if cuda else "small")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    rows, data = load(args.corpus, args.workers, device)
    rng = torch.Generator(device).manual_seed(args.seed + int(time.time()) % 1000)  # new crops after a stop
    codec = HarmonicCodec(HarmonicCodecConfig(**args.config)).to(device)
    harmonic.begin(codec)
    codes = args.out / "codes"
    if not (codes / "READY").exists():
        width = add_whisper_features(data, args.whisper, device) if args.whisper else 0
        run = together(codec, data, width, args, rng)
        codec.load_state_dict(run.average)
        if run.stop:
            return
        data.heard = None
        encode(codec, rows, data, codes, args.copies)
    else:
        codec.load_state_dict(load_tensors(args.out / "together.pt", "delete it to start over", device)["average"])
    if args.finish:
        finish(codec, data, args, rng)


if __name__ == "__main__":
    try:
        main()
    except LlasaError as error:
        sys.exit(str(error))

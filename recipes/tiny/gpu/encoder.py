"""Teaches a codec's encoder to hear speech through hum, rumble and hiss, for a given time, on a GPU or a CPU.

    python recipes/tiny/gpu/encoder.py runs/corpus/train runs/corpus/real --codec tiny --out runs/encoder

The encoder learns to give for a disturbed recording what it gave for the clean one. The quantiser and the decoder stay
as they are, and so does nearly all that a language model has learnt of the codes. A recording that rumbles by itself is
clean once what lies below the voice is filtered out. The same command resumes a stopped run. OUT/model is the codec.
"""

import argparse
import copy
import json
import math
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from llasa.codec import load_codec
from llasa.codec.harmonic import HarmonicCodec
from llasa.data.shards import read_rows, row_audio, shard_files
from llasa.errors import LlasaError
from llasa.train.checkpoint import load_tensors
from llasa.train.codec import harmonic_training as harmonic

HOP, RATE = 320, 16000
CODES, CROPS = 96, 8  # of a crop, and crops of a step
HELD_OUT = 50  # one utterance in so many is kept to measure on
CLEAN = 0.35  # share of the crops that nothing disturbs
PASSED = (60.0, 90.0)  # Hz; of a recording that rumbles nothing below is heard, and all above
EVERY = 30.0  # seconds between two lines of the log


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="+", help="folders of audio shards")
    parser.add_argument("--codec", required=True, help="the codec to start from: a name or a folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def rumbles(samples: np.ndarray) -> bool:
    """Whether the pauses of a recording (N,) are louder at 45 to 70 Hz than at 80 to 400 Hz."""
    size = RATE // 10
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    power = np.abs(np.fft.rfft(frames * np.hanning(size))) ** 2  # in bins of 10 Hz
    low, voice = power[:, 5:8].sum(1), power[:, 8:41].sum(1)
    quiet = np.argsort(voice)[: max(2, len(voice) // 4)]
    return bool(low[quiet].sum() > voice[quiet].sum())


def filtered(samples: np.ndarray) -> np.ndarray:
    """The samples without what lies below PASSED."""
    share = np.clip((np.fft.rfftfreq(len(samples), 1 / RATE) - PASSED[0]) / (PASSED[1] - PASSED[0]), 0, 1)
    return np.fft.irfft(np.fft.rfft(samples) * np.sin(share * np.pi / 2) ** 2, len(samples))


def load(folders: list[str], device: torch.device) -> harmonic.Utterances:
    """All utterances of the folders on the device; the held-out ones have no weight."""
    waves = []
    count = 0
    for folder in folders:
        for file in shard_files(Path(folder)):
            for row in read_rows(file):
                samples = row_audio(row)
                if len(samples) < RATE // 2:
                    continue
                if rumbles(samples):
                    samples, count = filtered(samples), count + 1
                waves.append(harmonic.prepare(samples, HOP, np.zeros(len(samples) // 80))[0])
    if not waves:
        raise LlasaError("the corpus has no recording of half a second or more: give folders of audio shards")
    lengths = torch.tensor([len(wave) for wave in waves])
    starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]])
    held = torch.arange(len(waves)) % HELD_OUT == HELD_OUT - 1
    print(
        f"{len(waves)} utterances, {lengths.sum() / RATE / 3600:.2f} hours; {count} that rumble are filtered",
        flush=True,
    )
    whole = torch.from_numpy(np.concatenate(waves)).to(device)
    return harmonic.Utterances(
        whole, torch.zeros(len(whole) // 80, dtype=torch.float16, device=device), starts.to(device),
        lengths.to(device), None, (lengths * ~held).float().to(device),
    )  # fmt: skip


def disturbed(waves: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Crops (B, N) with hum, rumble and hiss of random levels, some of each."""
    count, size = waves.shape
    device = waves.device

    def some(low: float, high: float) -> torch.Tensor:
        return torch.empty(count, 1, device=device).uniform_(low, high, generator=rng)

    def noise(shape: torch.Tensor) -> torch.Tensor:
        white = torch.randn(count, size, generator=rng, device=device)
        sound = torch.fft.irfft(torch.fft.rfft(white) * shape, size)
        return sound / sound.square().mean(1, keepdim=True).sqrt()

    def level(low: float, high: float, share: float) -> torch.Tensor:
        """Of so many dB below the speech, in a share of the crops; 0 in the others."""
        speech = waves.square().mean(1, keepdim=True).sqrt().clamp_min(1e-3)
        return speech * 10 ** (some(low, high) / 20) * (some(0, 1) < share)

    moments = torch.arange(size, device=device) / RATE
    frequency = torch.where(some(0, 1) < 0.5, 50.0, 60.0) + some(-0.5, 0.5)
    hum = torch.zeros_like(waves)
    fall, last = some(0.3, 1.0), torch.where(some(0, 1) < 0.5, 1.0, some(2, 12))
    for harmonic_number in range(1, 13):
        amount = fall ** (harmonic_number - 1) * (harmonic_number <= last)
        hum += amount * torch.sin(2 * math.pi * (frequency * harmonic_number * moments + some(0, 1)))
    hertz = torch.fft.rfftfreq(size, 1 / RATE, device=device)
    rumble = noise(1 / (1 + (hertz / some(25, 140)) ** some(2, 4)))
    hiss = noise(1 / (1 + hertz / some(100, 6000)) ** some(0, 1.2))
    dirty = some(0, 1) >= CLEAN
    added = level(-35, 0, 0.6) * 1.4 * hum + level(-35, -2, 0.5) * rumble + level(-50, -22, 0.5) * hiss
    return waves + dirty * added


def distance(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """How far bounded latents are from those wanted, above all where they round to another level."""
    beyond = ((found - wanted.round()).abs() - 0.35).clamp_min(0)
    return F.smooth_l1_loss(found, wanted, beta=0.3) + 0.5 * beyond.mean()


def train(data: harmonic.Utterances, args: argparse.Namespace) -> None:
    device = data.samples.device
    start = load_codec(args.codec).model
    if not isinstance(start, HarmonicCodec):
        raise LlasaError(f"{args.codec} has no harmonic head: give a codec that gpu/codec.py made")
    teacher = copy.deepcopy(start).float().eval().requires_grad_(False).to(device)
    codec = copy.deepcopy(teacher)
    encoder = codec.encoder.requires_grad_(True).train()
    inner = [p for name, p in encoder.named_parameters() if p.ndim == 2 and (".up." in name or ".down." in name)]
    chosen = {id(p) for p in inner}
    groups: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([p for p in encoder.parameters() if id(p) not in chosen], args.lr, betas=(0.9, 0.98)),
        torch.optim.Muon(inner, lr=args.lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
    ]
    average = {name: value.detach().clone() for name, value in encoder.state_dict().items()}
    path, step, spent = args.out / "encoder.pt", 0, 0.0
    if path.exists():
        state = load_tensors(path, "delete it to start over", device)
        encoder.load_state_dict(state["encoder"])
        for group, kept in zip(groups, state["groups"], strict=True):
            group.load_state_dict(kept)
        average, step, spent = state["average"], state["step"], state["spent"]
        print(f"resuming at step {step}", flush=True)
    stop: list[None] = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(None))
    rng = torch.Generator(device).manual_seed(args.seed + step)

    def save() -> None:
        state = {"encoder": encoder.state_dict(), "groups": [group.state_dict() for group in groups]}
        torch.save(state | {"average": average, "step": step, "spent": spent}, f"{path}.tmp")
        os.replace(f"{path}.tmp", path)
        made = copy.deepcopy(teacher)
        made.encoder.load_state_dict(average)
        temporary = args.out / ".model"
        shutil.rmtree(temporary, ignore_errors=True)
        made.cpu().half().save_pretrained(temporary)
        shutil.rmtree(args.out / "model", ignore_errors=True)
        os.replace(temporary, args.out / "model")

    losses: list[torch.Tensor] = []
    mark = logged = time.time()
    while spent < 60 * args.minutes and not stop:
        for group in groups:
            for one in group.param_groups:
                one["lr"] = args.lr * harmonic.cosine(spent / (60 * args.minutes), 0.03)
        waves = harmonic.crops(data, CROPS, CODES, HOP, rng)["wave"]
        waves = waves * torch.empty(CROPS, 1, device=device).uniform_(-8, 6, generator=rng).mul_(0.115).exp_()  # dB
        with torch.no_grad():
            wanted = codec.quantizer.bound(teacher.encoder(teacher.spectra(waves)))
        loss = distance(codec.quantizer.bound(encoder(teacher.spectra(disturbed(waves, rng)))), wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        for group in groups:
            group.step()
            group.zero_grad(set_to_none=True)
        step += 1
        own, decay = encoder.state_dict(), min(0.998, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.values()), [own[name] for name in average], 1 - decay)
        losses.append(loss.detach())
        now = time.time()
        spent, mark = spent + now - mark, now
        if step == 1 or now - logged > EVERY:
            line = {"step": step, "seconds": round(spent), "loss": round(float(torch.stack(losses).mean()), 4)}
            line |= agreement(data, teacher, average)
            print(json.dumps(line), flush=True)
            with (args.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            save()
            losses, logged = [], time.time()
            mark = logged
    save()


@torch.no_grad()
def agreement(data: harmonic.Utterances, teacher: HarmonicCodec, average: dict[str, torch.Tensor]) -> dict[str, float]:
    """How many digits of the codes of held-out crops are those of the clean sound: `clean` and `disturbed`.

    `before` is how many are where the teacher itself hears the disturbed sound.
    """
    rng = torch.Generator(data.samples.device).manual_seed(0)
    weights = torch.where(data.weights > 0, 0.0, data.lengths.float())
    if not weights.any():
        weights = data.weights  # of a corpus too small to keep any
    held = copy.copy(data)
    held.weights = weights
    student = copy.deepcopy(teacher.encoder)
    student.load_state_dict(average)
    waves = harmonic.crops(held, 4 * CROPS, CODES, HOP, rng)["wave"]
    dirty = disturbed(waves, rng)

    def digits(encoder: torch.nn.Module, sound: torch.Tensor) -> torch.Tensor:
        return teacher.quantizer.bound(encoder(teacher.spectra(sound))).round()

    right = digits(teacher.encoder, waves)
    shares = {
        "clean": digits(student, waves),
        "disturbed": digits(student, dirty),
        "before": digits(teacher.encoder, dirty),
    }
    return {name: round(float((found == right).float().mean()), 4) for name, found in shares.items()}


def main() -> None:
    args = arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    train(load(args.corpus, device), args)


if __name__ == "__main__":
    try:
        main()
    except LlasaError as error:
        sys.exit(f"error: {error}")

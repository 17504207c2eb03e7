"""Trains an X-codec2 codec from scratch (Llasa, section 3.1), at any size, around transformers' `Xcodec2Model`.

The semantic encoder is frozen; everything else learns together. A second run may `start` from a trained codec: its
codes are then final and only the decoder learns, so a language model can train on the codes while the sound still
improves. Discriminators join at `adversarial_at`. What transformers' class lacks for training is here: an
initialisation in which the signal survives, the semantic decoder, and a loss that spreads the codes over the codebook.
"""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, Xcodec2Config, Xcodec2Model

from llasa.codec.features import HOP, mel_features
from llasa.data.shards import read_rows, row_audio, shard_files
from llasa.errors import LlasaError
from llasa.locks import claimed
from llasa.train import loop
from llasa.train.semantic import PHONE_NAMES
from llasa.train.spectral import Discriminators, discriminator_loss, generator_losses, spectral_losses


@dataclass
class Settings:
    """`recipes/*/codec.yaml`. `semantic` is the recogniser's training folder, `start` a codec's model folder."""

    corpus: list[str]
    validation: list[str]
    semantic: str
    out: str
    start: str | None = None
    tap: int = 4
    hidden: int = 256
    intermediate: int = 1024
    layers: int = 6
    heads: int = 4
    encoder_hidden: int = 6
    ratios: list[int] = field(default_factory=lambda: [8, 5, 4, 2])
    levels: list[int] = field(default_factory=lambda: [4] * 6)
    steps: int = 4000
    adversarial_at: int = 10**9
    # (frames of a crop, crops in a batch): mostly short ones, some long, as the decoder attends to all it is given.
    shapes: list[list[int]] = field(default_factory=lambda: [[128, 5], [128, 5], [128, 5], [320, 2]])
    lr: float = 8e-4
    warmup: int = 100
    mel_weight: float = 15.0
    stft_weight: float = 3.0
    semantic_weight: float = 5.0
    phone_weight: float = 1.0
    entropy_weight: float = 0.5
    bound_weight: float = 0.02
    adversarial_weight: float = 1.0
    matching_weight: float = 1.0
    periods: list[int] = field(default_factory=lambda: [2, 3, 5, 7, 11])
    fft_sizes: list[int] = field(default_factory=lambda: [78, 126, 206, 334, 542, 876, 1418, 2296])
    channels: int = 8
    ema: float = 0.999
    compile: bool = True
    checkpoint_minutes: float = 4.0
    seed: int = 0


def make_model(settings: Settings) -> Xcodec2Model:
    """A fresh codec around the recogniser's first `tap` layers.

    Raises:
        LlasaError: the recogniser's folder is missing.
    """
    folder = Path(settings.semantic) / "model"
    if not (folder / "config.json").exists():
        raise LlasaError(f"no recogniser in {folder}: run `llasa train semantic` first")
    recogniser = AutoModel.from_pretrained(folder, num_hidden_layers=settings.tap)
    config = Xcodec2Config(
        hidden_size=settings.hidden,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        head_dim=settings.hidden // settings.heads,
        encoder_hidden_size=settings.encoder_hidden,
        downsampling_ratios=settings.ratios,
        semantic_model_config=recogniser.config,
        quantization_dim=settings.hidden + recogniser.config.hidden_size,
        quantization_levels=settings.levels,
        activation_dropout=0.0,
    )
    model = Xcodec2Model(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # LeCun-normal: with transformers' default of 0.02 the convolutions let the signal die.
            if weight.ndim > 1 and not name.startswith("semantic_encoder."):
                weight.normal_(0, (weight.numel() / weight.shape[0]) ** -0.5)
            if name.endswith(("o_proj.weight", "fc2.weight")):  # small steps in the residual stream
                weight.mul_(0.3)
        model.acoustic_decoder.head.linear.weight.mul_(0.1)
        model.acoustic_decoder.head.linear.bias.zero_()
    model.semantic_encoder.load_state_dict(recogniser.state_dict())
    model.semantic_encoder.requires_grad_(False)
    return model


class SemanticDecoder(nn.Module):
    """Gives the semantic encoder's output back from the codes, so that the codes must carry it. Training only."""

    def __init__(self, quantised: int, semantic: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(quantised, semantic, 3, padding=1),
            nn.SiLU(),
            nn.Conv1d(semantic, semantic, 3, padding=1),
            nn.SiLU(),
            nn.Conv1d(semantic, semantic, 1),
        )

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, T, quantised) to (B, T, semantic)."""
        return self.net(latents.transpose(1, 2)).transpose(1, 2)


@torch.no_grad()
def fit_scales(model: Xcodec2Model, wave: torch.Tensor, features: torch.Tensor) -> None:
    """Scales the acoustic branch to unit output and centres `project_in` at unit deviation, on a first batch.

    Otherwise FSQ's tanh starts out flat and training collapses to one code.
    """
    model.eval()
    last = model.acoustic_encoder.conv2
    last.weight.div_(model.acoustic_encoder(wave).std())
    z = project(model, wave, features)
    linear = model.quantizer.project_in
    linear.weight.div_(z.std((0, 1))[:, None])
    linear.bias.copy_((linear.bias - z.mean((0, 1))) / z.std((0, 1)) - 0.2)
    model.train()


def project(model: Xcodec2Model, wave: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """`Xcodec2Model.encode` up to the quantiser's input.

    Args:
        wave: (B, 1, frames * HOP).
        features: (B, frames, 160).

    Returns:
        (B, frames, dimensions of the quantiser), unbounded.
    """
    with torch.no_grad(), torch.autocast(wave.device.type, torch.bfloat16):
        heard = model.semantic_encoder(features).last_hidden_state
    heard = heard.float()
    semantic = model.semantic_adapter(heard.transpose(1, 2))
    joined = torch.cat([semantic, model.acoustic_encoder(wave)], 1).transpose(1, 2)
    return model.quantizer.project_in(model.fc_encoder(joined))


def quantise(model: Xcodec2Model, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """FSQ as `Xcodec2Quantizer` does it (bounded twice): latents, code indices, and the values before rounding."""
    fsq = model.quantizer.quantizer
    bounded = fsq.bound(z)
    codes, indices = fsq(bounded)
    return model.quantizer.project_out(codes), indices, fsq.bound(bounded)


def codebook_entropy(values: torch.Tensor, levels: torch.Tensor, temperature: float = 0.15) -> torch.Tensor:
    """Entropy in nats of the batch's mean soft assignment over the whole codebook, for unrounded FSQ values.

    The soft assignment factors over dimensions, so the joint table of the mean is one product of two halves' tables.

    Args:
        values: (N, D) bounded values, in units of levels (-2 to 1 for four levels).
        levels: (D,) number of levels.
    """
    tables = [torch.ones(len(values), 1), torch.ones(len(values), 1)]
    for d, count in enumerate(levels.tolist()):
        points = torch.arange(count, device=values.device) - count // 2
        soft = (-(values[:, d : d + 1] - points).square() / temperature).softmax(-1)
        half = d * 2 // len(levels)
        tables[half] = (tables[half].to(values.device)[:, :, None] * soft[:, None]).flatten(1)
    mean = (tables[0].T @ tables[1] / len(values)).flatten()
    return -(mean * (mean + 1e-9).log()).sum()


def crops(
    files: list[Path], rng: random.Random, frames: int, count: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches of crops: waveform (count, 1, frames * HOP) and features (count, frames, 160).

    Features are normalised over the whole utterance, as they are when a file is encoded.
    """
    waves: list[torch.Tensor] = []
    features: list[torch.Tensor] = []
    for row in mixed_rows(files, rng):
        samples = torch.from_numpy(row_audio(row))
        whole = len(samples) // HOP
        if whole < frames:
            continue
        mels, _ = mel_features(samples)
        start = rng.randrange(whole - frames + 1)
        waves.append(samples[None, start * HOP : (start + frames) * HOP])
        features.append(mels[0, start : start + frames])
        if len(waves) == count:
            yield torch.stack(waves), torch.stack(features)
            waves, features = [], []


def mixed_rows(files: list[Path], rng: random.Random, together: int = 8) -> Iterator[dict[str, Any]]:
    """Endless rows, each from one of a few shards read at once, so that a batch mixes speakers and collections."""
    open_shards: list[Iterator[dict[str, Any]]] = []
    while True:
        while len(open_shards) < together:
            open_shards.append(read_rows(rng.choice(files)))
        chosen = rng.randrange(together)
        row = next(open_shards[chosen], None)
        if row is None:
            open_shards.pop(chosen)
        else:
            yield row


class Trainer(nn.Module):
    """The codec, its semantic decoder and its discriminators: all that a checkpoint holds."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.codec = Xcodec2Model.from_pretrained(settings.start) if settings.start else make_model(settings)
        width: int = self.codec.config.semantic_model_config.hidden_size  # type: ignore[union-attr]
        self.semantic_decoder = SemanticDecoder(self.codec.config.quantization_dim, width)
        self.phones = nn.Linear(width, len(PHONE_NAMES))
        probes = torch.load(Path(settings.semantic) / "probes.pt")
        self.phones.load_state_dict({"weight": probes["phone.weight"], "bias": probes["phone.bias"]})
        self.phones.requires_grad_(False)
        self.judges = Discriminators(settings.periods, settings.fft_sizes, settings.channels)
        self.frozen = settings.start is not None
        if self.frozen:  # nothing that decides a code changes
            self.codec.requires_grad_(False)
            self.codec.acoustic_decoder.requires_grad_(True)
            self.codec.quantizer.project_out.requires_grad_(True)

    def forward(self, wave: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(B, 1, T), (B, frames, 160) to the sound (B, T) and the losses that don't judge sound, weighted."""
        codec, s = self.codec, self.settings
        with torch.set_grad_enabled(not self.frozen and torch.is_grad_enabled()):
            z = project(codec, wave, features)
        latents, _, values = quantise(codec, z)
        with torch.autocast(wave.device.type, torch.bfloat16):
            made = codec.acoustic_decoder(latents)[:, 0]
        terms: dict[str, torch.Tensor] = {}
        if not self.frozen:
            with torch.no_grad(), torch.autocast(wave.device.type, torch.bfloat16):
                heard = codec.semantic_encoder(features).last_hidden_state.float()
            scale, again = heard.std(), self.semantic_decoder(latents)
            terms["semantic"] = s.semantic_weight * F.mse_loss(again / scale, heard / scale)
            # Of all that the semantic encoder hears, the phones matter most.
            told = self.phones(again).flatten(0, 1)
            terms["phone"] = s.phone_weight * F.cross_entropy(told, self.phones(heard).softmax(-1).flatten(0, 1))
            flat = values.flatten(0, 1)
            terms["entropy"] = -s.entropy_weight * codebook_entropy(flat, codec.quantizer.quantizer.levels)
            terms["bound"] = s.bound_weight * z.square().mean()
        return made, terms


@torch.no_grad()
def code_statistics(codes: torch.Tensor, size: int) -> dict[str, float]:
    """Share of the codebook used, and perplexity, of a flat tensor of codes."""
    counts = torch.bincount(codes.flatten().long(), minlength=size).double()
    p = counts / counts.sum()
    perplexity = float((-(p * (p + 1e-12).log()).sum()).exp())
    return {"used": float((counts > 0).double().mean()), "perplexity": perplexity}


def train(settings: Settings) -> None:
    """Trains, or goes on training, in `settings.out`; leaves the codec in `out/model`, in transformers' layout.

    Raises:
        LlasaError: another run is writing into the folder, the disk is full, or a loss is no longer a number.
    """
    with claimed(Path(settings.out)):
        _train(settings)


def _train(settings: Settings) -> None:
    from llasa.train.codec_validation import validate

    out = Path(settings.out)
    torch.manual_seed(settings.seed)
    trainer = Trainer(settings).train()
    saved = loop.load_checkpoint(out)
    files = [file for folder in settings.corpus for file in shard_files(Path(folder))]
    step = saved["step"] if saved else 0
    rng = random.Random(settings.seed + step)
    streams = [crops(files, rng, frames, count) for frames, count in settings.shapes]
    if saved is not None:
        trainer.load_state_dict(saved["model"])
    elif not trainer.frozen:
        batches = [next(streams[0]) for _ in range(8)]
        fit_scales(trainer.codec, torch.cat([w for w, _ in batches]), torch.cat([f for _, f in batches]))
    makers = nn.ModuleDict({"codec": trainer.codec, "semantic": trainer.semantic_decoder})
    groups = loop.optimisers(makers, settings.lr, betas=(0.8, 0.99))
    judging = loop.optimisers(trainer.judges, settings.lr / 4, betas=(0.8, 0.99))
    average = loop.Average(trainer.codec, settings.ema)
    if saved:
        for optimiser, state in zip(groups + judging, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        average.weights = saved["average"]
    if settings.compile:
        trainer.codec.acoustic_encoder.compile()
    log, clock = loop.Log(out, "codec", settings.steps), loop.Clock(settings.checkpoint_minutes)
    while step < settings.steps:
        wave, features = next(streams[step % len(streams)])
        loop.set_learning_rate(groups + judging, step, settings.warmup, settings.steps)
        values = train_step(trainer, makers, groups, judging, wave, features, step >= settings.adversarial_at)
        step += 1
        average.update(trainer.codec, step)
        log.step(step, wave.numel() / 16000, values)
        if clock.due() or step == settings.steps:
            state = {"model": trainer.state_dict(), "optimisers": [o.state_dict() for o in groups + judging]}
            loop.save_checkpoint(out, state | {"average": average.weights, "step": step, "settings": asdict(settings)})
            with average.swapped(trainer.codec), loop.saving(out):
                figures = validate(trainer.codec, [Path(p) for p in settings.validation], out, step)
                trainer.codec.save_pretrained(out / "model")
            log.write(step, figures)
            print("validation", "  ".join(f"{k} {v:.4g}" for k, v in figures.items()), flush=True)
        if clock.stop:
            return


def train_step(
    trainer: Trainer,
    makers: nn.Module,
    groups: list[torch.optim.Optimizer],
    judging: list[torch.optim.Optimizer],
    wave: torch.Tensor,
    features: torch.Tensor,
    adversarial: bool,
) -> dict[str, float]:
    """One step of the codec, and of the discriminators where they take part; returns the unweighted figures."""
    s = trainer.settings
    real = wave[:, 0]
    made, terms = trainer(wave, features)
    mel, stft = spectral_losses(made, real)
    terms |= {"mel": s.mel_weight * mel, "stft": s.stft_weight * stft}
    if adversarial:
        loss = discriminator_loss(trainer.judges(real), trainer.judges(made.detach()))
        loss.backward()
        loop.clip(trainer.judges.parameters(), 1.0)
        _advance(judging)
        with torch.no_grad():
            truth = trainer.judges(real)
        fooling, matching = generator_losses(truth, trainer.judges(made))
        terms |= {"fooling": s.adversarial_weight * fooling, "matching": s.matching_weight * matching}
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    values = {key: float(term.detach()) for key, term in terms.items()}
    values["gradient"] = loop.clip(makers.parameters(), 5.0)
    _advance(groups)
    if adversarial:
        values["judges"] = float(loss.detach())
        trainer.judges.zero_grad(set_to_none=True)
    return values


def _advance(groups: list[torch.optim.Optimizer]) -> None:
    for optimiser in groups:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

"""An X-codec2 codec that learns (Llasa, section 3.1), at any size, around transformers' `Xcodec2Model`.

From scratch the semantic encoder is frozen and everything else learns together. From a trained codec (`start`) either
everything goes on learning, which makes new codes, or only the decoder: then a language model can train on the codes
while the sound still improves. Discriminators join at `adversarial_at`, a speech model that listens at `perceptual_at`.
What transformers' class lacks for training is here: an initialisation in which the signal survives, and the semantic
decoder. How codes come about is in `quantising.py`, the run in `codec_run.py`, its data in `codec_data.py`.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Xcodec2Config, Xcodec2Model

from llasa.codec.xcodec2 import Xcodec2
from llasa.errors import LlasaError
from llasa.loading import first_line
from llasa.train import loop, pitch
from llasa.train.encoders import Listener, load_encoder
from llasa.train.judges import discriminator_loss, full_discriminators, generator_losses, small_discriminators
from llasa.train.processes import average_gradients
from llasa.train.quantising import codebook_entropy, project, quantise
from llasa.train.semantic import PHONE_NAMES
from llasa.train.spectral import SCALES, spectral_losses


@dataclass
class Settings:
    """`recipes/*/codec.yaml`; `llasa train codec --help` says what each is."""

    corpus: list[str]
    validation: list[str]
    out: str
    semantic: str | None = None
    start: str | None = None
    learn: str = "decoder"
    tap: int = 4
    hidden: int = 256
    intermediate: int = 1024
    layers: int = 6
    heads: int = 4
    encoder_hidden: int = 6
    ratios: list[int] = field(default_factory=lambda: [8, 5, 4, 2])
    levels: list[int] = field(default_factory=lambda: [4] * 6)
    dropout: float = 0.0
    steps: int = 4000
    adversarial_at: int = 10**9
    perceptual_at: int = 10**9
    perceptual: str | None = None
    # The first and the last that are compared.
    perceptual_layers: list[int] = field(default_factory=lambda: [10, 21])
    # (frames of a crop, crops in a batch): mostly short ones, some long, as the decoder attends to all it is given.
    shapes: list[list[int]] = field(default_factory=lambda: [[128, 5], [128, 5], [128, 5], [320, 2]])
    readers: int = 0
    lr: float = 8e-4
    muon_lr: float = 0.0
    warmup: int = 100
    lr_floor: float = 0.05
    lr_fall: int | None = None
    judges_lr: float = 0.25
    betas: list[float] = field(default_factory=lambda: [0.8, 0.99])
    clip: float = 5.0
    mel_weight: float = 15.0
    stft_weight: float = 3.0
    # (FFT size, mel bands) of both.
    scales: list[list[int]] = field(default_factory=lambda: [list(scale) for scale in SCALES])
    semantic_weight: float = 5.0
    semantic_relative: bool = True
    phone_weight: float = 1.0
    entropy_weight: float = 0.5
    bound_weight: float = 0.02
    pitch_weight: float = 0.0
    frame_weight: float = 0.0
    adversarial_weight: float = 1.0
    matching_weight: float = 1.0
    perceptual_weight: float = 1.0
    discriminators: str = "small"
    periods: list[int] = field(default_factory=lambda: [2, 3, 5, 7, 11])
    fft_sizes: list[int] = field(default_factory=lambda: [78, 126, 206, 334, 542, 876, 1418, 2296])
    channels: int = 8
    ema: float = 0.999
    compile: bool = True
    checkpoint_minutes: float = 4.0
    seed: int = 0

    @property
    def frozen(self) -> bool:
        """Whether codes stay what they are, and only the decoder learns."""
        return self.start is not None and self.learn == "decoder"

    @property
    def learns_pitch(self) -> bool:
        """Whether codes are taught to tell it."""
        return self.pitch_weight > 0 and not self.frozen


def check(settings: Settings) -> None:
    """Refuses what no run could do, before anything is loaded.

    Raises:
        LlasaError: what, and what to change.
    """
    s = settings
    for name, words in (("learn", ("decoder", "all")), ("discriminators", ("small", "full"))):
        if getattr(s, name) not in words:
            raise LlasaError(f"`{name}: {getattr(s, name)}` is neither `{words[0]}` nor `{words[1]}`")
    if not s.start and not s.semantic:
        raise LlasaError("a codec from scratch needs `semantic`, and one that exists is named by `start`")
    if s.perceptual_at < s.steps and not s.perceptual:
        raise LlasaError("`perceptual_at` needs `perceptual`: the folder or hub id of a speech model")
    if len(s.perceptual_layers) != 2 or not 1 <= s.perceptual_layers[0] <= s.perceptual_layers[1]:
        raise LlasaError(f"`perceptual_layers: {s.perceptual_layers}` is not a first and a last layer, counted from 1")
    if not s.shapes or not all(len(shape) == 2 and min(shape) > 0 for shape in s.shapes):
        raise LlasaError("`shapes` holds pairs: frames of a crop, and crops in a batch")


def make_model(settings: Settings) -> Xcodec2Model:
    """A fresh codec around the semantic encoder's first `tap` layers.

    Raises:
        LlasaError: the semantic encoder is missing, or the sizes do not fit one another.
    """
    assert settings.semantic
    own = Path(settings.semantic) / "model"
    encoder = load_encoder(str(own) if own.is_dir() else settings.semantic, settings.tap, "wav2vec2-bert")
    try:
        config = Xcodec2Config(
            hidden_size=settings.hidden,
            intermediate_size=settings.intermediate,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            head_dim=settings.hidden // settings.heads,
            encoder_hidden_size=settings.encoder_hidden,
            downsampling_ratios=settings.ratios,
            semantic_model_config=encoder.config,
            quantization_dim=settings.hidden + encoder.config.hidden_size,
            quantization_levels=settings.levels,
            activation_dropout=settings.dropout,
        )
        model = Xcodec2Model(config)
    except Exception as error:  # whatever sizes that do not fit one another make torch and transformers raise
        raise LlasaError(f"the recipe's sizes are no X-codec2's ({first_line(error)})") from error
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # LeCun-normal: with transformers' default of 0.02 the convolutions let the signal die.
            if weight.ndim > 1 and not name.startswith("semantic_encoder."):
                weight.normal_(0, (weight.numel() / weight.shape[0]) ** -0.5)
            if name.endswith(("o_proj.weight", "fc2.weight")):  # small steps in the residual stream
                weight.mul_(0.3)
        model.acoustic_decoder.head.linear.weight.mul_(0.1)
        model.acoustic_decoder.head.linear.bias.zero_()
        if settings.pitch_weight:
            begin_as_shifts(model)
    model.semantic_encoder.load_state_dict(encoder.state_dict())
    return Xcodec2(model).model


def begin_as_shifts(model: Xcodec2Model) -> None:
    """Makes four inputs of the decoder's head shifts in time, by 0.2 to 0.02 radians a bin, of what lies below 2 kHz.

    A voice may be anywhere in its cycle when a frame begins, and to move it turns every phase in proportion to its
    frequency. From random weights that is found late.
    """
    decoder = model.acoustic_decoder
    weight, slopes = decoder.head.linear.weight, torch.tensor([0.2, 0.1, 0.05, 0.02])
    bins = weight.shape[0] // 2  # rows of the magnitudes, then those of the phases
    ramp = torch.arange(bins, dtype=torch.float32)
    ramp[ramp >= bins // 4] = 0
    weight[:, : len(slopes)] = torch.cat([torch.zeros(bins), -ramp])[:, None] * slopes
    decoder.norm.weight[: len(slopes)] = 0.15


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


class Trainer(nn.Module):
    """The codec, its semantic decoder and its discriminators: all that a checkpoint holds."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.codec = Xcodec2.load(settings.start).model if settings.start else make_model(settings)
        width: int = self.codec.config.semantic_model_config.hidden_size  # type: ignore[union-attr]
        self.semantic_decoder = SemanticDecoder(self.codec.config.quantization_dim, width)
        self.phones = load_phones(settings, width)
        if settings.discriminators == "full":
            self.judges = full_discriminators(settings.periods, settings.fft_sizes)
        else:
            self.judges = small_discriminators(settings.periods, settings.fft_sizes, settings.channels)
        self.frozen = settings.frozen
        levels: list[int] = list(self.codec.config.quantization_levels)
        if settings.learns_pitch and levels[-len(pitch.LEVELS) :] != pitch.LEVELS:
            raise LlasaError(
                f"`pitch_weight` needs a codec whose levels end in {pitch.LEVELS}, the pitch's: not {levels}"
            )
        self.codec.semantic_encoder.requires_grad_(False)
        if self.frozen:  # nothing that decides a code changes
            self.codec.requires_grad_(False)
            self.codec.acoustic_decoder.requires_grad_(True)
            self.codec.quantizer.project_out.requires_grad_(True)
        self.spectra: torch.Tensor | None = None  # what the decoder's head predicted last
        self.codec.acoustic_decoder.head.linear.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, predicted: torch.Tensor) -> None:
        self.spectra = predicted

    def train(self, mode: bool = True) -> "Trainer":
        """All but the semantic encoder, which hears what it will hear when a file is encoded: no dropout, no masks."""
        super().train(mode)
        self.codec.semantic_encoder.eval()
        return self

    def forward(
        self, wave: torch.Tensor, features: torch.Tensor, tracked: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(B, 1, T), (B, frames, 160), (B, frames, 4) to the sound (B, T) and the losses apart from it, weighted."""
        codec, s = self.codec, self.settings
        with torch.set_grad_enabled(not self.frozen and torch.is_grad_enabled()):
            z = project(codec, wave, features)
        latents, _, values = quantise(codec, z)
        with torch.autocast(wave.device.type, torch.bfloat16):
            made = codec.acoustic_decoder(latents)[:, 0]
        terms: dict[str, torch.Tensor] = {}
        if s.frame_weight and self.spectra is not None:
            size: int = codec.config.n_fft
            terms["frame"] = s.frame_weight * pitch.frame_loss(self.spectra, wave[:, 0], size)
        self.spectra = None
        if not self.frozen:
            with torch.no_grad(), torch.autocast(wave.device.type, torch.bfloat16):
                heard = codec.semantic_encoder(features).last_hidden_state.float()
            scale, again = heard.std() if s.semantic_relative else 1.0, self.semantic_decoder(latents)
            terms["semantic"] = s.semantic_weight * F.mse_loss(again / scale, heard / scale)
            if self.phones is not None:
                # Of all that the semantic encoder hears, the phones matter most.
                told = self.phones(again).flatten(0, 1)
                terms["phone"] = s.phone_weight * F.cross_entropy(told, self.phones(heard).softmax(-1).flatten(0, 1))
            kept = None
            if s.learns_pitch:
                terms["pitch"] = s.pitch_weight * pitch.pitch_loss(values, tracked)
                kept = -len(pitch.LEVELS)  # how often which pitch occurs is not the codebook's to say
            if s.entropy_weight:
                flat, levels = values.flatten(0, 1)[:, :kept], codec.quantizer.quantizer.levels[:kept]
                terms["entropy"] = -s.entropy_weight * codebook_entropy(flat, levels)
            if s.bound_weight:
                terms["bound"] = s.bound_weight * z.square().mean()
        return made, terms


def load_phones(settings: Settings, width: int) -> nn.Linear | None:
    """The probe by which our own recogniser's training folder names phones; None of any other semantic encoder.

    Raises:
        LlasaError: the file is damaged, or of another encoder than the codec's.
    """
    path = Path(settings.semantic or "") / "probes.pt"
    if settings.semantic is None or not path.exists():
        return None
    phones = nn.Linear(width, len(PHONE_NAMES))
    try:
        probes = torch.load(path)
        phones.load_state_dict({"weight": probes["phone.weight"], "bias": probes["phone.bias"]})
    except Exception as error:  # torch's zip reader and unpickler raise whatever they stumble over
        raise LlasaError(f"{path} cannot be used ({first_line(error)}): is it of this codec's recogniser?") from error
    return phones.requires_grad_(False)


def train_step(
    trainer: Trainer,
    makers: nn.Module,
    groups: list[torch.optim.Optimizer],
    judging: list[torch.optim.Optimizer],
    wave: torch.Tensor,
    features: torch.Tensor,
    tracked: torch.Tensor,
    adversarial: bool,
    listener: Listener | None = None,
) -> dict[str, float]:
    """One step of the codec, and of the discriminators and the listener where they take part.

    On several processes each has a part of the batch, and all take the step of the whole.

    Returns:
        the terms of the loss, weighted, the gradient's norm, and the discriminators' loss.
    """
    s = trainer.settings
    real = wave[:, 0]
    made, terms = trainer(wave, features, tracked)
    mel, stft = spectral_losses(made, real, scales=s.scales)
    terms |= {"mel": s.mel_weight * mel, "stft": s.stft_weight * stft}
    if listener is not None:
        terms["perceptual"] = s.perceptual_weight * listener(made, real)
    if adversarial:
        loss = discriminator_loss(trainer.judges(real), trainer.judges(made.detach()))
        loss.backward()
        average_gradients(trainer.judges.parameters())
        loop.clip(trainer.judges.parameters(), 1.0)
        _advance(judging)
        with torch.no_grad():
            truth = trainer.judges(real)
        fooling, matching = generator_losses(truth, trainer.judges(made))
        terms |= {"fooling": s.adversarial_weight * fooling, "matching": s.matching_weight * matching}
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    average_gradients(makers.parameters())
    values = {key: float(term.detach()) for key, term in terms.items()}
    values["gradient"] = loop.clip(makers.parameters(), s.clip)
    _advance(groups)
    if adversarial:
        values["judges"] = float(loss.detach())
        trainer.judges.zero_grad(set_to_none=True)
    return values


def _advance(groups: list[torch.optim.Optimizer]) -> None:
    for optimiser in groups:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

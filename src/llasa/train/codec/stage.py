"""Defines how an X-codec2 of any size learns (Llasa, section 3.1), around transformers' `Xcodec2Model`.

From scratch, the semantic encoder is frozen and everything else learns together. From a trained codec (`start`), either
everything learns, which makes new codes, or only the decoder, so that a language model can train on the codes while the
sound still improves. Discriminators join at the step `discriminators.at`, the perceptual loss at `perceptual.at`.

This module adds what transformers' class lacks for training: an initialisation in which the signal survives, and the
semantic decoder. Quantisation is in `quantising.py`, the run in `run.py`, and the data in `data.py`.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Xcodec2Config, Xcodec2Model

from llasa.codec import load_codec
from llasa.codec.xcodec2 import Xcodec2
from llasa.errors import LlasaError, first_line
from llasa.files import exists, is_folder
from llasa.models.defaults import half_precision
from llasa.train.checkpoint import load_tensors
from llasa.train.codec import pitch
from llasa.train.codec.discriminators import (
    discriminator_loss,
    full_discriminators,
    generator_losses,
    small_discriminators,
)
from llasa.train.codec.encoders import Listener, load_encoder
from llasa.train.codec.quantising import codebook_entropy, project, quantise
from llasa.train.codec.settings import CodecSettings
from llasa.train.codec.spectral import spectral_losses
from llasa.train.loop import clip
from llasa.train.processes import average_gradients
from llasa.train.recogniser.stage import PHONE_NAMES


def make_model(settings: CodecSettings) -> Xcodec2Model:
    """A fresh codec around the semantic encoder's first `tap` layers.

    Raises:
        LlasaError: the semantic encoder is missing, or the sizes do not fit one another.
    """
    sizes = settings.sizes
    assert sizes.semantic_encoder
    own = Path(sizes.semantic_encoder) / "model"
    encoder = load_encoder(str(own) if is_folder(own) else sizes.semantic_encoder, sizes.tap, "wav2vec2-bert")
    try:
        config = Xcodec2Config(
            hidden_size=sizes.hidden,
            intermediate_size=sizes.intermediate,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.heads,
            head_dim=sizes.hidden // sizes.heads,
            encoder_hidden_size=sizes.encoder_hidden,
            downsampling_ratios=sizes.ratios,
            semantic_model_config=encoder.config,
            quantization_dim=sizes.hidden + encoder.config.hidden_size,
            quantization_levels=sizes.levels,
            activation_dropout=sizes.dropout,
        )
        model = Xcodec2Model(config)
    except Exception as error:  # for sizes that do not fit one another, torch and transformers may raise anything
        raise LlasaError(f"the recipe's sizes do not fit one another ({first_line(error)}): correct `sizes`") from error
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # LeCun-normal: with transformers' default of 0.02 the convolutions let the signal die.
            if weight.ndim > 1 and not name.startswith("semantic_encoder."):
                weight.normal_(0, (weight.numel() / weight.shape[0]) ** -0.5)
            if name.endswith(("o_proj.weight", "fc2.weight")):  # small steps in the residual stream
                weight.mul_(0.3)
        model.acoustic_decoder.head.linear.weight.mul_(0.1)
        model.acoustic_decoder.head.linear.bias.zero_()
        if settings.losses.pitch_weight:
            begin_as_shifts(model)
    model.semantic_encoder.load_state_dict(encoder.state_dict())
    return Xcodec2(model).model


def begin_as_shifts(model: Xcodec2Model) -> None:
    """Makes four inputs of the decoder's head shift the sound below 2 kHz in time, by 0.2 to 0.02 radians a bin.

    A voice may be anywhere in its cycle when a frame begins. To shift it in time, every phase has to turn in proportion
    to its frequency. With random weights, training finds this late.
    """
    decoder = model.acoustic_decoder
    weight, slopes = decoder.head.linear.weight, torch.tensor([0.2, 0.1, 0.05, 0.02])
    bins = weight.shape[0] // 2  # rows of the magnitudes, then those of the phases
    ramp = torch.arange(bins, dtype=torch.float32)
    ramp[ramp >= bins // 4] = 0
    weight[:, : len(slopes)] = torch.cat([torch.zeros(bins), -ramp])[:, None] * slopes
    decoder.norm.weight[: len(slopes)] = 0.15


class SemanticDecoder(nn.Module):
    """Reconstructs the semantic encoder's output from the codes, so that codes must carry it. Used only in training."""

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
        """The reconstruction (B, T, semantic) from latents (B, T, quantised)."""
        return self.net(latents.transpose(1, 2)).transpose(1, 2)


class Trainer(nn.Module):
    """The codec, its semantic decoder and its discriminators. A checkpoint holds all of them."""

    def __init__(self, settings: CodecSettings) -> None:
        super().__init__()
        self.settings = settings
        self.codec = load_codec(settings.start).model if settings.start else make_model(settings)
        if not isinstance(self.codec, Xcodec2Model):
            raise LlasaError(f"`start` is {settings.start}, a codec of another kind: start from an X-codec2")
        width: int = self.codec.config.semantic_model_config.hidden_size  # type: ignore[union-attr]
        self.semantic_decoder = SemanticDecoder(self.codec.config.quantization_dim, width)
        self.phones = load_phones(settings, width)
        d = settings.discriminators
        if d.size == "full":
            self.discriminators = full_discriminators(d.periods, d.fft_sizes)
        else:
            self.discriminators = small_discriminators(d.periods, d.fft_sizes, d.channels)
        self.frozen = settings.frozen
        levels: list[int] = list(self.codec.config.quantization_levels)
        if settings.learns_pitch and levels[-len(pitch.LEVELS) :] != pitch.LEVELS:
            raise LlasaError(
                f"`losses.pitch_weight` needs a codec whose levels end in {pitch.LEVELS}, and these are {levels}: "
                "change `sizes.levels`"
            )
        self.codec.semantic_encoder.requires_grad_(False)
        if self.frozen:  # weights that affect the codes do not change
            self.codec.requires_grad_(False)
            self.codec.acoustic_decoder.requires_grad_(True)
            self.codec.quantizer.project_out.requires_grad_(True)
        self.spectra: torch.Tensor | None = None  # the last prediction of the decoder's head
        self.codec.acoustic_decoder.head.linear.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, predicted: torch.Tensor) -> None:
        self.spectra = predicted

    def train(self, mode: bool = True) -> "Trainer":
        """Sets the mode of all but the semantic encoder, which always runs as in encoding: no dropout, no masks."""
        super().train(mode)
        self.codec.semantic_encoder.eval()
        return self

    def forward(
        self, wave: torch.Tensor, features: torch.Tensor, tracked: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Encodes and decodes a batch.

        Args:
            wave: (B, 1, T).
            features: (B, frames, 160).
            tracked: (B, frames, 4), the output of `pitch.track`.

        Returns:
            The sound (B, T), and the weighted losses that do not depend on it.
        """
        codec, s = self.codec, self.settings.losses
        with torch.set_grad_enabled(not self.frozen and torch.is_grad_enabled()):
            z = project(codec, wave, features)
        latents, _, values = quantise(codec, z)
        with half_precision(wave.device.type):
            made = codec.acoustic_decoder(latents)[:, 0]
        terms: dict[str, torch.Tensor] = {}
        if s.frame_weight and self.spectra is not None:
            size: int = codec.config.n_fft
            terms["frame"] = s.frame_weight * pitch.frame_loss(self.spectra, wave[:, 0], size)
        self.spectra = None
        if not self.frozen:
            with torch.no_grad(), half_precision(wave.device.type):
                wanted = codec.semantic_encoder(features).last_hidden_state.float()
            scale, found = wanted.std() if s.semantic_relative else 1.0, self.semantic_decoder(latents)
            terms["semantic"] = s.semantic_weight * F.mse_loss(found / scale, wanted / scale)
            if self.phones is not None:
                # Of all that the semantic encoder encodes, the phones matter most.
                logits, targets = self.phones(found), self.phones(wanted).softmax(-1)
                terms["phone"] = s.phone_weight * F.cross_entropy(logits.flatten(0, 1), targets.flatten(0, 1))
            kept = None
            if self.settings.learns_pitch:
                terms["pitch"] = s.pitch_weight * pitch.pitch_loss(values, tracked)
                kept = -len(pitch.LEVELS)  # the dimensions of pitch need not be used evenly
            if s.entropy_weight:
                flat, levels = values.flatten(0, 1)[:, :kept], codec.quantizer.quantizer.levels[:kept]
                terms["entropy"] = -s.entropy_weight * codebook_entropy(flat, levels)
            if s.bound_weight:
                terms["bound"] = s.bound_weight * z.square().mean()
        return made, terms


def load_phones(settings: CodecSettings, width: int) -> nn.Linear | None:
    """The probe for phones in the training folder of our own recogniser; None for any other semantic encoder.

    Raises:
        LlasaError: the file is damaged, or belongs to another encoder than the codec's.
    """
    path = Path(settings.sizes.semantic_encoder or "") / "probes.pt"
    if settings.sizes.semantic_encoder is None or not exists(path):
        return None
    phones, remedy = nn.Linear(width, len(PHONE_NAMES)), "check that it is of this codec's recogniser"
    probes = load_tensors(path, remedy)
    try:
        phones.load_state_dict({"weight": probes["phone.weight"], "bias": probes["phone.bias"]})
    except (KeyError, RuntimeError, TypeError) as error:
        raise LlasaError(f"{path} cannot be used ({first_line(error)}): {remedy}") from error
    return phones.requires_grad_(False)


def backward(
    trainer: Trainer,
    learner: nn.Module,
    wave: torch.Tensor,
    features: torch.Tensor,
    tracked: torch.Tensor,
    discriminating: list[torch.optim.Optimizer],
    listener: Listener | None = None,
) -> dict[str, torch.Tensor]:
    """Takes a step of the discriminators, then computes the gradients of one step.

    With several processes, each has a part of the batch, and all get the gradients of the whole.

    Args:
        learner: the part of the trainer that gets gradients.
        discriminating: the discriminators' optimisers; without any, there is no adversarial loss.
        listener: the perceptual loss, if it is used.

    Returns:
        The weighted terms of the loss, and the discriminators' loss.
    """
    s, d = trainer.settings.losses, trainer.settings.discriminators
    discriminators, real = trainer.discriminators, wave[:, 0]
    made, terms = trainer(wave, features, tracked)
    mel, stft = spectral_losses(made, real, scales=s.scales)
    terms |= {"mel": s.mel_weight * mel, "stft": s.stft_weight * stft}
    if listener is not None:
        terms["perceptual"] = trainer.settings.perceptual.weight * listener(made, real)
    own: dict[str, torch.Tensor] = {}
    if discriminating:
        own["discriminators"] = discriminator_loss(discriminators(real), discriminators(made.detach()))
        own["discriminators"].backward()
        average_gradients(discriminators.parameters())
        clip(discriminators.parameters(), 1.0)
        for optimiser in discriminating:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            truth = discriminators(real)
        fooling, matching = generator_losses(truth, discriminators(made))
        terms |= {"fooling": d.fooling_weight * fooling, "matching": d.matching_weight * matching}
    torch.stack(list(terms.values())).sum().backward()
    average_gradients(learner.parameters())
    discriminators.zero_grad(set_to_none=True)
    return terms | own

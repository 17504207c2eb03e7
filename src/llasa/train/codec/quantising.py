"""Quantises in the training of an X-codec2: with gradients, and with a loss that spreads codes over the codebook."""

import torch
from transformers import Xcodec2Model

from llasa.models.defaults import half_precision


@torch.no_grad()
def fit_scales(model: Xcodec2Model, wave: torch.Tensor, features: torch.Tensor) -> None:
    """Scales the acoustic branch to unit deviation, and centres and scales `project_in`, on a first batch.

    Otherwise FSQ's tanh is flat at the start, and training collapses to one code.
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
    with torch.no_grad(), half_precision(wave.device.type):
        hidden = model.semantic_encoder(features).last_hidden_state
    hidden = hidden.float()
    semantic = model.semantic_adapter(hidden.transpose(1, 2))
    joined = torch.cat([semantic, model.acoustic_encoder(wave)], 1).transpose(1, 2)
    return model.quantizer.project_in(model.fc_encoder(joined))


def quantise(model: Xcodec2Model, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """FSQ as in `Xcodec2Quantizer`, bounded twice: returns latents, code indices, and the values before rounding."""
    fsq = model.quantizer.quantizer
    bounded = fsq.bound(z)
    codes, indices = fsq(bounded)
    return model.quantizer.project_out(codes), indices, fsq.bound(bounded)


def codebook_entropy(values: torch.Tensor, levels: torch.Tensor, temperature: float = 0.15) -> torch.Tensor:
    """The entropy in nats of the batch's mean soft assignment over the whole codebook, for unrounded FSQ values.

    The soft assignment factors over dimensions, so the mean's table is one matrix product of two tables, each over half
    of the dimensions.

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

"""Scores speaker similarity to the reference with WavLM large and an ECAPA-TDNN: the SIM of Seed-TTS-Eval.

The weights are Microsoft's `wavlm_large_finetune.pth` (UniSpeech, downstreams/speaker_verification), a file by itself.
WavLM (arXiv 2110.13900) runs in transformers; its layers are summed with learned weights and read by an ECAPA-TDNN
(arXiv 2005.07143). Sizes are those of the file.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llasa.errors import LlasaError, first_line
from llasa.files import is_file
from llasa.models.defaults import check_device
from llasa.models.folder import hush_transformers
from llasa.verifiers.likeness import Likeness

FILE = "wavlm_large_finetune.pth"
WHERE = "https://github.com/microsoft/UniSpeech/tree/main/downstreams/speaker_verification"
STRIDES = (5, 2, 2, 2, 2, 2, 2)
SCALE = 8  # parts of a Res2 block
# From WavLM's own names to those of transformers.
_NAMES = (
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^mask_emb$", "masked_spec_embed"),
    (r"^encoder\.pos_conv\.0\.weight_g$", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"^encoder\.pos_conv\.0\.weight_v$", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"^encoder\.pos_conv\.0\.bias$", "encoder.pos_conv_embed.conv.bias"),
    (r"(conv_layers\.\d+)\.0\.", r"\1.conv."),
    (r"(conv_layers\.\d+)\.2\.1\.", r"\1.layer_norm."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
    (r"\.self_attn\.grep_linear\.", ".attention.gru_rel_pos_linear."),
    (r"\.self_attn\.grep_a$", ".attention.gru_rel_pos_const"),
    (r"\.self_attn\.relative_attention_bias\.", ".attention.rel_attn_embed."),
    (r"\.self_attn\.", ".attention."),
)


def load(path: str | None = None, device: str = "cpu") -> Likeness:
    """Loads the verifier from the file of weights.

    Raises:
        LlasaError: there is no such file, or it holds something else.
    """
    if path is None or not is_file(path):
        raise LlasaError(f"there is no file {path or FILE}: fetch {FILE} from {WHERE}, and pass wavlm-large:FILE")
    hush_transformers()
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        network = Network(found.get("model", found)).eval()
    except Exception as error:  # of a file of another kind, anything may be raised
        raise LlasaError(f"{path} is not {FILE} ({first_line(error)}): fetch it from {WHERE}") from error
    network.to(check_device(device))

    @torch.inference_mode()
    def embed(audios: np.ndarray) -> np.ndarray:
        place = network.feature_weight.device
        return network(torch.from_numpy(audios).to(place)).cpu().numpy()

    return Likeness(f"wavlm-large:{path}", embed)


class Network(nn.Module):
    """WavLM and an ECAPA-TDNN, with the sizes and values of these weights, whose names are those of UniSpeech."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        prefix = "feature_extract.model."
        own = {renamed(name.removeprefix(prefix)): w for name, w in weights.items() if name.startswith(prefix)}
        self.wavlm = _wavlm(own)
        rest = {name: w for name, w in weights.items() if not name.startswith(prefix)}
        width, features = rest["layer1.conv.weight"].shape[:2]
        bottleneck = rest["layer2.SE_Connect.linear1.weight"].shape[0]
        last = rest["conv.weight"].shape[0]
        self.feature_weight = nn.Parameter(torch.zeros(len(rest["feature_weight"])))
        self.instance_norm = nn.InstanceNorm1d(features)
        self.layer1 = ConvBlock(features, width, kernel_size=5, padding=2)
        self.layer2, self.layer3, self.layer4 = (ResidualBlock(width, spread, bottleneck) for spread in (2, 3, 4))
        self.conv = nn.Conv1d(3 * width, last, 1)
        self.pooling = Pooling(last, rest["pooling.linear1.weight"].shape[0])
        self.bn = nn.BatchNorm1d(2 * last)
        self.linear = nn.Linear(2 * last, rest["linear.weight"].shape[0])
        missing, _ = self.load_state_dict(rest, strict=False)  # the file also has what training needed
        if missing := [name for name in missing if not name.startswith("wavlm.")]:
            raise ValueError(f"it has no {missing[0]}")

    def forward(self, audios: Tensor) -> Tensor:
        """Sounds (B, T) at 16 kHz to embeddings (B, D)."""
        audios = F.layer_norm(audios, audios.shape[1:])
        found = self.wavlm(audios, output_hidden_states=True)
        # The last one is normalised, which some versions of transformers do not do to it in this list.
        states = torch.stack([*found.hidden_states[:-1], found.last_hidden_state])
        x = torch.einsum("l,lbtc->bct", self.feature_weight.softmax(0), states) + 1e-6
        first = self.layer2(self.layer1(self.instance_norm(x)))
        second = self.layer3(first)
        x = torch.cat([first, second, self.layer4(second)], 1)
        return self.linear(self.bn(self.pooling(F.relu(self.conv(x)))))


class ConvBlock(nn.Module):
    """A convolution, ReLU and batch norm: (B, C, T) to (B, D, T)."""

    def __init__(self, channels: int, width: int, **sizes: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv1d(channels, width, **sizes), nn.BatchNorm1d(width)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(F.relu(self.conv(x)))


class Res2(nn.Module):
    """Convolutions of parts of the channels, each of which also hears the one before; the last part is passed on."""

    def __init__(self, width: int, spread: int) -> None:
        super().__init__()
        part = width // SCALE
        sizes = {"kernel_size": 3, "padding": spread, "dilation": spread}
        self.convs = nn.ModuleList(nn.Conv1d(part, part, **sizes) for _ in range(SCALE - 1))  # type: ignore[arg-type]
        self.bns = nn.ModuleList(nn.BatchNorm1d(part) for _ in range(SCALE - 1))

    def forward(self, x: Tensor) -> Tensor:
        *parts, last = x.chunk(SCALE, 1)
        made: list[Tensor] = []
        for part, conv, norm in zip(parts, self.convs, self.bns, strict=True):
            made.append(norm(F.relu(conv(part + made[-1] if made else part))))
        return torch.cat([*made, last], 1)


class Squeeze(nn.Module):
    """Scales each channel by what all channels hold on average."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.linear2(F.relu(self.linear1(x.mean(2)))))[:, :, None]


class ResidualBlock(nn.Module):
    """The block of ECAPA-TDNN, with UniSpeech's names for its parts."""

    def __init__(self, width: int, spread: int, bottleneck: int) -> None:
        super().__init__()
        self.Conv1dReluBn1 = ConvBlock(width, width, kernel_size=1)
        self.Res2Conv1dReluBn = Res2(width, spread)
        self.Conv1dReluBn2 = ConvBlock(width, width, kernel_size=1)
        self.SE_Connect = Squeeze(width, bottleneck)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.SE_Connect(self.Conv1dReluBn2(self.Res2Conv1dReluBn(self.Conv1dReluBn1(x))))


class Pooling(nn.Module):
    """Mean and deviation over time, weighted by attention: (B, C, T) to (B, 2 C)."""

    def __init__(self, width: int, attention: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Conv1d(width, attention, 1), nn.Conv1d(attention, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.softmax(self.linear2(torch.tanh(self.linear1(x))), 2)
        mean = (weight * x).sum(2)
        power = (weight * x.square()).sum(2) - mean.square()
        return torch.cat([mean, power.clamp(min=1e-9).sqrt()], 1)


def renamed(name: str) -> str:
    """A weight's name in WavLM's own code as transformers calls it."""
    for pattern, to in _NAMES:
        name = re.sub(pattern, to, name)
    return name


def _wavlm(weights: Mapping[str, Tensor]) -> Any:
    """transformers' WavLM with these weights."""
    from transformers import WavLMConfig, WavLMModel

    convs = [weights[f"feature_extractor.conv_layers.{place}.conv.weight"] for place in range(len(STRIDES))]
    layers = {int(found[1]) for name in weights if (found := re.match(r"encoder\.layers\.(\d+)\.", name))}
    inner = weights["encoder.layers.0.feed_forward.intermediate_dense.weight"]
    position = weights["encoder.pos_conv_embed.conv.parametrizations.weight.original1"]
    buckets, heads = weights["encoder.layers.0.attention.rel_attn_embed.weight"].shape
    model = WavLMModel(WavLMConfig(
        hidden_size=inner.shape[1], intermediate_size=inner.shape[0], num_hidden_layers=len(layers),
        num_attention_heads=heads, conv_dim=[w.shape[0] for w in convs], conv_kernel=[w.shape[2] for w in convs],
        conv_stride=STRIDES, num_buckets=buckets, num_conv_pos_embeddings=position.shape[2],
        num_conv_pos_embedding_groups=inner.shape[1] // position.shape[1], do_stable_layer_norm=True,
        feat_extract_norm="layer",
    ))  # fmt: skip
    missing, _ = model.load_state_dict(weights, strict=False)
    if missing := [name for name in missing if name != "masked_spec_embed"]:
        raise ValueError(f"it has no {missing[0]}")
    return model

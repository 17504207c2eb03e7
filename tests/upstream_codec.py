"""X-codec2's own model at small size, written down again as a specification: its names, its layout, its arithmetic.

The activations and the semantic encoder are transformers'; everything in which the layouts differ is spelt out here.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel
from transformers.models.xcodec2.modeling_xcodec2 import Xcodec2AntiAliasedActivation1d, Xcodec2SnakeBeta

HIDDEN, HEADS, SEMANTIC, DIMENSIONS, HOP = 128, 2, 32, 3, 320
LAYERS, TAP = 17, 16


def activation(channels: int) -> nn.Module:
    return Xcodec2AntiAliasedActivation1d(Xcodec2SnakeBeta(channels))


class Residual(nn.Module):
    """`x + block(x)`."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x)


class Plain(nn.Module):
    """`block(x)`."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class AcousticEncoder(nn.Module):
    def __init__(self, width: int = 4, ratios: tuple[int, ...] = (8, 5, 4, 2)) -> None:
        super().__init__()
        blocks: list[nn.Module] = [weight_norm(nn.Conv1d(1, width, 7, padding=3))]
        for ratio in ratios:
            units = [
                Residual(
                    activation(width),
                    weight_norm(nn.Conv1d(width, width, 7, dilation=step, padding=3 * step)),
                    activation(width),
                    weight_norm(nn.Conv1d(width, width, 1)),
                )
                for step in (1, 3, 9)
            ]
            down = weight_norm(nn.Conv1d(width, 2 * width, 2 * ratio, ratio, padding=math.ceil(ratio / 2)))
            blocks.append(Plain(*units, activation(width), down))
            width *= 2
        self.conv_blocks = nn.Sequential(*blocks)
        self.conv_final_block = nn.Sequential(activation(width), weight_norm(nn.Conv1d(width, HIDDEN, 3, padding=1)))

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        return self.conv_final_block(self.conv_blocks(wave))


class Adapter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.initial_conv = nn.Conv1d(SEMANTIC, SEMANTIC, 3, padding=1, bias=False)
        convolutions = [nn.Conv1d(SEMANTIC, SEMANTIC, 3, padding=1) for _ in range(2)]
        self.residual_blocks = nn.Sequential(nn.ReLU(), convolutions[0], nn.ReLU(), convolutions[1])
        self.final_conv = nn.Conv1d(SEMANTIC, SEMANTIC, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.initial_conv(x).relu()  # in place there: what is added back has been through it
        return self.final_conv(x + self.residual_blocks(x))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_attn = nn.Linear(HIDDEN, 3 * HIDDEN, bias=False)
        self.c_proj = nn.Linear(HIDDEN, HIDDEN, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.c_attn(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v)
        return self.c_proj(y.transpose(1, 2).flatten(2))

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        """(B, heads, T, D): neighbours as complex numbers, by an angle that grows from head to head."""
        frequencies = 10000.0 ** -(torch.arange(0, x.shape[-1], 2) / x.shape[-1])
        angles = torch.outer(torch.arange(HEADS).float(), frequencies)
        turned = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(
            torch.ones_like(angles), angles
        ).unsqueeze(1)
        return torch.view_as_real(turned).flatten(-2)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.att_norm, self.ffn_norm = nn.RMSNorm(HIDDEN, eps=1e-6), nn.RMSNorm(HIDDEN, eps=1e-6)
        self.att = Attention()
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(HIDDEN, 2 * HIDDEN, bias=False), "fc2": nn.Linear(2 * HIDDEN, HIDDEN, bias=False)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.att(self.att_norm(x))
        return x + self.mlp["fc2"](F.silu(self.mlp["fc1"](self.ffn_norm(x))))


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(32, HIDDEN, eps=1e-6), nn.GroupNorm(32, HIDDEN, eps=1e-6)
        self.conv1, self.conv2 = (nn.Conv1d(HIDDEN, HIDDEN, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(HIDDEN, HIDDEN, 7, padding=3)
        self.prior_net = nn.Sequential(Convolutions(), Convolutions())
        self.transformers = nn.Sequential(Layer(), Layer())
        self.post_net = nn.Sequential(Convolutions(), Convolutions())
        self.final_layer_norm = nn.LayerNorm(HIDDEN, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.prior_net(self.embed(x.transpose(1, 2))).transpose(1, 2)
        x = self.post_net(self.transformers(x).transpose(1, 2))
        return self.final_layer_norm(x.transpose(1, 2))


class UpstreamCodec(nn.Module):
    """The whole: `encode` gives (T,) codes, `decode` gives (T * HOP,) samples."""

    def __init__(self) -> None:
        super().__init__()
        self.semantic_model = Wav2Vec2BertModel(semantic_config())
        self.SemanticEncoder_module = Adapter()
        self.CodecEnc = AcousticEncoder()
        quantiser = {"project_in": nn.Linear(HIDDEN + SEMANTIC, DIMENSIONS)}
        quantiser["project_out"] = nn.Linear(DIMENSIONS, HIDDEN + SEMANTIC)
        head = nn.ModuleDict({"out": nn.Linear(HIDDEN, 4 * HOP + 2)})
        parts = {"quantizer": nn.ModuleDict(quantiser), "backbone": Backbone(), "head": head}
        self.generator = nn.ModuleDict(parts)
        self.fc_prior = nn.Linear(HIDDEN + SEMANTIC, HIDDEN + SEMANTIC)
        self.fc_post_a = nn.Linear(HIDDEN + SEMANTIC, HIDDEN)

    def encode(self, wave: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        heard = self.semantic_model(features, output_hidden_states=True).hidden_states[TAP]
        joined = torch.cat([self.SemanticEncoder_module(heard.transpose(1, 2)), self.CodecEnc(wave)], 1)
        z = self.generator["quantizer"]["project_in"](self.fc_prior(joined.transpose(1, 2)))
        digits = bound(bound(z)).round() + 2
        return (digits * 4 ** torch.arange(DIMENSIONS)).sum(-1)[0].long()

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        digits = codes[:, None] // 4 ** torch.arange(DIMENSIONS) % 4
        latents = self.generator["quantizer"]["project_out"]((digits - 2) / 2)
        x = self.generator["head"]["out"](self.generator["backbone"](self.fc_post_a(latents)[None]))
        magnitude, phase = x[0].chunk(2, -1)
        spectrum = torch.polar(magnitude.exp().clamp(max=100), phase)
        window = torch.hann_window(4 * HOP)
        frames = torch.fft.irfft(spectrum) * window
        sound, weight = torch.zeros((len(codes) + 3) * HOP), torch.zeros((len(codes) + 3) * HOP)
        for i, frame in enumerate(frames):
            sound[i * HOP : (i + 4) * HOP] += frame
            weight[i * HOP : (i + 4) * HOP] += window.square()
        cut = slice(3 * HOP // 2, -3 * HOP // 2)
        return sound[cut] / weight[cut]


def semantic_config(layers: int = LAYERS) -> Wav2Vec2BertConfig:
    return Wav2Vec2BertConfig(
        hidden_size=SEMANTIC, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=48,
        feature_projection_input_dim=160, conv_depthwise_kernel_size=7, apply_spec_augment=False,
    )  # fmt: skip


def bound(z: torch.Tensor) -> torch.Tensor:
    half = 3 * 1.001 / 2
    return torch.tanh(z + math.atanh(0.5 / half)) * half - 0.5


@torch.no_grad()
def make_upstream(seed: int = 2) -> UpstreamCodec:
    """A random one, no two of whose tensors are alike, and whose codes vary."""
    torch.manual_seed(seed)
    model = UpstreamCodec().eval()
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(0, (weight.numel() / weight.shape[0]) ** -0.5)
        else:
            weight.add_(torch.randn_like(weight), alpha=0.1)
        if name.endswith("original0"):
            weight.uniform_(0.8, 1.2)
    model.CodecEnc.conv_final_block[1].parametrizations.weight.original0.mul_(0.05)  # not to drown the semantics
    model.generator["quantizer"]["project_in"].bias.zero_()
    return model


def hub_tensors(model: UpstreamCodec) -> dict[str, torch.Tensor]:
    """Its tensors as the hub spells them."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if "filter" not in name}
    for name in list(tensors):
        if name.endswith("parametrizations.weight.original0"):
            stem = name.removesuffix("parametrizations.weight.original0")
            tensors[f"{stem}weight_g"] = tensors.pop(name)
            tensors[f"{stem}weight_v"] = tensors.pop(f"{stem}parametrizations.weight.original1")
    return tensors


def package_tensors(model: UpstreamCodec) -> dict[str, torch.Tensor]:
    """Its tensors as its package spells them when it saves a model."""
    return {
        name.replace("act.beta", "act.bias"): tensor
        for name, tensor in model.state_dict().items()
        if "filter" not in name
    }


def save_original(tensors: dict[str, torch.Tensor], folder: Path, kind: str = "xcodec2") -> Path:
    """A folder like that of HKUSTAudio/xcodec2."""
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": kind, "semantic_hidden_size": 1024, "codec_decoder_hidden_size": 1024, "use_vocos": True}
    (folder / "config.json").write_text(json.dumps(config))
    return folder

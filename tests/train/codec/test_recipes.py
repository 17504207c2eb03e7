"""The recipes of recipes/xcodec2 against what upstream published, the discriminators' sizes, and the help."""

import itertools
from pathlib import Path

import pytest
import torch
from transformers import Xcodec2Config

from llasa.train.codec.discriminators import discriminator_loss, full_discriminators, generator_losses
from llasa.train.codec.settings import CodecSettings
from llasa.train.schedule import set_learning_rate
from llasa.train.settings import read_settings

FOLDER = Path(__file__).parents[3] / "recipes" / "xcodec2"


@pytest.fixture(scope="module")
def upstream() -> CodecSettings:
    return read_settings(CodecSettings, FOLDER / "codec.yaml")


@pytest.mark.parametrize("name", ["codec", "decoder", "all"])
def test_recipes_can_be_run(name: str) -> None:
    settings = read_settings(CodecSettings, FOLDER / f"{name}.yaml")
    settings.check()
    assert all(count % 8 == 0 for _, count in settings.data.shapes)  # on eight GPUs


def test_sizes_are_those_of_the_official_codec(upstream: CodecSettings) -> None:
    official = Xcodec2Config()
    assert upstream.sizes.semantic_encoder == "facebook/w2v-bert-2.0"
    assert official.semantic_model_config is not None
    assert upstream.sizes.tap == official.semantic_model_config.num_hidden_layers  # type: ignore[union-attr]
    ours = {
        "hidden_size": upstream.sizes.hidden, "intermediate_size": upstream.sizes.intermediate, "head_dim": 64,
        "num_hidden_layers": upstream.sizes.layers, "num_attention_heads": upstream.sizes.heads,
        "encoder_hidden_size": upstream.sizes.encoder_hidden, "activation_dropout": upstream.sizes.dropout,
        "quantization_dim": upstream.sizes.hidden + 1024,
    }  # fmt: skip
    assert {name: getattr(official, name) for name in ours} == ours
    assert list(official.downsampling_ratios) == upstream.sizes.ratios
    assert list(official.quantization_levels) == upstream.sizes.levels
    assert upstream.sizes.hidden == 64 * upstream.sizes.heads


@torch.no_grad()
def test_discriminators_are_upstreams(upstream: CodecSettings) -> None:
    torch.manual_seed(0)
    discriminators = full_discriminators(upstream.discriminators.periods, upstream.discriminators.fft_sizes)
    # By its own definition: convolutions with weight norm, whose scale is one more number for each channel.
    period = [(1, 16, 5), (16, 64, 5), (64, 256, 5), (256, 512, 5), (512, 512, 5), (512, 1, 2)]
    spectral = [(1, 32, 25), (32, 64, 25), (64, 128, 25), (128, 256, 25), (256, 512, 9), (512, 1, 9)]
    sizes = [sum(a * b * kernel + 2 * b for a, b, kernel in layers) for layers in (period, spectral)]
    assert sum(p.numel() for p in discriminators.parameters()) == 5 * sizes[0] + 8 * sizes[1]
    real, made = torch.randn(2, 1, 9600).unbind()
    found = discriminators(real)
    assert len(found) == upstream.discriminators.fooling_weight == 13
    assert sum(len(maps) - 1 for maps in found) == upstream.discriminators.matching_weight == 65
    assert upstream.losses.mel_weight == 15 * len(upstream.losses.scales)
    # What upstream adds up, and what the means here make of it.
    fakes = discriminators(made)
    fooling, matching = generator_losses(found, fakes)
    added = sum((1 - maps[-1]).square().mean() for maps in fakes)
    assert float(upstream.discriminators.fooling_weight * fooling) == pytest.approx(float(added), rel=1e-4)
    pairs = [zip(a[:-1], b[:-1], strict=True) for a, b in zip(found, fakes, strict=True)]
    added = sum((a - b).abs().mean() for a, b in itertools.chain(*pairs))
    assert float(upstream.discriminators.matching_weight * matching) == pytest.approx(float(added), rel=1e-4)
    assert float(discriminator_loss(found, fakes)) > 0


def test_the_learning_rate_is_upstreams(upstream: CodecSettings) -> None:
    groups = [torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=upstream.schedule.lr)]
    groups[0].param_groups[0]["peak"] = upstream.schedule.lr
    rates = {}
    for step in (1499, 2999, 3000, 203000, 403000, 1399999):
        set_learning_rate(groups, step, upstream.schedule)
        rates[step] = groups[0].param_groups[0]["lr"]
    assert rates == pytest.approx(
        {1499: 5e-5, 2999: 1e-4, 3000: 1e-4, 203000: 6e-5, 403000: 2e-5, 1399999: 2e-5}, rel=1e-6
    )

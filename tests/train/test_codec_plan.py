"""The estimate of a codec's memory: what upstream's size was counted to need, and what does not fit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from encoders import make_semantic_folder

from llasa.errors import LlasaError
from llasa.train import codec_plan
from llasa.train.codec import Settings, Trainer
from llasa.train.codec_plan import estimate, require_memory
from llasa.train.loop import read_settings

RECIPE = Path(__file__).parents[2] / "recipes/xcodec2/codec.yaml"


def test_upstreams_size_is_what_was_counted() -> None:
    settings = read_settings(Settings, RECIPE)
    fixed, each = estimate(settings)
    assert fixed + 48 * each == pytest.approx(115, abs=2)
    early = estimate(replace(settings, perceptual_at=10**9))[1]
    assert 48 * (each - early) == pytest.approx(28, abs=1)


def test_a_run_that_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, cpu = read_settings(Settings, RECIPE), torch.device("cpu")
    monkeypatch.setattr(codec_plan, "room", lambda *_: 64 * 2**30)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(LlasaError, match=r"need about 115 GB a process and there are 64 GB: .* `\[300, 32\]`"):
        require_memory(settings, cpu, 8)
    require_memory(replace(settings, shapes=[[300, 32]]), cpu, 8)
    monkeypatch.setattr(codec_plan, "room", lambda *_: 4 * 2**30)
    with pytest.raises(LlasaError, match="take a larger device or a smaller codec"):
        require_memory(settings, cpu, 8)


def test_a_decoder_alone_keeps_nothing_of_the_encoder(codec_folder: Path) -> None:
    settings = Settings([], [], "", start=str(codec_folder))
    assert estimate(settings)[1] < estimate(replace(settings, learn="all"))[1] / 1.5


@pytest.mark.parametrize(("channels", "ratios"), [(6, [8, 5, 4, 2]), (12, [2, 2, 4, 4, 5])])
def test_the_encoders_share_is_what_autograd_keeps(channels: int, ratios: list[int], tmp_path: Path) -> None:
    settings = Settings(
        [], [], "", semantic=str(make_semantic_folder(tmp_path / "w2v")), tap=2, encoder_hidden=channels, ratios=ratios
    )
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    trainer = Trainer(settings)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = trainer.codec.acoustic_encoder(torch.randn(1, 1, 32_000))
    assert out.requires_grad
    encoder = estimate(settings)[1] - estimate(replace(settings, encoder_hidden=0))[1]
    assert sum(kept.values()) / 2 == pytest.approx(encoder * 2**30, rel=0.2)  # of two seconds

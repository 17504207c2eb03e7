"""The estimate of a codec's memory: what upstream's size was counted to need, and what does not fit."""

from pathlib import Path

import pytest
import torch
from encoders import make_semantic_folder
from nested import codec_settings

from llasa.errors import LlasaError
from llasa.train.codec import memory as codec_plan
from llasa.train.codec.memory import estimate, require_memory
from llasa.train.codec.settings import CodecSettings
from llasa.train.codec.stage import Trainer
from llasa.train.settings import changed, read_settings

RECIPE = Path(__file__).parents[3] / "recipes/xcodec2/codec.yaml"


def test_upstreams_size_is_what_was_counted() -> None:
    settings = read_settings(CodecSettings, RECIPE)
    fixed, each = estimate(settings)
    assert fixed + 48 * each == pytest.approx(115, abs=2)
    early = estimate(changed(settings, {"perceptual.at": 10**9}))[1]
    assert 48 * (each - early) == pytest.approx(28, abs=1)


def test_a_run_that_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, cpu = read_settings(CodecSettings, RECIPE), torch.device("cpu")
    monkeypatch.setattr(codec_plan, "room", lambda *_: 64 * 2**30)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(LlasaError, match=r"need about 115 GB a process and 64 GB are free: .* `\[300, 32\]`"):
        require_memory(settings, cpu, 8)
    require_memory(changed(settings, {"data.shapes": [[300, 32]]}), cpu, 8)
    monkeypatch.setattr(codec_plan, "room", lambda *_: 4 * 2**30)
    with pytest.raises(LlasaError, match="take a larger device or a smaller codec"):
        require_memory(settings, cpu, 8)


def test_a_decoder_alone_keeps_nothing_of_the_encoder(codec_folder: Path) -> None:
    settings = codec_settings(start=str(codec_folder))
    assert estimate(settings)[1] < estimate(changed(settings, {"learn": "all"}))[1] / 1.5


@pytest.mark.parametrize(("channels", "ratios"), [(6, [8, 5, 4, 2]), (12, [2, 2, 4, 4, 5])])
def test_the_encoders_share_is_what_autograd_keeps(channels: int, ratios: list[int], tmp_path: Path) -> None:
    settings = codec_settings(
        semantic_encoder=str(make_semantic_folder(tmp_path / "w2v")), tap=2, encoder_hidden=channels, ratios=ratios
    )
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    trainer = Trainer(settings)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = trainer.codec.acoustic_encoder(torch.randn(1, 1, 32_000))
    assert out.requires_grad
    encoder = estimate(settings)[1] - estimate(changed(settings, {"sizes.encoder_hidden": 0}))[1]
    assert sum(kept.values()) / 2 == pytest.approx(encoder * 2**30, rel=0.2)  # of two seconds

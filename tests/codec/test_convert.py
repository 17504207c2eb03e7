"""The three layouts: each loads, sounds as upstream's specification, comes back the same; what is broken is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import make_codec, make_lm_folder
from transformers import Xcodec2Config, Xcodec2Model
from upstream_codec import UpstreamCodec, hub_tensors, make_upstream, package_tensors, save_original

from llasa import Llasa
from llasa.codec import Codec, convert, load_codec
from llasa.codec.features import acoustic_input, mel_features
from llasa.errors import LlasaError


class Settings:
    """What a training leaves in its checkpoints beside tensors; must not be made when one is loaded."""

    made = 0

    def __init__(self) -> None:
        self.width = 48

    def __setstate__(self, state: object) -> None:
        Settings.made += 1


def attack(path: str) -> None:
    Path(path).touch()


class Attack:
    """What unpickling would run."""

    def __init__(self, function: Callable) -> None:
        self.function = function

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.function, ("attacked",)


@pytest.fixture(scope="module")
def spec() -> UpstreamCodec:
    return make_upstream()


@pytest.fixture(scope="module")
def original(spec: UpstreamCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_original(hub_tensors(spec), tmp_path_factory.mktemp("upstream") / "original")


def save_checkpoint(tensors: dict[str, torch.Tensor], path: Path, **more: object) -> Path:
    """A training checkpoint: the codec among discriminators, optimisers and settings."""
    others = {"discriminator.convs.0.weight_g": torch.ones(3), "fc_post_s.bias": torch.ones(2)}
    states = [{"state": {0: {"exp_avg": torch.ones(4)}}, "param_groups": [{"lr": 1e-4}]}]
    content = {"epoch": 4, "state_dict": tensors | others, "optimizer_states": states} | more
    torch.save(content, path)
    return path


def without_semantic(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("semantic_model.")}


def same(a: Path, b: Path) -> bool:
    left, right = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


def sounds_as(spec: UpstreamCodec, codec: Codec, samples: np.ndarray) -> None:
    wave = torch.from_numpy(samples)
    with torch.no_grad():
        codes = spec.encode(acoustic_input(wave), mel_features(wave)[0])
        sound = spec.decode(codes)
    assert len(codes.unique()) > 20
    np.testing.assert_array_equal(codec.encode(samples), codes)
    np.testing.assert_allclose(codec.decode(codes.numpy()), sound, atol=1e-5)


@pytest.mark.parametrize(("spelling", "kind"), [(hub_tensors, "xcodec2"), (package_tensors, "xcodec")])
def test_the_original_layout_sounds_as_its_specification(
    spec: UpstreamCodec, spelling: Callable, kind: str, tmp_path: Path, voiced: np.ndarray
):
    folder = save_original(spelling(spec), tmp_path / "original", kind)
    assert convert.layout(folder) == "original"
    sounds_as(spec, load_codec(folder), voiced)


def test_a_checkpoint_sounds_as_its_specification_and_runs_nothing(
    spec: UpstreamCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, voiced: np.ndarray
):
    monkeypatch.chdir(tmp_path)
    path = save_checkpoint(hub_tensors(spec), tmp_path / "last.ckpt", settings=Settings(), trap=[Attack(attack)])
    sounds_as(spec, load_codec(path), voiced)
    save_checkpoint(hub_tensors(spec), path, trap=Attack(os.mkdir))
    refuse(path, "holds objects that cannot be loaded safely", tmp_path / "out")
    assert Settings.made == 0
    assert os.listdir() == ["last.ckpt"]


def test_a_checkpoint_takes_the_semantic_encoder_from_elsewhere(
    spec: UpstreamCodec, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = save_checkpoint(without_semantic(hub_tensors(spec)), tmp_path / "last.ckpt")
    spec.semantic_model.save_pretrained(tmp_path / "w2v-bert")
    convert.convert(path, tmp_path / "a", "transformers", tmp_path / "w2v-bert")
    convert.convert(original, tmp_path / "b", "transformers")
    assert same(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refuse(path, "holds no semantic encoder (facebook/w2v-bert-2.0 ", tmp_path / "c")
    refuse(path, "holds no semantic encoder (there is no model called", tmp_path / "c", tmp_path / "gone")
    refuse(path, "of type 'xcodec2', not 'wav2vec2-bert'", tmp_path / "c", original)


def test_from_transformers_and_back_no_bit_changes(codec_folder: Path, tmp_path: Path):
    convert.convert(codec_folder, tmp_path / "original", "original")
    convert.convert(tmp_path / "original", tmp_path / "back", "transformers")
    convert.convert(tmp_path / "back", tmp_path / "again", "original")
    assert same(codec_folder, tmp_path / "back")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "original" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    before, after = (Xcodec2Config.from_pretrained(folder).to_dict() for folder in (codec_folder, tmp_path / "back"))
    before["_name_or_path"] = after["_name_or_path"]
    assert before == after


def test_half_precision_stays_half(tmp_path: Path):
    make_codec().half().save_pretrained(tmp_path / "half")
    convert.convert(tmp_path / "half", tmp_path / "original", "original")
    convert.convert(tmp_path / "original", tmp_path / "back", "transformers")
    assert same(tmp_path / "half", tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text())["dtype"] == "float16"


def test_from_the_original_and_back_only_unused_layers_and_shares_of_scale_are_lost(original: Path, tmp_path: Path):
    convert.convert(original, tmp_path / "there", "transformers")
    convert.convert(tmp_path / "there", tmp_path / "back", "original")
    convert.convert(tmp_path / "back", tmp_path / "again", "transformers")
    assert same(tmp_path / "there", tmp_path / "again")
    before, after = (load_file(folder / "model.safetensors") for folder in (original, tmp_path / "back"))
    changed = {name for name in before if name not in after or not torch.equal(before[name], after[name])}
    assert {name for name in changed if not name.endswith(("weight_g", "weight_v"))} == {
        name for name in before if name.startswith("semantic_model.encoder.layers.16.")
    }


def test_plain_transformers_loads_what_is_written(original: Path, tmp_path: Path, voiced: np.ndarray):
    convert.convert(original, tmp_path / "there", "transformers")
    model, report = Xcodec2Model.from_pretrained(tmp_path / "there", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    wave = torch.from_numpy(voiced)
    with torch.no_grad():
        codes = model.encode(acoustic_input(wave), mel_features(wave)[0]).audio_codes
    np.testing.assert_array_equal(codes[0, 0], load_codec(original).encode(voiced))
    assert (tmp_path / "there" / "preprocessor_config.json").exists()


def test_shards_are_one_codec(spec: UpstreamCodec, original: Path, tmp_path: Path):
    folder = Path(shutil.copytree(original, tmp_path / "sharded"))
    (folder / "model.safetensors").unlink()
    tensors = list(hub_tensors(spec).items())
    shards = {"model-00001-of-00002.safetensors": tensors[:200], "model-00002-of-00002.safetensors": tensors[200:]}
    for name, part in shards.items():
        save_file(dict(part), folder / name)
    index = {"weight_map": {key: name for name, part in shards.items() for key, _ in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    convert.convert(folder, tmp_path / "a", "transformers")
    convert.convert(original, tmp_path / "b", "transformers")
    assert same(tmp_path / "a", tmp_path / "b")
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"half")
    refuse(folder, "model-00002-of-00002.safetensors cannot be loaded: it is damaged or incomplete", tmp_path / "c")
    (folder / "model-00002-of-00002.safetensors").unlink()
    refuse(folder, "lacks model-00002-of-00002.safetensors (1 of 2 files", tmp_path / "c")


def test_a_model_speaks_through_a_codec_of_the_original_layout(original: Path, tmp_path: Path):
    lm = make_lm_folder(tmp_path / "lm", original)
    speech = Llasa.load(lm).say("Hello.", seed=0, max_seconds=1)
    assert speech.seconds > 0
    assert np.abs(speech.samples).max() > 0


def refuse(source: Path, message: str, out: Path, semantic: Path | str = convert.SEMANTIC, to: str = "transformers"):
    with pytest.raises(LlasaError) as caught:
        convert.convert(convert.find(source), out, to, semantic)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [path for path in out.parent.iterdir() if path.name.endswith(".tmp")]


def test_tensors_that_are_missing_or_of_another_shape(spec: UpstreamCodec, tmp_path: Path):
    for name, message in (
        ("fc_post_a.weight", "lacks acoustic_decoder.fc.weight (1 tensors missing in all)"),
        ("CodecEnc.conv_blocks.2.block.0.block.1.weight_g", "lacks acoustic_encoder.block.1.res_unit1.conv1.weight"),
        ("generator.backbone.embed.weight", "lacks generator.backbone.embed.weight"),
        ("semantic_model.encoder.layers.15.ffn1.output_dense.bias", "lacks semantic_encoder.encoder.layers.15.ffn1"),
        ("generator.backbone.transformers.1.att.c_attn.weight", "lacks acoustic_decoder.layers.1.self_attn.k_proj"),
    ):
        tensors = hub_tensors(spec)
        shape = list(tensors.pop(name).shape)
        folder = save_original(tensors, tmp_path / "lacking")
        refuse(folder, message, tmp_path / "out")
        shutil.rmtree(folder)
        folder = save_original(tensors | {name: torch.ones([5, *shape[1:]])}, tmp_path / "odd")
        refuse(folder, "codec", tmp_path / "out")
        shutil.rmtree(folder)


def test_damaged_weights(original: Path, codec_folder: Path, tmp_path: Path):
    for intact in (original, codec_folder):
        folder = Path(shutil.copytree(intact, tmp_path / "half"))
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
        refuse(folder, "cannot be loaded: it is damaged or incomplete", tmp_path / "out")
        (folder / "model.safetensors").unlink()
        refuse(folder, "no model.safetensors", tmp_path / "out")
        shutil.rmtree(folder)


def test_damaged_checkpoints(spec: UpstreamCodec, tmp_path: Path):
    path = save_checkpoint(hub_tensors(spec), tmp_path / "last.ckpt")
    data = path.read_bytes()
    for content in (data[: len(data) // 2], b"", b"\x80\x02}q\x00.", os.urandom(1000)):
        path.write_bytes(content)
        refuse(path, "cannot be loaded: it is damaged or incomplete", tmp_path / "out")
    path.write_bytes(data[:-200] + os.urandom(200))
    refuse(path, "cannot be loaded", tmp_path / "out")
    refuse(tmp_path / "gone.ckpt", "there is no file", tmp_path / "out")


def test_what_is_no_codec(spec: UpstreamCodec, original: Path, tmp_path: Path):
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    refuse(tmp_path / "other.ckpt", "it has no state_dict", tmp_path / "out")
    save_checkpoint({"encoder.weight": torch.ones(2)}, tmp_path / "other.ckpt")
    refuse(tmp_path / "other.ckpt", "not a training checkpoint of X-codec2", tmp_path / "out")
    save_original({"encoder.weight": torch.ones(2)}, tmp_path / "other", "xcodec")
    refuse(tmp_path / "other", "holds no codec", tmp_path / "out")
    save_original(hub_tensors(spec), tmp_path / "bert", "bert")
    refuse(tmp_path / "bert", "of type 'bert', not 'xcodec2'", tmp_path / "out")
    refuse(original / "model.safetensors", "is a file: pass the model's folder", tmp_path / "out")
    refuse(tmp_path / "nowhere", "there is no model called", tmp_path / "out")


def test_where_it_cannot_be_written(codec_folder: Path, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    refuse(codec_folder, "exists already", tmp_path / "full", to="original")
    refuse(codec_folder, "exists already", tmp_path / "full" / "notes.txt", to="original")
    assert os.listdir(tmp_path / "full") == ["notes.txt"]
    refuse(codec_folder, "cannot write /proc/codec", Path("/proc/codec"), to="original")
    refuse(codec_folder, "has the transformers layout already", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    convert.convert(codec_folder, tmp_path / "empty", "original")
    assert sorted(os.listdir(tmp_path / "empty")) == ["config.json", "model.safetensors"]


def test_a_disk_that_fills_up_leaves_nothing(codec_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    refuse(codec_folder, "no space left on device", tmp_path / "out", to="original")
    assert os.listdir(tmp_path) == []

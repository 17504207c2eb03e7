"""Whose codes a corpus holds: told apart, but for what the decoder learns and how precisely weights are kept."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import make_codec, make_codec_folder

from llasa.codec.convert import find
from llasa.data.origin import codes_of, require_codes_of
from llasa.errors import LlasaError


def corpus(folder: Path, codec: Path) -> Path:
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({"codec": "x", "codes": codes_of(find(codec))}))
    return folder


def test_codes_of_another_codec_are_refused(codec_folder: Path, tmp_path: Path):
    made = corpus(tmp_path / "codes", codec_folder)
    require_codes_of([made], str(codec_folder))
    other = make_codec_folder(tmp_path / "other", seed=1)
    with pytest.raises(LlasaError, match=r"codes holds codes of another codec than .*other: name the one"):
        require_codes_of([made], str(other))


def test_a_decoder_trained_on_and_half_precision_are_the_same_codec(codec_folder: Path, tmp_path: Path):
    made = corpus(tmp_path / "codes", codec_folder)
    further = make_codec()
    with torch.no_grad():
        for weight in (*further.acoustic_decoder.parameters(), further.quantizer.project_out.weight):
            weight.normal_()
    further.half().save_pretrained(tmp_path / "further")
    require_codes_of([made], str(tmp_path / "further"))


def test_an_encoder_trained_on_is_another_codec(codec_folder: Path, tmp_path: Path):
    made = corpus(tmp_path / "codes", codec_folder)
    trained = shutil.copytree(codec_folder, tmp_path / "trained")
    weights = load_file(trained / "model.safetensors")
    noisy = {name: w * 1.03 if name.startswith("acoustic_encoder") else w for name, w in weights.items()}
    save_file(noisy, trained / "model.safetensors", {"format": "pt"})
    with pytest.raises(LlasaError, match="another codec"):
        require_codes_of([made], str(trained))


def test_what_says_nothing_is_taken(codec_folder: Path, tmp_path: Path):
    (tmp_path / "job.json").write_text('{"codec": "an older version wrote no more"}')
    require_codes_of([tmp_path, tmp_path / "none"], str(codec_folder))
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(LlasaError, match=r"job.json is damaged"):
        require_codes_of([tmp_path], str(codec_folder))

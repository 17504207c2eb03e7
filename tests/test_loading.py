"""Names to folders, and a codec's identity."""

import shutil
from pathlib import Path

import pytest
from models import make_codec_folder

from llasa.errors import LlasaError
from llasa.loading import context_length, find_codec, find_model, fingerprint, first_line, read_json


def test_a_folder_is_its_own_name(lm_folder: Path):
    assert find_model(lm_folder) == lm_folder
    assert find_model("tiny").parts[-3:] == ("assets", "tiny", "lm")


def test_a_codec_is_found_from_either_folder(lm_folder: Path, codec_folder: Path):
    assert find_codec(lm_folder).samefile(codec_folder)
    assert find_codec(codec_folder) == codec_folder


def test_a_fingerprint_tells_codecs_of_one_size_apart_but_not_copies(codec_folder: Path, tmp_path: Path):
    shutil.copytree(codec_folder, tmp_path / "copy")
    make_codec_folder(tmp_path / "other", seed=1)
    sizes = [(path / "model.safetensors").stat().st_size for path in (codec_folder, tmp_path / "other")]
    assert sizes[0] == sizes[1]
    assert fingerprint(codec_folder) == fingerprint(tmp_path / "copy") != fingerprint(tmp_path / "other")


def test_contexts_beyond_the_trained_length_are_not_believed():
    assert context_length({"max_position_embeddings": 131072}) == 2048
    assert context_length({"max_position_embeddings": 512}) == 512


def test_json_that_is_no_object(tmp_path: Path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(LlasaError, match="not a JSON object"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LlasaError, match="cannot be read"):
        read_json(tmp_path / "config.json")


def test_messages_of_others_fit_on_one_line():
    assert first_line(ValueError("a\nb")) == "a"
    assert first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("x" * 1000))) == 160

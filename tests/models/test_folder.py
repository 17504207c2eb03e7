"""Names to folders, and a codec's identity."""

import json
import shutil
from pathlib import Path

import pytest
from small_models import make_codec_folder

from llasa.errors import LlasaError, first_line
from llasa.models.folder import (
    context_length,
    find_codec,
    fingerprint,
    pointing_head,
    read_json,
    weight_files,
)
from llasa.models.hub import find_model


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


def test_one_file_of_weights_counts_before_shards(tmp_path: Path):
    index = {"weight_map": {"b": "model-2.safetensors", "a": "model-1.safetensors", "c": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    shards = [tmp_path / "model-1.safetensors", tmp_path / "model-2.safetensors"]
    for path in shards:
        path.touch()
    assert weight_files(tmp_path) == shards
    (tmp_path / "model.safetensors").touch()
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]


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


def test_the_licence_of_official_weights_is_told_once(lm_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture):
    copy = Path(shutil.copytree(lm_folder, tmp_path / "lm"))

    def told() -> int:
        find_model(copy)
        return capfd.readouterr().err.count(f"{copy} are licensed CC BY-NC 4.0: no commercial use")

    assert told() == 0
    (copy / "README.md").write_text("---\nlicense: apache-2.0\n---\nNot license: cc-by-nc-4.0\n")
    assert told() == 0
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"_name_or_path": "HKUSTAudio/Llasa-1B"}))
    assert told() == 1
    assert told() == 0


def test_a_card_tells_the_licence(tmp_path: Path, capfd: pytest.CaptureFixture):
    (tmp_path / "README.md").write_text("---\nlanguage:\n- en\nlicense: cc-by-nc-4.0\ntags: [a]\n---\n# A fine-tune\n")
    find_model(tmp_path)
    assert "CC BY-NC 4.0" in capfd.readouterr().err


def test_the_lowest_head_that_was_taught_to_point(lm_folder: Path, tmp_path: Path):
    assert pointing_head(find_model("tiny")) == (2, 0)
    assert pointing_head(lm_folder) is None
    config = read_json(lm_folder / "config.json")
    for wrong in ([[2, 0]], [[0, 4]], [[0, -1]], [[0]], [3], "ab", {"a": 1}):
        (tmp_path / "config.json").write_text(json.dumps(config | {"pointing_heads": wrong}))
        with pytest.raises(LlasaError, match=r"`pointing_heads` is .*: list \[layer, head\] of heads"):
            pointing_head(tmp_path)

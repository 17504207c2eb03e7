"""Model folders with values of other kinds and sizes, in whichever file: one line that names the file."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llasa.codec import load_codec
from llasa.errors import LlasaError
from llasa.text import lexicon
from llasa.text.lexicon import load_lexicon
from llasa.tts import Llasa
from llasa.verifiers import content, load_verifier


@pytest.fixture
def copy(tmp_path: Path, lm_folder: Path) -> Path:
    """A copy of the model folder, to be broken; its codec lies beside it."""
    shutil.copytree(lm_folder.parent / "codec", tmp_path / "codec")
    return Path(shutil.copytree(lm_folder, tmp_path / "lm"))


def _packed(content: bytes) -> bytes:
    """Without the time, so that all processes collect the same tests."""
    return gzip.compress(content, mtime=0)


def refused(act: Callable[[], object], name: Path) -> str:
    """One line that names the file or folder."""
    with pytest.raises(LlasaError) as caught:
        act()
    told = str(caught.value)
    assert "\n" not in told
    assert str(name) in told
    return told


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("num_hidden_layers", [10**9, 10**30, -1, 0, 2.5, "2", [2]]),
        ("hidden_size", [10**9, -64, 0, 65, "64", {}]),
        ("intermediate_size", [-1, 10**12, 1.5]),
        ("num_attention_heads", [0, -2, 3, 10**9]),
        ("num_key_value_heads", [-1, 0, 2.5]),
        ("vocab_size", [-1, 0, 10**18, "many"]),
        ("max_position_embeddings", [-1, 0, 2.5, "long"]),
        ("hidden_act", ["", "tiny", 7]),
        ("codec", [None, True, 7, "", "\x00", [], {"a": 1}]),
        ("default_voice", ["", 7, [], {}]),
        ("model_type", [None, 7, "", []]),
    ],
)
def test_a_config_with_a_value_of_another_kind_or_size(copy: Path, key: str, values: list[Any]):
    usual = json.loads((copy / "config.json").read_text())
    for value in values:
        (copy / "config.json").write_text(json.dumps(usual | {key: value}))
        (copy / "generation_config.json").write_text("{}")
        refused(lambda: Llasa.load(copy), copy)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("default_voice", ["", 7, [], {"a": 1}, True]),
        ("top_k", [2.5, -1, 10**30, "many", []]),
        ("temperature", [10**400, float("inf"), float("nan"), -1, "hot", {}]),
        ("top_p", [0, 2, "most", True]),
        ("min_p", [-0.1, 1.5, []]),
        ("repetition_penalty", [0, -1, float("inf")]),
    ],
)
def test_sampling_settings_of_another_kind_or_size(copy: Path, key: str, values: list[Any]):
    for value in values:
        (copy / "generation_config.json").write_text(json.dumps({key: value}))
        assert key in refused(lambda: Llasa.load(copy), copy / "generation_config.json")


@pytest.mark.parametrize(
    "template",
    [None, "", "constant", "{% if %}", "{{ 1 / 0 }}", "{{ messages[9].content }}",
     "{% for i in range(10**9) %}x{% endfor %}", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
     '{{ raise_exception("no\\nno") }}', '{{ "x" * 10**9 }}', "{{ 10**(10**10) }}", '{{ "%999999999d" % 1 }}',
     "{% set x = namespace(s='xxxxxxxx') %}{% for i in range(40) %}{% set x.s = x.s ~ x.s %}{% endfor %}{{ x.s }}",
     "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
     "{{ messages[0].content.ljust(9999999) }}{{ messages[1].content }}",
     "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
     "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "{{" + "[" * 10000 + "]" * 10000 + "}}"],
    ids=str,
)  # fmt: skip
def test_a_chat_template_that_is_missing_or_invalid(copy: Path, template: str | None):
    (copy / "chat_template.jinja").unlink()
    if template is not None:
        (copy / "chat_template.jinja").write_text(template)
    assert "chat template" in refused(lambda: Llasa.load(copy).say("Hello."), copy)


@pytest.mark.parametrize(
    "damaged",
    [b"the\tx\n", _packed(b"the\tx\n")[:-5], _packed(b"no tab\n"), _packed(b"a\tb\tc\n"), _packed(b"\xff\t\xfe\n"),
     _packed(b"\n\n")],
)  # fmt: skip
def test_a_corrupt_lexicon(tmp_path: Path, damaged: bytes):
    (tmp_path / lexicon.FILE).write_bytes(damaged)
    assert "damaged" in refused(lambda: load_lexicon(tmp_path), tmp_path / lexicon.FILE)


def test_a_lexicon_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path):
    for line in (b"\0" * 2**20, b"a\tb\n" * 2**18):
        with gzip.open(tmp_path / lexicon.FILE, "wb", 1) as file:
            for _ in range(20):
                file.write(line)
        assert (tmp_path / lexicon.FILE).stat().st_size < 2**20
        assert "more than the 16 MB" in refused(lambda: load_lexicon(tmp_path), tmp_path / lexicon.FILE)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("num_hidden_layers", [10**9, 10**30]),
        ("head_dim", [10**9]),
        ("hidden_size", [10**18]),
        ("activation_dropout", [2.5, float("inf"), "x"]),
        ("quantization_levels", [[], [10**9], 7, ["x"], [-4]]),
        ("sampling_rate", ["x", -1, 0]),
    ],
)
def test_a_codecs_config_with_a_value_of_another_kind_or_size(
    tmp_path: Path, codec_folder: Path, key: str, values: list
):
    folder = Path(shutil.copytree(codec_folder, tmp_path / "codec"))
    usual = json.loads((folder / "config.json").read_text())
    for value in values:
        (folder / "config.json").write_text(json.dumps(usual | {key: value}))
        refused(lambda: load_codec(folder), folder)


@pytest.mark.parametrize("vocabulary", [[], {}, None, 7, {"a": "x"}, {"a": -1}, {"a": 10**9}, [["a", 0]]])
def test_a_recognisers_vocabulary_of_another_kind(tmp_path: Path, vocabulary: Any):
    folder = Path(shutil.copytree(content.EMBEDDED, tmp_path / "recogniser"))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    refused(lambda: load_verifier("content", recogniser=folder), folder)

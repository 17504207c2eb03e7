"""The tokenizer that speaking reads without transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
from official import make_official_folder

from llasa.models.folder import load_tokenizer
from llasa.models.hub import find_model
from llasa.models.tokenizer import Tokenizer, read_tokenizer
from llasa.vocabulary import read_vocabulary

BOS = {"__type": "AddedToken", "content": "<|begin_of_text|>", "lstrip": False, "normalized": False, "rstrip": False,
       "single_word": False, "special": True}  # fmt: skip
TEXTS = ("Hello, world.", "  two  spaces\n", "naïve <|s_7|> café 日本", "")


@pytest.mark.parametrize("kind", ["embedded", "official"])
def test_it_gives_what_that_of_transformers_gives(tmp_path: Path, kind: str) -> None:
    folder = find_model("tiny") if kind == "embedded" else make_official_folder(tmp_path / "official")
    ours, theirs = (read_vocabulary(tokenizer) for tokenizer in (read_tokenizer(folder), load_tokenizer(folder)))
    assert isinstance(ours.tokenizer, Tokenizer)
    assert (ours.first, ours.size, ours.start, ours.end) == (theirs.first, theirs.size, theirs.start, theirs.end)
    assert ours.tokenizer.unk_token_id == theirs.tokenizer.unk_token_id
    for text in TEXTS:
        assert ours.prompt(text, "Before.", [1, 2], "kore") == theirs.prompt(text, "Before.", [1, 2], "kore")
        for special in (False, True):
            found = ours.tokenizer(text, add_special_tokens=special)["input_ids"]
            assert found == theirs.tokenizer(text, add_special_tokens=special)["input_ids"]


@pytest.mark.parametrize(
    "changes",
    [{"tokenizer_class": "LlamaTokenizer"}, {"bos_token": BOS}, {"bos_token": None}],
)
def test_what_tokenizer_json_does_not_say_transformers_reads(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = make_official_folder(tmp_path / "official")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert not isinstance(read_tokenizer(folder), Tokenizer)

"""A recipe of the language model over a small corpus, for whoever runs it."""

import os
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llasa.data.shards import CODES_SCHEMA, write_shard
from llasa.text.lexicon import save_lexicon

# Where the `datasets` library keeps what it maps; it reads this when it is imported.
CACHE = tempfile.TemporaryDirectory()
os.environ["HF_DATASETS_CACHE"] = CACHE.name

LEXICON = {"the": "ðə", "cat": "KæT", "sat": "SæT"}
NAMES = {"ð": "dh", "ə": "ax", "K": "k", "æ": "ae", "T": "t", "S": "s"}
MODEL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 512,
}  # fmt: skip


def utterance(number: int) -> dict[str, Any]:
    """Words whose phones last 0.1 s each. One in three has no alignment, so packs differ in what they teach."""
    rng = random.Random(number)
    text = " ".join(rng.choices(list(LEXICON), k=rng.randint(1, 3)))
    phones = [NAMES[c] for word in text.split() for c in LEXICON[word]]
    ends = [0.1 * (i + 1) for i in range(len(phones))]
    codes = np.random.default_rng(number).integers(0, 64, len(phones) * 5)
    aligned = number % 3 > 0
    return {
        "id": str(number), "text": text, "codes": codes, "speaker": "ab"[number % 2], "language": "en",
        "seconds": ends[-1], "phones": phones if aligned else [], "ends": ends if aligned else [],
    }  # fmt: skip


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory, codec_folder: Path) -> dict[str, Any]:
    """A recipe over a corpus of 40 utterances; `out` is for the test to name."""
    folder = tmp_path_factory.mktemp("processes")
    for part, numbers in (("train", range(40)), ("val", range(40, 60))):
        (folder / part).mkdir()
        write_shard(folder / part / "0.parquet", [utterance(i) for i in numbers], CODES_SCHEMA)
    save_lexicon(LEXICON, folder)
    return {
        "corpus": {str(folder / "train"): 1}, "validation": str(folder / "val"), "codec": str(codec_folder),
        "lexicon": str(folder), "model": MODEL, "pointing_heads": [[1, 1]], "tokens": 256, "longest": 200,
        "steps": 12, "warmup": 4, "ema": 0.8,
    }  # fmt: skip

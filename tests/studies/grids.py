"""A study of training at toy size, over a corpus of made-up codes."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from llasa.data.shards import CODES_SCHEMA, write_shard
from llasa.text.lexicon import save_lexicon

LEXICON = {"the": "ðə", "cat": "KæT", "sat": "SæT"}
RECIPE = Path(__file__).parents[2] / "recipes/tiny/study.yaml"
SIZES = {"small": 16, "large": 32}
SAID = 61  # the held-out utterance that cells say: a word alone, since PocketSphinx is slow on what they make of it


def utterance(number: int) -> dict[str, Any]:
    """Two to four seconds of one of two speakers; each word always has the same codes, which a model can learn."""
    rng = random.Random(number)
    words = rng.choices(list(LEXICON), k=1 if number == SAID else rng.randint(4, 8))
    codes = np.concatenate([np.arange(25) + 20 * list(LEXICON).index(word) for word in words]) % 64
    return {
        "id": str(number), "text": " ".join(words), "codes": codes, "speaker": "ab"[number % 2], "language": "en",
        "seconds": len(codes) / 50, "phones": [], "ends": [],
    }  # fmt: skip


def make_corpus(folder: Path) -> None:
    """`codes/train`, two shards of 30 utterances, `codes/val`, and a lexicon."""
    for part, shards in (("train", (range(30), range(30, 60))), ("val", (range(60, 72),))):
        (folder / "codes" / part).mkdir(parents=True)
        for place, numbers in enumerate(shards):
            rows = [utterance(number) for number in numbers]
            write_shard(folder / "codes" / part / f"{place:05d}.parquet", rows, CODES_SCHEMA)
    save_lexicon(LEXICON, folder)


def small_study(codec: Path, folder: Path) -> dict[str, Any]:
    """The shipped recipe made small: two sizes on two amounts of `make_corpus`, all paths within `folder`."""
    study = yaml.safe_load(RECIPE.read_text())
    model = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 1, "num_key_value_heads": 1}
    data = {"validation": str(folder / "codes/val"), "lexicon": str(folder), "tokens": 600, "longest": 500}
    return study | {
        "corpus": str(folder / "codes/train"), "out": str(folder / "study"), "hours": [0.01, 0.03], "epochs": 1,
        "checks": 3, "held_out": 12, "spoken": 1,
        "sizes": {
            name: {"model": model | {"hidden_size": width}, "losses": {"pointing_heads": []}}
            for name, width in SIZES.items()
        },
        "lm": {"codec": str(codec), "model": {"max_position_embeddings": 512}, "data": study["lm"]["data"] | data},
    }  # fmt: skip

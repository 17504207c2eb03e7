"""A recipe of the codec at toy size, over tones."""

from pathlib import Path
from typing import Any

import yaml
from data.corpora import sound_file, tone
from encoders import make_listener_folder, make_semantic_folder

from llasa.data.shards import AUDIO_SCHEMA, write_shard
from llasa.train.settings import merged

FRAMES = 20  # of the shorter crops


def recording(number: int, seconds: float) -> dict[str, Any]:
    return {
        "id": str(number), "text": "", "audio": sound_file(tone(seconds, number)), "speaker": "", "language": "en",
        "seconds": seconds, "phones": [], "ends": [],
    }  # fmt: skip


def make_corpus(folder: Path) -> Path:
    """Two shards to train on, of recordings of 0.5 to 1.1 s, and one of two recordings to validate on."""
    for part, numbers in (("train/0", range(7)), ("train/1", range(7, 13)), ("val/0", range(13, 15))):
        path = folder / f"{part}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_shard(path, [recording(i, 0.5 + 0.1 * (i % 7) if i < 13 else 1.5) for i in numbers], AUDIO_SCHEMA)
    return folder


def make_recipe(folder: Path) -> dict[str, Any]:
    """What a run can do, in 12 steps: two shapes, pitch, dropout, discriminators, the perceptual loss; no `out`."""
    make_corpus(folder)
    return {
        "corpus": [str(folder / "train")], "validation": [str(folder / "val")],
        "semantic_encoder": str(make_semantic_folder(folder / "w2v-bert")), "tap": 2, "hidden": 64, "intermediate": 64,
        "sizes.layers": 1, "heads": 2, "encoder_hidden": 2, "levels": [5, 4, 3, 3], "dropout": 0.1,
        "steps": 12, "warmup": 3,
        "pitch_weight": 1, "frame_weight": 1,
        "shapes": [[FRAMES, 4], [40, 2]], "discriminators.at": 3, "periods": [2], "fft_sizes": [126], "channels": 2,
        "perceptual.model": str(make_listener_folder(folder / "xlsr")), "perceptual.layers": [1, 2], "perceptual.at": 5,
        "compile": False, "ema": 0.8,
    }  # fmt: skip


def small_recipe(path: Path) -> dict[str, Any]:
    """A recipe of recipes/xcodec2 with everything that it names, in the least size and number of steps."""
    recipe = yaml.safe_load(path.read_text())
    sizes = {
        "tap": 2, "hidden": 64, "intermediate": 64, "layers": 1, "heads": 2, "encoder_hidden": 2, "levels": [4, 4, 4],
    }  # fmt: skip
    small = {
        "data": {"shapes": [[20, 2]]}, "schedule": {"steps": 2}, "perceptual": {"at": 1, "layers": [1, 2]},
        "discriminators": {"periods": [2], "fft_sizes": [126]},
    }  # fmt: skip
    return merged(recipe, small if "start" in recipe else small | {"sizes": sizes})

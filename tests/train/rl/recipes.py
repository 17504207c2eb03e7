"""A recipe of reinforcement learning over three short texts, at a size that takes a moment."""

from pathlib import Path
from typing import Any

import yaml
from nested import STAGES, nest


def make_recipe(base: Path, folder: Path) -> dict[str, Any]:
    """In one flat dict, as `nested` takes them."""
    texts = folder / "texts.txt"
    texts.write_text("the cat\nshe sells\nthe river\n")
    return {
        "model": str(base), "out": str(folder / "rl"), "texts": str(texts), "held_out": 1, "prompts": 2, "group": 4,
        "lora": 2, "sound": False, "verify": "content", "every": 2, "steps": 3, "warmup": 0, "lr": 1e-3,
    }  # fmt: skip


def write_recipe(recipe: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(nest(STAGES["rl"], recipe)))
    return path

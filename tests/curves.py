"""Runs of a stage of the training: their command, and what they logged."""

import json
from pathlib import Path
from typing import Any

import yaml
from nested import STAGES, nest


def arguments(recipe: dict[str, Any], out: Path, stage: str = "lm", **changes: Any) -> list[str]:
    """`train lm RECIPE`, or another stage's."""
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(nest(STAGES[stage], recipe | changes | {"out": str(out)})))
    return ["train", stage, str(path), "--threads", "1"]


def curve(out: Path) -> dict[int, dict[str, float]]:
    """What was logged of each step's training losses."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    training = [row for row in rows if "gradient" in row]
    assert [row["step"] for row in training] == sorted({row["step"] for row in training})  # each step once
    return {row["step"]: {k: v for k, v in row.items() if k not in ("step", "realtime")} for row in training}

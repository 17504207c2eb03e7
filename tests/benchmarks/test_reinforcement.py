"""A training that was stopped is not judged as if it had ended."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import reinforcement


def test_a_training_that_was_stopped_ends_the_program(tmp_path: Path) -> None:
    settings = SimpleNamespace(out=str(tmp_path), schedule=SimpleNamespace(steps=3))
    rows = [{"step": 0, "held_out_reward": 0.5}, {"step": 1, "reward": 0.5}, {"step": 2, "reward": 0.6}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SystemExit, match="stopped after 2 of 3 steps"):
        reinforcement.check_end(settings)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 3, "reward": 0.7}) + "\n")
    reinforcement.check_end(settings)

"""Recipes as people write them: what PyYAML makes of numbers, and values that no stage can use."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from llasa.cli import main
from llasa.errors import LlasaError
from llasa.train import codec, lm, loop

WHOLE = "validation: v\ncodec: c\nout: o\n"


def read(tmp_path: Path, text: str | bytes) -> lm.Settings:
    path = tmp_path / "lm.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return loop.read_settings(lm.Settings, path)


def test_numbers_without_a_point_are_numbers(tmp_path: Path) -> None:
    found = read(
        tmp_path, WHOLE + "corpus: {a: 2}\nlr: 5e-5\nsteps: 1e4\nema: 0\nrows: null\nmodel: {rope_theta: 1.5}\n"
    )
    assert (found.lr, found.steps, found.ema, found.rows) == (5e-5, 10_000, 0, None)
    assert isinstance(found.steps, int)
    assert (found.corpus, found.model) == ({"a": 2}, {"rope_theta": 1.5})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("corpus: [a, b]", r"`corpus: \['a', 'b'\]` has \['a', 'b'\] where `name: value` belongs"),
        ("corpus: {a: 0.5}", "has 0.5 where a whole number belongs"),
        ("corpus: {a: 1}\nlr: fast", "`lr: fast` has 'fast' where a number belongs"),
        ("corpus: {a: 1}\nsteps: 10.5", "has 10.5 where a whole number belongs"),
        ("corpus: {a: 1}\nsteps: true", "has True where a whole number belongs"),
        ("corpus: {a: 1}\nshard: 1", "has 1 where true or false belongs"),
        ("corpus: {a: 1}\nlexicon: 7", "has 7 where a text belongs"),
        ("corpus: {a: 1}\npointing_heads: [1, 2]", "has 1 where a list belongs"),
        ("corpus: {a: 1}\nstep: 3", "got an unexpected keyword argument 'step'"),
    ],
)
def test_a_value_that_will_not_do_is_told_in_a_line(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match=rf"lm.yaml.*{told}"):
        read(tmp_path, WHOLE + text)


def test_what_is_no_recipe_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match="is not a recipe"):
        read(tmp_path, "- a\n- b\n")
    with pytest.raises(LlasaError, match=r"cannot read the settings .*lm.yaml: while parsing"):
        read(tmp_path, "{")
    with pytest.raises(LlasaError, match=r"cannot read the settings .*lm.yaml: 'utf-8'"):
        read(tmp_path, "out: caf\u00e9".encode("latin-1"))
    with pytest.raises(LlasaError, match="missing 1 required positional argument: 'corpus'"):
        read(tmp_path, WHOLE)


def test_every_shipped_recipe_is_read() -> None:
    recipes = Path(__file__).parents[2] / "recipes"
    for path in recipes.glob("*/lm.yaml"):
        loop.read_settings(lm.Settings, path)
    for path in [*recipes.glob("*/codec.yaml"), *recipes.glob("*/decoder.yaml"), recipes / "xcodec2/all.yaml"]:
        loop.read_settings(codec.Settings, path)


def test_every_key_of_a_recipe_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for stage, kind in (("lm", lm.Settings), ("codec", codec.Settings)):
        with pytest.raises(SystemExit):
            main(["train", stage, "--help"])
        told = capsys.readouterr().out
        assert [each.name for each in fields(kind) if each.name not in told] == []
    page = (Path(__file__).parents[2] / "docs/train.md").read_text(encoding="utf-8")
    table = page.partition("## The recipe of the language model")[2].partition("\n## ")[0]
    assert [each.name for each in fields(lm.Settings) if f"`{each.name}`" not in table] == []


class Trap:
    """Unpickled without care, it makes the file that it names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_no_code_in_a_checkpoint_runs(tmp_path: Path) -> None:
    torch.save({"model": {}, "step": Trap(tmp_path / "ran")}, tmp_path / loop.CHECKPOINT)
    with pytest.raises(LlasaError, match="is damaged"):
        loop.load_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / loop.CHECKPOINT, weights_only=False)  # the trap does work
    assert (tmp_path / "ran").exists()

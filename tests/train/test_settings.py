"""Recipes as people write them: what PyYAML makes of numbers, what no stage allows, and where each key is explained."""

import re
from pathlib import Path

import pytest

from llasa.cli import main
from llasa.errors import LlasaError
from llasa.train.assemble import VoiceSettings
from llasa.train.codec.settings import CodecSettings
from llasa.train.lm.settings import LMSettings
from llasa.train.recogniser.settings import RecogniserSettings
from llasa.train.rl.settings import RLSettings
from llasa.train.settings import merged, read_settings, table

ROOT = Path(__file__).parents[2]
TOP = "codec: c\nout: o\n"
WHOLE = TOP + "data: {validation: v, corpus: {a: 1}}\n"
STAGES = {"lm": LMSettings, "codec": CodecSettings, "recogniser": RecogniserSettings, "rl": RLSettings}
PAGES = {"train.md": (LMSettings, RecogniserSettings), "train-codec.md": (CodecSettings,), "train-rl.md": (RLSettings,)}


def read(tmp_path: Path, text: str | bytes) -> LMSettings:
    path = tmp_path / "lm.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_settings(LMSettings, path)


def test_numbers_without_a_point_are_numbers(tmp_path: Path) -> None:
    text = "data: {validation: v, corpus: {a: 2}, rows: null}\nschedule: {lr: 5e-5, steps: 1e4, ema: 0}\n"
    found = read(tmp_path, TOP + text + "model: {rope_theta: 1.5}\n")
    schedule = found.schedule
    assert (schedule.lr, schedule.steps, schedule.ema, found.data.rows) == (5e-5, 10_000, 0, None)
    assert isinstance(schedule.steps, int)
    assert (found.data.corpus, found.model) == ({"a": 2}, {"rope_theta": 1.5})
    assert (schedule.muon_lr, CodecSettings().schedule.lr) == (2e-3, 8e-4)  # each stage has defaults of its own


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("data: {corpus: [a, b]}", "`data.corpus` is ['a', 'b']: it must be a mapping of names to whole numbers of at"),
        (
            "data: {corpus: {a: 1000000000}}",
            "`data.corpus` is {'a': 1000000000}: it must be a mapping of names to whole",
        ),
        ("data: {corpus: {a: 0.5}}", "`data.corpus` is {'a': 0.5}: it must be a mapping of names to whole numbers"),
        ("schedule: {lr: fast}", "`schedule.lr` is 'fast': it must be a number of at least 0"),
        ("schedule: {steps: 10.5}", "`schedule.steps` is 10.5: it must be a whole number of at least 1"),
        ("schedule: {steps: true}", "`schedule.steps` is True: it must be a whole number of at least 1"),
        ("schedule: {steps: 0}", "`schedule.steps` is 0: it must be a whole number of at least 1"),
        ("schedule: {ema: 1.5}", "`schedule.ema` is 1.5: it must be a number of at least 0 and of at most 1"),
        ("schedule: {lr: .nan}", "`schedule.lr` is nan: it must be a number of at least 0"),
        ("schedule: {clip: 0}", "`schedule.clip` is 0: it must be a number above 0"),
        ("schedule: 4000", "`schedule` is 4000: it must be a mapping of `steps`, `lr`, "),
        ("memory: {shard: 1}", "`memory.shard` is 1: it must be true or false"),
        ("data: {lexicon: 7}", "`data.lexicon` is 7: it must be a text, or null"),
        ("data: {tokens: 0}", "`data.tokens` is 0: it must be a whole number of at least 1"),
        ("data: {tokens: -6144}", "`data.tokens` is -6144: it must be a whole number of at least 1"),
        ("codec: 7", "`codec` is 7: it must be a text"),
        ("data: {rows: 0}", "`data.rows` is 0: it must be a whole number of at least 1, or null"),
        ("losses: {pointing_heads: [1, 2]}", "it must be a list of lists of whole numbers of at least 0"),
        ("losses: {pointing_heads: [[1]]}", "`losses.pointing_heads` must hold pairs"),
        ("data: {longest: 9000}", "`data.longest` is 9000: it must be at most `data.tokens`, 6144"),
        ("schedule: {step: 3}", "unknown key `schedule.step`: did you mean `schedule.steps`?"),
        ("steps: 3", "unknown key `steps`: did you mean `schedule.steps`?"),
        ("nonsense: 3", "unknown key `nonsense`"),
        ("model: {hiden_size: 64}", "unknown key `model.hiden_size`: did you mean `model.hidden_size`?"),
    ],
)
def test_a_value_that_will_not_do_is_told_in_a_line(text: str, told: str, tmp_path: Path) -> None:
    import yaml

    recipe = yaml.safe_dump(merged(yaml.safe_load(WHOLE), yaml.safe_load(text)), sort_keys=False)
    with pytest.raises(LlasaError, match=rf"lm\.yaml: .*{re.escape(told)}") as caught:
        read(tmp_path, recipe)
    assert "\n" not in str(caught.value)


def test_what_is_no_recipe_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match="is not a recipe"):
        read(tmp_path, "- a\n- b\n")
    with pytest.raises(LlasaError, match=r"cannot read the settings .*lm.yaml: while parsing"):
        read(tmp_path, "{")
    with pytest.raises(LlasaError, match=r"cannot read the settings .*lm.yaml: .* is not UTF-8 text"):
        read(tmp_path, "out: caf\u00e9".encode("latin-1"))
    with pytest.raises(LlasaError, match="`codec` is missing: the codec that made the codes"):
        read(tmp_path, "out: o\n")
    with pytest.raises(LlasaError, match=r"`data\.validation` is missing"):
        read(tmp_path, TOP)
    with pytest.raises(LlasaError, match=r"`data\.corpus` is missing"):
        read(tmp_path, TOP + "data: {validation: v}\n")
    with pytest.raises(LlasaError, match=r"`data\.validation` is missing"):
        read(tmp_path, TOP + "data: {corpus: {c: 1}, validation: ''}\n")
    with pytest.raises(LlasaError, match=r"`data\.corpus` is missing"):
        read(tmp_path, TOP + "data: {corpus: {}, validation: v}\n")


def test_every_shipped_recipe_is_read() -> None:
    kinds = {"lm": LMSettings, "recogniser": RecogniserSettings, "voice": VoiceSettings, "rl": RLSettings}
    read = [path for path in (ROOT / "recipes").glob("*/*.yaml") if path.stem != "study"]
    assert len(read) > 8
    for path in read:
        read_settings(kinds.get(path.stem, CodecSettings), path)


@pytest.mark.parametrize("stage", STAGES)
def test_the_help_names_all_that_a_recipe_can_hold(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", stage, "--help"])
    shown = capsys.readouterr().out
    keys = re.findall(r"^\| `(.*?)`", table(STAGES[stage]), re.MULTILINE)
    assert len(keys) > 20
    assert [name for name in keys if name not in shown] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_documentation_has_the_tables(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for kind in PAGES[page]:
        assert table(kind) in text, f"paste what llasa.train.settings.table({kind.__name__}) returns"

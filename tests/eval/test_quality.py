"""The parts of the quality table: on random models, which must fail every bar, and on figures made up to meet them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import make_lm_folder

from llasa.data.teachers.flite import Speaker, speak
from llasa.eval import quality
from llasa.eval.report import Row
from llasa.tts import Llasa

SENTENCES = [
    "The old man walked slowly down to the river to mend his nets.",
    "There was nothing left in the house but a table and two chairs.",
    "She wrote a long letter to her brother, who lived in the city.",
    "We waited for the morning train until the rain came over the hills, and then walked home along the empty road.",
]


@pytest.fixture(scope="module")
def tts(codec_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Llasa:
    folder = make_lm_folder(tmp_path_factory.mktemp("quality") / "lm", codec_folder, max_position_embeddings=2048)
    model = Llasa.load(folder, device="cpu")
    text = "A short reference."
    for name in ("rms", "slt"):
        voice = model.clone(speak(text, Speaker(name, name))[0], text, name=name)
        voice.save(folder / "voices" / f"{name}.safetensors")
    return model


def verdicts(rows: list[Row]) -> dict[str, bool]:
    return {row.what: row.passed for row in rows if row.passed is not None}


def test_noise_has_no_words_and_its_teachers_have(tts: Llasa) -> None:
    part = quality.measure_words(
        tts, ["She wrote a letter to her brother.", "Nothing was left in the house."], pictures=2
    )
    assert next(iter(verdicts(part.rows))) == "the voice above the teacher, paired"
    assert not verdicts(part.rows)["the voice above the teacher, paired"]
    assert not verdicts(part.rows)["word error rate by the recipe's own recogniser, the voice"]
    # The default voice says both, the one other preset there is says both again.
    assert [(item["sentence"], item["preset"]) for item in part.items] == [
        (0, "rms"),
        (1, "rms"),
        (0, "slt"),
        (1, "slt"),
    ]
    for item in part.items:
        assert ("copy" in item) == (item["preset"] == "rms")
        assert item["teacher"]["letter_errors"] < 0.5 * item["letters"] < 0.8 * item["voice"]["letter_errors"]
        assert item["teacher"]["errors"] < 0.6 * item["words"] < 0.8 * item["voice"]["errors"] + 1e-9
        assert item["teacher"]["dnsmos"] > item["voice"]["dnsmos"]
    # The shorter sentence first, each beside its teacher.
    assert [title for title, _ in part.pictures] == ["sentence 1", "sentence 0"]
    assert [name for name, _ in part.pictures[0][1]] == ["teacher", "voice"]


def test_a_random_codec_is_no_codec(tts: Llasa) -> None:
    part = quality.measure_codec(tts.codec, SENTENCES)
    assert len(part.items) == 6 * len(SENTENCES)  # four teachers, two shifted speakers
    assert len({item["speaker"] for item in part.items}) == 4 + 2 * len(SENTENCES)
    assert not verdicts(part.rows)["STOI, teachers"]
    assert len(verdicts(part.rows)) == 6


def test_random_clones_resemble_nobody_and_speakers_themselves(tts: Llasa) -> None:
    part = quality.measure_cloning(tts, SENTENCES)
    assert list(verdicts(part.rows).values())[1] is False
    assert len(verdicts(part.rows)) == 2
    assert len(part.items) == len(SENTENCES)
    for item in part.items:
        assert item["reference"] != item["sentence"]
    gain = [item["speaker"]["own"] - item["speaker"]["others"] for item in part.items]
    assert np.mean(gain) > 0.1


def test_speed_is_measured_for_every_sentence(tts: Llasa) -> None:
    part = quality.measure_speed(tts, SENTENCES[:2])
    assert len(verdicts(part.rows)) == 2
    for item in part.items:
        assert item["first_audio"] > 0
        assert item["say"] > 0
        assert item["seconds"] > 0


def test_other_presets_are_judged_alone_and_held_to_their_bar_together() -> None:
    items = made_up(1, 0)
    for item in items:
        item["voice"]["errors"] += item["preset"] == "awb"
    slt, awb, both = quality._preset_rows(items)
    assert slt.figure == "0.0 points (0.0 to 0.0): 10.0 % and 10.0 %"
    assert awb.figure == "10.0 points (10.0 to 10.0): 20.0 % and 10.0 %"
    assert awb.what.endswith("awb, 10 sentences")
    assert both.figure.startswith("5.0 points")
    assert (slt.passed, awb.passed, both.passed) == (None, None, True)
    (alone,) = quality._preset_rows([item for item in items if item["preset"] == "awb"])
    assert alone.passed is False
    assert quality._preset_rows([]) == []


def made_up(voice_errors: int, faults: int) -> list[dict[str, Any]]:
    """Twenty sentences of ten words, the teacher with one error in each, the first few of them at fault."""
    return [
        {
            "words": 10,
            "preset": ("slt", "awb")[index % 2],
            "faults": {"ran away": index < faults, "stopped early": False, "never ended": index < faults},
            **{name: {"errors": errors} for name, errors in (("teacher", 1), ("copy", 2), ("voice", voice_errors))},
        }
        for index in range(20)
    ]


@pytest.mark.parametrize(("errors", "passed"), [(1, True), (2, False)])
def test_the_bar_on_words_is_8_points_above_the_teacher(errors: int, passed: bool) -> None:
    rows = quality._word_rows(made_up(errors, 0))
    assert list(verdicts(rows).values()) == [passed]
    assert rows[-1].figure.startswith(f"{10.0 * (errors - 1)} points")


@pytest.mark.parametrize(("faults", "passed"), [(0, True), (1, False), (2, False)])
def test_an_utterance_at_fault_twice_counts_once(faults: int, passed: bool) -> None:
    (row,) = quality._fault_rows(made_up(1, faults))
    assert row.passed is passed
    assert row.figure.startswith(f"{5.0 * faults} %")
    assert f"{faults} ran away, 0 stopped early, {faults} never ended" in row.figure

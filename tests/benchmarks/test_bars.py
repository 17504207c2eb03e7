"""The bars on figures made up to meet them or not, and every part of the benchmark on a small random model."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quality
from bars import hearing, people, reader, running, voice
from readings import SENTENCES, hear_beginnings, read
from small_models import make_lm_folder

from llasa.data.teachers.flite import Speaker, speak
from llasa.measure.tables import Row
from llasa.tts import Llasa

RATE = 16000
SAID = [*SENTENCES[2:], "It was late.", "Nobody spoke."]  # cloning takes 3 s, of two people
PRESETS = {"anna": "flite slt", "bruno": "flite rms", "kathleen": None}


def clip(errors: int = 0, opinion: float = 4.0, deviation: float = 3.0) -> dict[str, Any]:
    pitch = {"mean": 180.0, "deviation": deviation, "span": 3 * deviation}
    return {
        "whisper": errors, "pocketsphinx": errors, "words": 50, "distillmos": opinion, "dnsmos": 3.0, "pitch": pitch
    }  # fmt: skip


def items(**changes: Any) -> list[dict[str, Any]]:
    """Six sentences by the default preset and six by the others, of a voice that meets every bar."""
    made = []
    for index in range(12):
        preset = "anna" if index < 6 else ("bruno", "kathleen")[index % 2]
        item: dict[str, Any] = {"sentence": index % 6, "preset": preset, "faults": [""], "voice": clip(1, 3.7)}
        if PRESETS[preset]:
            item |= {"teacher": clip(), "copy": clip(0, 3.6)}
        if preset == "anna":
            item |= {"best": clip(), "faults": ["", ""]}
        made.append(item | (changes if preset == "anna" else {}))
    return made


def verdicts(rows: list[Row]) -> dict[str, bool]:
    return {row.what: row.passed for row in rows if row.passed is not None}


def failed(rows: list[Row]) -> list[str]:
    return [re.sub(r" \(.*?\)", "", what) for what, passed in verdicts(rows).items() if not passed]


def test_a_voice_that_meets_every_bar_fails_none_and_whisper_is_named_as_a_teacher() -> None:
    rows = voice.rows(items(), PRESETS)
    assert len(verdicts(rows)) == 8
    assert failed(rows) == []
    assert any("Whisper tiny" in row.what for row in rows)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"voice": clip(1, 3.5)}, ["DistillMOS, the default preset `anna`"]),
        ({"voice": clip(1, 2.0)}, ["DistillMOS, the default preset `anna`", "DistillMOS, mean of 3 presets"]),
        ({"copy": clip(0, 2.0)}, ["DistillMOS, the codec's copies of the teachers below them"]),
        ({"voice": clip(2, 3.7)}, ["word error rate by Whisper tiny, `anna`, one sample, above the teacher"]),
        ({"best": clip(1)}, ["word error rate by Whisper tiny, `anna`, the best of 4, above the teacher"]),
        ({"voice": clip(1, 3.7, 2.3)}, ["pitch, standard deviation as a share of the teacher's"]),
        ({"voice": clip(1, 3.7, 3.7)}, ["pitch, standard deviation as a share of the teacher's"]),
        ({"faults": ["", "ran away"]}, ["of 18 utterances, those at fault"]),
    ],
)
def test_each_bar_of_the_voice_is_missed_alone(changes: dict[str, Any], what: list[str]) -> None:
    assert failed(voice.rows(items(**changes), PRESETS)) == what


def test_presets_weigh_the_same_however_many_sentences_they_say() -> None:
    made = [item | ({"voice": clip(0, 1.0)} if item["preset"] == "bruno" else {}) for item in items()]
    (row,) = [row for row in voice.rows(made, PRESETS) if row.what == "DistillMOS, mean of 3 presets"]
    assert row.figure == "2.80 (2.80 to 2.80)"


def test_a_fault_is_a_length_or_no_end() -> None:
    assert [voice.fault(length, True) for length in (0.5, 1.0, 1.9)] == ["stopped early", "", "ran away"]
    assert voice.fault(1.0, False) == "never ended"


@pytest.mark.parametrize(("errors", "opinion", "missed"), [(4, 3.0, 0), (5, 3.0, 1), (5, 2.9, 2)])
def test_the_bars_on_copies_of_people(errors: int, opinion: float, missed: int) -> None:
    made = [{"original": clip(), "copy": clip(errors, opinion)} for _ in range(5)]
    rows = people.copy_rows(made, "5 people", known=False)
    assert len(failed(rows)) == missed
    assert sum("against what Whisper hears" in row.what for row in rows) == 2


@pytest.mark.parametrize(("margin", "errors", "missed"), [(0.16, 10, 0), (0.14, 10, 1), (0.14, 11, 2)])
def test_the_bars_on_clones(margin: float, errors: int, missed: int) -> None:
    near = {"own": 0.5, "margin": margin}
    made = [{"what": "clone", "speaker": k % 2, "campplus": near, "resemblyzer": near} | clip(errors) for k in range(4)]
    assert len(failed(people.clone_rows(made, 2))) == missed


@pytest.mark.parametrize(("alike", "errors", "missed"), [(0.81, 5, 0), (0.79, 5, 1), (0.79, 6, 2)])
def test_the_bars_on_the_reader(alike: float, errors: int, missed: int) -> None:
    near = {"resemblyzer": alike, "campplus": 0.1}
    made = [{"clip": clip(1) | near, "copy": clip(2) | near, "preset": clip(errors) | near} for _ in range(4)]
    assert len(failed(reader.rows(made, "reader"))) == missed


def test_a_reference_lasts_about_8_s_and_ends_in_a_pause() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 14 * RATE).astype(np.float32)
    pause = slice(round(7.2 * RATE), round(7.6 * RATE))
    sound[pause] *= 0.01
    begin, rest = people.cut(sound)
    assert pause.start + RATE // 10 <= begin.size <= pause.stop - RATE // 10
    assert np.array_equal(np.concatenate([begin, rest]), sound)
    assert people.cut(sound[: round(10.1 * RATE)])[0].size <= 10 * RATE


def test_nearness_is_measured_against_the_other_speakers() -> None:
    found = people.nearness(np.array([1.0, 0.0]), np.array([[0.8, 0.6], [0.0, 1.0], [0.2, 0.98]]), 0)
    assert found == pytest.approx({"own": 0.8, "margin": 0.7})


def test_snr_of_equal_sounds_and_of_a_tenth_off(voiced: np.ndarray) -> None:
    assert running.snr(voiced, voiced) == 120
    assert running.snr(voiced, 1.1 * voiced) == pytest.approx(20, abs=0.01)


def test_every_part_runs_on_a_random_model_and_is_not_measured_twice(
    codec_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process, where the listeners are loaded once; test_hearing.py listens in others.
    monkeypatch.setattr(hearing.workers, "spread", lambda work, jobs, processes: enumerate(map(work, jobs)))
    for name, size in (("dnsmos", 20000), ("pocketsphinx", 4000)):  # less fills the windows of the slow ones
        whole = hearing.LISTENERS[name]
        monkeypatch.setitem(hearing.LISTENERS, name, lambda clip, whole=whole, size=size: whole(np.resize(clip, size)))
    hear_beginnings(monkeypatch)
    model = make_lm_folder(tmp_path / "lm", codec_folder, max_position_embeddings=768)
    (tmp_path / "recogniser").symlink_to(Path(quality.__file__).parents[1] / "src/llasa/assets/tiny/recogniser")
    tts = Llasa.load(model, device="cpu")
    for name, who in (("anna", "slt"), ("kathleen", "awb")):
        tts.clone(speak(SENTENCES[0], Speaker(who, who))[0], SENTENCES[0], name=name).save(
            model / "voices" / f"{name}.safetensors"
        )
    # The same recordings everywhere, since what has been heard is not heard again.
    read(tmp_path / "teacher" / "anna", "slt", SAID)
    read(tmp_path / "reader", "slt", SAID[:2])
    read(tmp_path / "people", "slt", SAID[:2], "{name}|one|{text}")
    (tmp_path / "list.txt").write_text("\n".join(SAID))
    words = ["--sentences", "list.txt", "--model", "lm", "--teacher", "teacher", "--speakers", "people"]
    words += ["--reader", "reader", "--out", "out", "--heard", "heard.jsonl", "--all-unseen", "--quick"]
    words = [str(tmp_path / word) if word.isalpha() or "." in word else word for word in words]
    table = tmp_path / "people" / "metadata.csv"
    table.write_text(table.read_text().replace("001.wav|one", "001.wav|two"))
    presets = {name: PRESETS[name] for name in ("anna", "kathleen")}
    arguments = quality.parse([*words, "--only", "voice,people,reader,stream,size"])
    quality.run(arguments, presets)
    page = (tmp_path / "out" / "quality-quick.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## voice", "## people", "## reader", "## stream", "## size"
    ]  # fmt: skip
    assert "of 12 utterances, those at fault" in page
    found = json.loads((tmp_path / "out" / "quality-quick.json").read_text())
    assert not any(word in json.dumps(found["parts"]["voice"]["items"]) for word in ("letter", "hills"))
    assert (tmp_path / "out" / "quality-quick.png").stat().st_size > 10_000
    capsys.readouterr()
    arguments.only = None
    arguments.teacher = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "PARTS", ("voice", "people", "reader", "size"))
        quality.run(arguments, presets)
    assert capsys.readouterr().err.splitlines() == [
        "voice lacks --teacher", "people is measured", "reader is measured", "size is measured"
    ]  # fmt: skip


def test_a_part_without_its_folder_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quality.parse(["--sentences", "list.txt", "--only", "people"])
    assert "the part people needs --speakers" in capsys.readouterr().err

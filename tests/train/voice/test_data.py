"""What is learnt from: how clips are prepared, which are held out, which one is spoken after, and where the loss is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from train.recordings import make_recordings

from llasa import audio
from llasa.data.encode import prepare
from llasa.data.filters import Limits
from llasa.data.layouts import Item
from llasa.speak.speech import LEVEL
from llasa.train.lm.data import Reader
from llasa.train.voice.data import (
    Base,
    Clips,
    choose_reference,
    encode_recordings,
    find_recordings,
    read_base,
    read_clips,
    validation_packs,
)
from llasa.train.voice.memory import learning_rate, make_plan


@pytest.fixture(scope="module")
def base(lm_folder: Path) -> Base:
    return read_base(str(lm_folder))


@pytest.fixture(scope="module")
def clips(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Clips:
    folder = tmp_path_factory.mktemp("clips")
    source = find_recordings(str(make_recordings(folder / "recordings", 30)), None)
    seen: list[tuple[float, float, float]] = []
    encode_recordings(source, base, folder / "codes", "cpu", lambda *step: seen.append(step))
    assert seen[-1][:2] == (1, 1)
    return read_clips(folder / "codes", "recordings", source.layout, base, "me")


def test_a_clip_is_prepared_as_a_reference_is(tmp_path: Path) -> None:
    path = make_recordings(tmp_path / "one", 1) / "monday" / "0.wav"
    sound = audio.load(path)
    audio.save(path, np.concatenate([np.zeros(8000, np.float32), 0.3 * sound, np.zeros(8000, np.float32)]), 16000)
    item = Item("0", path, "0.wav")
    plain, cut = (prepare(item, 16000, Limits(voiced=0.1), level).samples for level in (None, LEVEL))
    assert plain is not None
    assert cut is not None
    assert plain.size == sound.size + 16000
    assert cut.size < sound.size + 4000
    assert audio.loudness(cut, 16000) == pytest.approx(LEVEL, abs=0.5)


def test_some_clips_are_held_out_and_all_are_one_voice(clips: Clips) -> None:
    assert (len(clips.held_out), len(clips.trained)) == (2, 28)
    assert not {row["id"] for row in clips.held_out} & {row["id"] for row in clips.trained}
    assert {row["speaker"] for row in clips.corpus.rows} == {"me"}
    assert clips.reference["id"] in {row["id"] for row in clips.trained}


def test_the_reference_is_a_whole_sentence_of_usual_length_and_pace(base: Base) -> None:
    def row(name: str, text: str, seconds: float) -> dict:
        return {"id": name, "text": text, "codes": np.zeros(round(seconds * 50))}

    sentence = "It is a whole sentence of many words indeed."
    rows = [
        row("short", "It is.", 0.8), row("part", "and is a part of some longer sentence that", 2.9),
        row("odd", f"({sentence})", 2.9), row("slow", sentence, 3.0), row("fine", sentence, 2.6),
        row("quick", sentence, 1.6), row("long", sentence * 3, 8.0),
    ]  # fmt: skip
    assert choose_reference(rows, base)["id"] in ("slow", "fine")
    assert choose_reference(rows[:2], base)["id"] == "part"
    assert choose_reference(rows[:1], base)["id"] == "short"


def test_the_loss_of_validation_is_on_the_held_out_clips_alone(base: Base, clips: Clips) -> None:
    reader = Reader(base.vocabulary, base.lexicon, base.rate)
    packs = validation_packs(clips, reader, base, base.context)
    said = [pack.labels[pack.labels >= 0] for pack in packs]
    wanted = [
        torch.tensor([*base.vocabulary.tokens(np.asarray(row["codes"])), base.vocabulary.end])
        for row in sorted(clips.held_out, key=lambda row: len(row["codes"]) + len(row["text"]))
    ]
    assert torch.equal(torch.cat(said), torch.cat(wanted))
    first = packs[0].ids[: packs[0].bounds[1]].tolist()
    prompt = base.vocabulary.prompt(
        min(clips.held_out, key=lambda row: len(row["codes"]) + len(row["text"]))["text"],
        clips.reference["text"],
        clips.reference["codes"],
    )
    assert first[: len(prompt)] == prompt  # as `Llasa.say` asks for it


def test_the_plan_grows_with_the_clips(base: Base, clips: Clips) -> None:
    reader, cpu = Reader(base.vocabulary, base.lexicon, base.rate), torch.device("cpu")
    plan = make_plan(clips, reader, base, False, None, cpu, 32)
    assert plan.tokens >= plan.longest
    assert plan.longest <= base.context
    assert 0 < plan.every <= plan.steps
    assert make_plan(clips, reader, base, False, 7, cpu, 32).steps == 7
    assert learning_rate(2048, full=True) == pytest.approx(5e-5, rel=0.03)
    assert learning_rate(2048, full=False) == pytest.approx(10 * learning_rate(2048, full=True))
    assert learning_rate(4096, full=True) < learning_rate(2048, full=True)

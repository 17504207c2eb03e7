"""What clips are heard to be, and that it is heard once."""

import json
from pathlib import Path

import numpy as np
import pytest
from bars import hearing
from readings import SENTENCES

from llasa.data.teachers.flite import Speaker, speak


def test_what_was_heard_is_kept_and_a_line_that_was_cut_off_heard_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "runs" / "heard.jsonl"
    clips = [speak(text, Speaker("slt", "slt"))[0] for text in SENTENCES[:2]]
    first = hearing.hear([*clips, clips[0]], ("pitch",), store)
    assert first[0] == first[2]
    assert first[0] != first[1]
    assert 100 < first[0]["pitch"]["mean"] < 300
    lines = store.read_text().splitlines()
    assert len(lines) == 2
    monkeypatch.setattr(hearing.workers, "spread", lambda work, jobs, processes: enumerate(map(work, jobs)))
    # What is in the file is believed, of other listeners nothing is.
    store.write_text(json.dumps(json.loads(lines[0]) | {"pitch": "known"}) + "\n" + lines[1][:30])
    again = hearing.hear(clips, ("pitch", "resemblyzer"), store)
    assert sorted(str(found["pitch"])[:5] for found in again) == ["known", "{'mea"]
    assert np.linalg.norm(hearing.vectors(again, "resemblyzer"), axis=1) == pytest.approx([1, 1], abs=1e-3)
    assert hearing.hear(clips, ("pitch", "resemblyzer"), store) == again


def test_results_hold_errors_instead_of_words_and_the_lowest_opinion_of_nothing() -> None:
    nothing = {"whisper": "", "distillmos": float("nan"), "pitch": {"mean": float("nan")}}
    found = hearing.judged("It was late.", nothing)
    assert (found["whisper"], found["words"], found["distillmos"]) == (3, 3, 1.0)
    assert hearing.judged("It was late.", {"pocketsphinx": "it was grey late"})["pocketsphinx"] == 1

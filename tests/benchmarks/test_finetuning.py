"""The table of a fine-tuning: flite's voices stand for the reader, random models for those that speak."""

from pathlib import Path

import numpy as np
import pytest
from bars import finetuning
from readings import hear_beginnings
from small_models import make_lm_folder

from llasa.data.teachers.flite import Speaker, speak
from llasa.errors import LlasaError
from llasa.tts import Llasa

SAID = ["The old man walked down to the river.", "There was nothing left in the house."]


def test_before_and_after_are_judged_on_the_same_words(
    codec_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process, where the listeners are loaded once.
    monkeypatch.setattr(finetuning.listeners, "spread", lambda judge, *columns: list(map(judge, *columns)))
    hear_beginnings(monkeypatch, 15)
    # Slow on noise, and the reader says each of his sentences in less.
    for name in ("pocketsphinx", "distillmos"):
        whole = getattr(finetuning.listeners, name)
        monkeypatch.setattr(finetuning.listeners, name, lambda clip, whole=whole: whole(clip[: round(2.2 * 16000)]))
    folders = [
        make_lm_folder(tmp_path / str(seed), codec_folder, seed=seed, max_position_embeddings=512) for seed in (0, 1)
    ]
    before, after = (Llasa.load(folder, device="cpu") for folder in folders)
    clips = [(speak(text, Speaker("slt", "slt"))[0], text) for text in SAID]
    voice = before.clone(clips[0][0], SAID[0], name="slt", rate=16000)
    voice.save(folders[0] / "voices" / "reader.safetensors")
    part = finetuning.measure(before, after, voice, [*clips, (clips[0][0], "...")], ["One more."])
    by = {who: [item for item in part.items if item["who"] == who] for who in finetuning.LABELS}
    assert [len(by[who]) for who in ("reader", "copy", "before", "after")] == [2, 2, 3, 3]
    alike = {who: np.mean([item["similarity"] for item in by[who]]) for who in by}
    assert alike["reader"] > 0.85 > alike["after"]
    for listener in finetuning.HEARING:
        assert sum(i[listener] for i in by["reader"]) < 0.5 * sum(i["words"] for i in by["reader"])
        assert sum(i[listener] for i in by["after"]) > 0.8 * sum(i["words"] for i in by["after"])
    quality = {who: np.mean([item["quality"] for item in by[who]]) for who in by}
    assert quality["reader"] > quality["after"]
    assert [item["words"] for item in by["before"]] == [item["words"] for item in by["after"]]
    text = "\n".join(f"{row.what}: {row.figure}" for row in part.rows)
    assert "word error rate by Whisper tiny, the reader's own clips (2): " in text
    assert "after less before, paired" in text
    assert not any(words in text for words in SAID)
    with pytest.raises(LlasaError, match="give two or more"):
        finetuning.measure(before, after, voice, clips[:1])

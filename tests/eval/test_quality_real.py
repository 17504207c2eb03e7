"""Real people's rows, with flite's voices in their place: random models, which fail, and what must hold of any."""

from pathlib import Path

import numpy as np
import pytest
from models import make_lm_folder

from llasa.data.teachers.flite import Speaker, speak, speakers
from llasa.errors import LlasaError
from llasa.eval import quality_real
from llasa.eval.report import Row
from llasa.tts import Llasa

RATE = 16000
SENTENCES = [
    "The old man walked slowly down to the river to mend his nets.",
    "There was nothing left in the house but a table and two chairs.",
    "She wrote a long letter to her brother, who lived in the city.",
]


@pytest.fixture(scope="module")
def tts(codec_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Llasa:
    folder = make_lm_folder(tmp_path_factory.mktemp("real") / "lm", codec_folder, max_position_embeddings=2048)
    model = Llasa.load(folder, device="cpu")
    text = "A short reference."
    voice = model.clone(speak(text, Speaker("slt", "slt"))[0], text, name="reader")
    voice.save(folder / "voices" / "reader.safetensors")
    return model


def verdicts(rows: list[Row]) -> list[bool]:
    return [row.passed for row in rows if row.passed is not None]


def test_a_random_codec_fails_on_anybody(tts: Llasa) -> None:
    clips = [speak(SENTENCES[0], speaker)[0] for speaker in speakers(2)[3:]]
    part = quality_real.measure_codec(tts.codec, clips)
    assert verdicts(part.rows) == [False, False]
    assert [item["speaker"] for item in part.items] == [0, 1, 2]


def test_random_clones_resemble_nobody_and_the_rest_of_a_clip_its_speaker(tts: Llasa) -> None:
    text = " ".join(SENTENCES)
    clips = [speak(text, Speaker(name, name))[0] for name in ("rms", "slt")]
    short = speak(SENTENCES[2], Speaker("awb", "awb"))[0]  # all reference: it leaves nothing to compare
    part = quality_real.measure_cloning(tts, SENTENCES, [clips[0][:RATE], *clips, short])
    assert short.size > 3 * RATE
    themselves = [item for item in part.items if item["what"] == "speaker"]
    clones = [item for item in part.items if item["what"] == "clone"]
    assert [item["speaker"] for item in themselves] == [1, 2]
    assert [item["speaker"] for item in clones] == [1, 2, 3]
    assert all(item["margin"] > 0.1 for item in themselves)
    assert sum(item["errors"] for item in clones) > 0.8 * sum(item["words"] for item in clones)
    assert verdicts(part.rows) == [False]
    with pytest.raises(LlasaError, match="speakers to tell apart"):
        quality_real.measure_cloning(tts, SENTENCES, [clips[0], np.zeros(5 * RATE, np.float32)])


def test_a_random_preset_is_not_the_reader_and_the_reader_is(tts: Llasa) -> None:
    clips = [(speak(text, Speaker("slt", "slt"))[0], text) for text in SENTENCES]
    part = quality_real.measure_reader(tts, SENTENCES, [*clips, (clips[0][0], "...")])
    assert verdicts(part.rows) == [False, False]
    reader = [item for item in part.items if item["what"] == "reader"]
    preset = [item for item in part.items if item["what"] == "preset"]
    assert len(reader) == 3  # without the clip that has no words
    assert min(item["similarity"] for item in reader) > max(item["similarity"] for item in preset) + 0.1
    assert sum(item["errors"] for item in reader) < 0.5 * sum(item["words"] for item in reader)
    with pytest.raises(LlasaError, match="two or more"):
        quality_real.measure_reader(tts, SENTENCES, clips[:1])


def test_a_reference_ends_in_a_pause_and_nothing_is_lost() -> None:
    rng = np.random.default_rng(0)
    clip = rng.normal(0, 0.1, 14 * RATE).astype(np.float32)
    pause = slice(round(7.2 * RATE), round(7.6 * RATE))
    clip[pause] *= 0.01
    reference, rest = quality_real.cut(clip)
    assert pause.start + RATE // 10 <= reference.size <= pause.stop - RATE // 10
    assert np.array_equal(np.concatenate([reference, rest]), clip)


@pytest.mark.parametrize("seconds", [3.0, 6.9, 7.1, 10.5, 40.0])
def test_a_reference_lasts_3_to_10_s_and_leaves_3_or_nothing(seconds: float) -> None:
    clip = np.random.default_rng(1).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    reference, rest = quality_real.cut(clip)
    assert 3 * RATE <= reference.size <= 10 * RATE
    assert rest.size == 0 if seconds < 7 else rest.size >= 3 * RATE

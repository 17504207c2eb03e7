"""Recognition by the language model: what is heard, when, how sure; and what it does with what is no speech."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from listening import PHRASES, RATE, embedded_codec, phrase, recording
from official import make_official_folder

from llasa import audio
from llasa.engine import open_backend
from llasa.errors import LlasaError
from llasa.listen.listener import Listener, make_listener
from llasa.listen.transcript import Segment, Transcript
from llasa.models.folder import load_tokenizer
from llasa.tts import Llasa
from llasa.verifiers import Batch, load_verifier
from llasa.vocabulary import read_vocabulary

TEXTS = {name: text for name, (_, text) in PHRASES.items()}


@pytest.fixture(scope="module")
def model(listening_folder: Path) -> Llasa:
    return Llasa.load(listening_folder, device="cpu", dtype="float32")


def test_it_writes_down_what_is_said_and_when(model: Llasa) -> None:
    names = ["edith", "alma", "clara", "alma"]
    heard = model.transcribe(recording(names))
    assert heard.text == " ".join(TEXTS[name] for name in names)
    assert heard.seconds == pytest.approx(len(recording(names)) / RATE)
    place = 0.5
    for name, segment in zip(names, heard.segments, strict=True):
        assert segment.text == TEXTS[name]
        assert segment.start == pytest.approx(place, abs=0.25)
        assert segment.end == pytest.approx(place + PHRASES[name][0], abs=0.25)
        assert 0.5 < segment.confidence <= 1
        place += PHRASES[name][0] + 2.0


def test_a_long_recording_loses_and_doubles_no_word(model: Llasa) -> None:
    names = random.Random(1).choices(list(PHRASES), k=20)  # 66 seconds
    assert model.transcribe(recording(names)).text == " ".join(TEXTS[name] for name in names)


def test_a_file_of_another_rate_is_heard_alike(model: Llasa, tmp_path: Path) -> None:
    audio.save(tmp_path / "talk.flac", audio.resample(recording(["alma"]), RATE, 44100), 44100)
    assert model.transcribe(tmp_path / "talk.flac").text == TEXTS["alma"]
    assert model.transcribe(audio.resample(recording(["alma"]), RATE, 24000), 24000).text == TEXTS["alma"]


@pytest.mark.parametrize("kind", ["nothing", "a moment", "silence", "noise", "music", "a hum"])
def test_where_nothing_is_said_it_says_nothing(model: Llasa, kind: str) -> None:
    time = np.arange(8 * RATE) / RATE
    tones = [np.sin(2 * np.pi * f * time) * (np.sin(2 * np.pi * k * time) > 0) for f, k in ((220, 1), (331, 1.7))]
    sounds = {
        "nothing": np.zeros(0), "a moment": np.full(20, 0.1), "silence": np.zeros(8 * RATE),
        "noise": np.random.default_rng(0).normal(0, 0.1, 8 * RATE), "music": 0.1 * sum(tones),
        "a hum": 0.2 * np.sin(2 * np.pi * 50 * time),
    }  # fmt: skip
    assert model.transcribe(np.asarray(sounds[kind], np.float32)).segments == ()


def test_bad_recordings_are_refused_in_one_line(model: Llasa, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    with pytest.raises(LlasaError, match="empty"):
        model.transcribe(tmp_path / "empty.wav")
    with pytest.raises(LlasaError, match="NaN"):
        model.transcribe(np.full(RATE, np.nan, np.float32))
    with pytest.raises(LlasaError, match="one row of samples"):
        model.transcribe(np.zeros((2, RATE), np.float32))


def test_a_model_that_was_not_trained_for_it_says_so(lm_folder: Path) -> None:
    model = Llasa.load(lm_folder, device="cpu")
    with pytest.raises(LlasaError, match=r"was not trained to recognise speech .*data\.recognition"):
        model.transcribe(np.zeros(RATE, np.float32))
    with pytest.raises(LlasaError, match="was not trained to recognise speech"):
        model.say("Hi.", verify="self")


def test_a_tokenizer_without_the_tokens_is_refused(model: Llasa) -> None:
    with pytest.raises(LlasaError, match=r"has no <\|NOTHING\|>: it cannot recognise speech"):
        model.vocabulary.marks("<|NOTHING|>")


def test_the_right_text_is_the_likeliest(model: Llasa) -> None:
    sounds = {name: phrase(name) for name in PHRASES}
    for name, sound in sounds.items():
        scores = {other: model.listener.likelihood(text, sound) for other, text in TEXTS.items()}
        assert max(scores, key=lambda other: scores[other]) == name
        assert all(0 <= score <= 1 for score in scores.values())
    assert model.listener.likelihood("this was not because", np.zeros(RATE, np.float32)) == 0
    assert model.listener.likelihood("", sounds["alma"]) == 0


def test_the_verifier_self_asks_the_model(model: Llasa) -> None:
    verifier = model._load_verifier("self")
    scores = verifier.score(Batch([TEXTS["alma"], TEXTS["edith"]], [phrase("alma")] * 2, [None, None]))
    assert scores[0] > 3 * scores[1]
    with pytest.raises(LlasaError, match="self asks the model that speaks"):
        load_verifier("self")


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Listener:
    """Random weights in the official layout, over the embedded codec."""
    folder = make_official_folder(tmp_path_factory.mktemp("official") / "lm", embedded_codec().codebook_size)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"recognition": True}))
    vocabulary = read_vocabulary(load_tokenizer(folder))
    return make_listener(folder, vocabulary, embedded_codec(), open_backend(folder), spells=False)


def test_the_official_layout_works_and_a_model_that_runs_away_ends(official: Listener) -> None:
    assert official.transcribe(recording(["alma"])).segments == ()  # whatever random weights write is unlikely
    assert 0 <= official.likelihood("Next night, Troutina.", phrase("alma")) < 0.1


def test_the_prompt_is_upstreams(official: Listener) -> None:
    tokenizer, codes = official.vocabulary.tokenizer, [5, 0, 63]
    chat = [
        {
            "role": "user",
            "content": "Convert the speech to text:<|SPEECH_UNDERSTANDING_START|><|s_5|><|s_0|><|s_63|>"
            "<|SPEECH_UNDERSTANDING_END|>",
        },
        {"role": "assistant", "content": "<|TEXT_GENERATION_START|>"},
    ]
    asked = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False, continue_final_message=True)
    assert official.vocabulary.heard(codes) == asked


def test_text_comes_back_from_its_tokens(official: Listener, model: Llasa) -> None:
    for vocabulary, text in ((official.vocabulary, "Hello, wörld: 12!"), (model.vocabulary, "it is so, yes.")):
        ids = vocabulary.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert vocabulary.written([*ids, *vocabulary.marks("<|TEXT_GENERATION_END|>")]) == text


def test_transcripts_are_written_in_every_format() -> None:
    one = Transcript((Segment("so it is", 0.5, 1.25, 0.98765), Segment("a < b", 3661.0, 3662.5, 0.5)), 4000.0)
    assert one.written("text") == "so it is a < b\n"
    assert json.loads(one.written("json"))["segments"][0] == {
        "text": "so it is", "start": 0.5, "end": 1.25, "confidence": 0.988,
    }  # fmt: skip
    assert one.written("srt").startswith("1\n00:00:00,500 --> 00:00:01,250\nso it is\n")
    assert "01:01:01.000 --> 01:01:02.500\na &lt; b" in one.written("vtt")
    empty = Transcript((), 3.0)
    assert (empty.written("text"), empty.written("srt")) == ("\n", "")

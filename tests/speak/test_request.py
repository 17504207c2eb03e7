"""Requests: what is worked out once, whose voice the chunks get, and the progress that is told."""

from pathlib import Path

import numpy as np
import pytest
from small_models import ALPHABET

from llasa.engine import Sampling
from llasa.errors import LlasaError, LlasaWarning, NoRoom
from llasa.speak.plan import Planner
from llasa.speak.request import Options, make_request
from llasa.tts import Llasa, SearchOptions
from llasa.vocabulary import character_tokenizer, read_vocabulary
from llasa.voice import Voice

VOCABULARY = read_vocabulary(character_tokenizer(ALPHABET, 64, context=512))
PLANNER = Planner(VOCABULARY, None, 50, 512)
WARM = Sampling(temperature=0.7, top_p=0.9)
TEXT = "Hello there, you two. It is late now, and the lamp is low. Nobody spoke for some time."
VOICE = Voice("v", "Words that were spoken.", np.arange(60) % 64)


def test_a_request_says_all_there_is_to_say():
    made = make_request(PLANNER, WARM, TEXT, VOICE, 3, {"temperature": 0.5, "top_k": None, "max_seconds": 1.5})
    assert (made.sampling.temperature, made.sampling.top_p, made.sampling.top_k) == (0.5, 0.9, 0)
    assert (made.seed, made.voice, made.max_seconds, made.text) == (3, VOICE, 1.5, TEXT)
    assert " ".join(chunk.text for chunk in made.chunks) == TEXT
    assert [piece.expected / 50 for piece in made.pieces(0, len(made.chunks))] == pytest.approx(made.expected)
    assert made.piece(1).prompt == made.pieces(0, 2)[1].prompt
    assert make_request(PLANNER, WARM, TEXT, None, None, {"speaker": "kore"}).planner.speaker == "kore"


def test_what_cannot_be_asked_for():
    with pytest.raises(LlasaError, match="max_seconds is -1: it must be above 0"):
        make_request(PLANNER, WARM, TEXT, None, 1, {"max_seconds": -1})
    with pytest.raises(TypeError, match=r"unknown option loud: use temperature, .*on_progress"):
        make_request(PLANNER, WARM, TEXT, None, 1, {"loud": True})  # type: ignore[typeddict-unknown-key]
    with pytest.raises(NoRoom, match="the voice v fills this model's context of 512 tokens"):
        make_request(PLANNER, WARM, TEXT, Voice("v", "Words.", np.zeros(500, int)), 1, {})
    with pytest.warns(LlasaWarning, match=r"left out what it cannot of 你好世界，你好世界，你好世界。$"):
        make_request(PLANNER, WARM, "你好世界，你好世界，你好世界。\n\nHello there.", None, 1, {})


def test_the_first_chunk_that_can_becomes_the_voice():
    made = make_request(PLANNER, WARM, TEXT, None, 1, {})
    piece = made.piece(0)
    right, wild = (np.zeros(round(factor * piece.expected), np.uint16) for factor in (1, 1.8))
    for same in (made.after(piece, wild, True), made.after(piece, right, False), made.after(piece, right[:0], True)):
        assert same is made
    after = made.after(piece, right, True)
    assert made.needs_voice
    assert not after.needs_voice
    assert after.voice is not None
    assert after.voice.text == piece.text
    assert after.after(piece, right, True) is after
    named = make_request(PLANNER, WARM, TEXT, None, 1, {"speaker": "kore"})
    assert named.after(piece, right, True) is named


def test_progress_is_in_seconds():
    told: list[tuple[float, float]] = []
    made = make_request(PLANNER, WARM, TEXT, None, 1, {"on_progress": lambda *both: told.append(both)})
    made.report(100, 25, 1)
    made.report(100, -25, len(made.chunks))
    assert told == [(2.0, pytest.approx(2.5 + sum(made.expected[1:]))), (2.0, 2.0)]


def test_every_option_is_in_the_help(lm_folder: Path):
    for verb, options in ((Llasa.say, SearchOptions), (Llasa.stream, Options)):
        for name in options.__annotations__:
            assert verb.__doc__ is not None
            assert name in verb.__doc__
    with pytest.raises(TypeError, match="unknown option best_of"):
        Llasa.load(lm_folder).stream(TEXT, best_of=2)  # type: ignore[call-arg]

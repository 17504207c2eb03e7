"""When each word is said: by attention, by the recogniser, in speech of every kind."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from llasa import Llasa
from llasa.data.teachers.flite import Speaker, speak
from llasa.errors import LlasaWarning
from llasa.speak.word_times import Word, align

TEXT = "Dr. Lee — who knew? — paid $5 million."


@pytest.fixture(scope="module")
def tiny() -> Llasa:
    return Llasa.load("tiny")


def check(words: tuple[Word, ...] | None, text: str, seconds: float) -> None:
    """The words are the text, in order, without gaps."""
    assert words is not None
    assert " ".join(one.word for one in words) == " ".join(text.split())
    assert all(one.start <= one.end for one in words)
    assert all(one.end == other.start for one, other in pairwise(words))
    assert words[0].start >= 0
    assert words[-1].end == pytest.approx(seconds, abs=0.001)
    assert all(0 <= one.confidence <= 1.001 for one in words)


def test_a_path_through_the_characters() -> None:
    # Three words of two characters and a space each; each character is said for two codes, the pause after the second
    # word for four. One code looks back, which the path does not.
    said = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 1, 5, 6, 6, 7, 7, 8, 8]
    attention = np.full((len(said), 9), 0.02)
    attention[np.arange(len(said)), said] = 0.9
    seconds, sure = align(attention, np.array([0, 3, 6, 8]), 50.0)
    assert seconds * 50 == pytest.approx([0, 6, 14])
    assert sure == pytest.approx([0.94, (7 * 0.94 + 0.06) / 8, 0.92])


def test_more_characters_than_codes() -> None:
    seconds, sure = align(np.full((2, 7), 1 / 7), np.array([0, 2, 4, 6]), 50.0)
    assert len(seconds) == len(sure) == 3
    assert (np.diff(seconds) >= 0).all()


def test_plain_streamed_searched_and_faster_speech_has_words(tiny: Llasa) -> None:
    plain = tiny.say(TEXT, seed=1)
    assert plain.timer.source == "attention"
    check(plain.words, TEXT, plain.seconds)
    assert plain.words is plain.words
    by_word = {one.word: one for one in plain.words or ()}
    assert by_word["$5"].confidence > 0.8
    assert by_word["million."].start - by_word["$5"].start > 0.15
    fast = tiny.say(TEXT, seed=1, speed=2.0)
    assert [one.start for one in fast.words or ()] == pytest.approx([one.start / 2 for one in plain.words or ()])
    stream = tiny.stream(TEXT, seed=1)
    count = sum(map(len, stream))
    check(stream.words, TEXT, count / tiny.rate)
    searched = tiny.say("Good morning to all.", voice="bruno", seed=1, best_of=2)
    check(searched.words, "Good morning to all.", searched.seconds)


def test_words_lie_where_they_sound(tiny: Llasa) -> None:
    """What the model says is heard by the recogniser at about the same times."""
    text = "The ferry left a little before seven."
    speech = tiny.say(text, voice="alma", seed=1)
    heard = replace(speech.timer, head=None)
    assert heard.source == "recogniser"
    ours, theirs = speech.words, heard.words(speech.request, speech.utterances)
    check(theirs, text, speech.seconds)
    assert np.median([abs(a.start - b.start) for a, b in zip(ours or (), theirs or (), strict=True)]) < 0.06


def test_a_cloned_voice_and_many_chunks(tiny: Llasa) -> None:
    words = "The words that are spoken in the recording."
    voice = tiny.clone(speak(words, Speaker("slt", "slt"))[0], words)
    speech = tiny.say("It cost $5.\n\nThe end.", voice, seed=1)
    assert len(speech.utterances) > 1
    check(speech.words, "It cost $5. The end.", speech.seconds)
    stream = tiny.stream("It cost $5.\n\nThe end.", voice, seed=1)
    while not stream.utterances:
        next(stream)
    begun = stream.words
    assert begun
    assert "end." not in [one.word for one in begun]


def test_a_model_that_cannot_tell_says_so(lm_folder: Path) -> None:
    speech = Llasa.load(lm_folder).say("Hello there.", seed=1, max_seconds=0.5)
    assert speech.timer.source is None
    with pytest.warns(LlasaWarning, match="nothing tells when this model says a word"):
        assert speech.words is None


def test_a_chunk_without_sound_has_no_time(tiny: Llasa) -> None:
    speech = tiny.say("Hello there.", seed=1)
    silent = replace(speech.utterances[0], codes=np.empty(0, np.uint16))
    words = speech.timer.words(speech.request, [silent])
    assert words == (Word("Hello", 0.0, 0.0, 0.0), Word("there.", 0.0, 0.0, 0.0))

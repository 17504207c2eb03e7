"""Text to pieces: what fits, how long a piece should last, and what cannot be said."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import ALPHABET

from llasa.engine.prompt import FRESH, Prompt
from llasa.errors import LlasaError
from llasa.speak.plan import Planner, pace
from llasa.text.script import PACE, check_text, is_latin, letters, strip_controls
from llasa.text.splitting import Chunk
from llasa.vocabulary import character_tokenizer, read_vocabulary
from llasa.voice import Voice

VOCABULARY = read_vocabulary(character_tokenizer(ALPHABET, 64, context=512))


def make_voice(text: str = "This is what the reference says.", codes: int = 100) -> Voice:
    return Voice("anna", text, np.zeros(codes, np.uint16))


def planner(lexicon: dict[str, str] | None = None, context: int = 512) -> Planner:
    return Planner(VOCABULARY, lexicon, 50, context)


@given(
    st.lists(
        st.sampled_from(["so", "word", "sentence.", "clause,", "incomprehensibilities", "\n\n", "Yes!"]), min_size=1
    ),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_every_piece_leaves_room_for_its_speech(words: list[str], cloned: bool):
    text, voice = " ".join([*words, "end"]), make_voice() if cloned else None
    chunks, unread = planner().chunks(text, voice)
    assert not unread
    assert sum(len(c.text.split()) for c in chunks) >= len([w for w in words if w.strip()])
    for chunk in chunks:
        piece = planner().pieces([chunk], voice)[0]
        assert 1 <= piece.limit <= 512 - len(piece.prompt)
        assert piece.expected <= piece.limit


@pytest.mark.parametrize("space", [" ", "\t", "\xa0", "\u2003", "\u3000", " \t"])
@pytest.mark.parametrize("times", [400, 40_000])
def test_runs_of_spaces_fold_before_lengths_are_checked(space: str, times: int):
    gap = space * times
    for text in (f"Hello{gap}there, you two.", f"{gap}Hello there, you two.{gap}", f"Hello there,{gap}you{gap}two."):
        for voice in (None, make_voice()):
            chunks, unread = planner().chunks(text, voice)
            assert " ".join(chunk.text for chunk in chunks) == "Hello there, you two."
            assert not unread


def test_a_piece_is_prompted_with_the_reference_before_it():
    voice = make_voice()
    piece = planner().pieces([Chunk("And this is new.", 0.3)], voice)[0]
    assert piece.prompt == VOCABULARY.prompt("And this is new.", "This is what the reference says.", voice.codes)
    assert piece.text == "And this is new."
    assert piece.pause == 0.3


def test_of_a_voice_that_is_reused_the_backend_is_told_which_tokens_are_its_own():
    voice = replace(make_voice(), reused=True)
    for text in ("and this is new.", "yes."):
        ids, prompt = (planner().pieces([Chunk(text, 0)], one)[0].prompt for one in (make_voice(), voice))
        assert prompt == ids
        assert isinstance(prompt, Prompt)
        assert list(prompt.alone) == VOCABULARY.prompt("", "This is what the reference says.", voice.codes)
        assert len(prompt) - prompt.moved == len(prompt.alone)
        assert VOCABULARY.written(prompt[prompt.shared :]).startswith(text)
    for other in (None, make_voice(), replace(make_voice(codes=FRESH), reused=True)):
        assert not isinstance(planner().pieces([Chunk("Yes.", 0)], other)[0].prompt, Prompt)


def test_text_and_transcript_go_through_the_lexicon():
    lexicon = {"this": "ab", "says": "cd"}
    voice = make_voice("This: 2 says.")
    piece = planner(lexicon).pieces([Chunk("Says this.", 0.3)], voice)[0]
    assert piece.prompt == VOCABULARY.prompt("cd ab.", "ab: two cd.", voice.codes)


def test_a_small_model_reads_every_piece_as_a_sentence():
    small = planner({"very": "v", "tired": "t"})
    for text, read in (
        ("Very tired,", "v t."),
        ("Very tired!", "v t!"),
        ("Tired:", "t."),
        ("tired", "t."),
        ("tired?", "t?"),
        ("Very!", "v."),
    ):
        piece = small.pieces([Chunk(text, 0)], None)[0]
        assert (piece.text, piece.prompt) == (text, VOCABULARY.prompt(read))
    assert planner().pieces([Chunk("Tired,", 0)], None)[0].prompt == VOCABULARY.prompt("Tired,")


def test_a_small_model_reads_the_transcript_of_a_reference_as_a_sentence():
    small = planner({"very": "v", "tired": "t"})
    for said, read in (("very tired", "v t."), ("Very tired,", "v t."), ("Very tired!", "v t!"), ("", "")):
        voice = make_voice(said)
        prompt = small.pieces([Chunk("Tired.", 0)], voice)[0].prompt
        assert prompt == VOCABULARY.prompt("t.", read, voice.codes)


def test_a_small_model_reads_words_that_repeat_in_pieces():
    text = "Very, very, very tired;\n\nTired?"
    chunks, _ = planner({"very": "v", "tired": "t"}).chunks(text, None)
    assert chunks == [("Very, very,", 0.0), ("very tired", 0.6), ("Tired?", 0.0)]
    chunks, _ = planner().chunks(text, None)
    assert [chunk.text for chunk in chunks] == ["Very, very, very tired", "Tired?"]


def test_expected_length_follows_the_voices_pace():
    slow, fast = make_voice(codes=200), make_voice(codes=80)
    text = Chunk("Some words to say in a voice.", 0)
    lengths = [planner().pieces([text], voice)[0].expected for voice in (fast, None, slow)]
    assert lengths == sorted(lengths)
    assert lengths[0] == pytest.approx(80 / letters(fast.text) * letters(text.text))
    assert pace(make_voice("Hi.", codes=400), 50) == PACE  # too short to tell


def test_no_short_word_fits_in_twice_and_no_text_has_less_room_than_its_expected_length_twice():
    # A preset takes up to 0.95 s for a word of three letters, and from 1.3 s for two of them.
    for word in ("Hi.", "Go!", "Oh!"):
        assert 48 < planner().pieces([Chunk(word, 0)], make_voice(codes=100))[0].limit < 65
    for text in ("Stop.", "Never give up.", "These are some words that make a sentence."):
        piece = planner().pieces([Chunk(text, 0)], None)[0]
        assert piece.limit > 2 * piece.expected + 45


def test_max_seconds_replaces_the_limit():
    assert planner().pieces([Chunk("Some words.", 0)], None, max_seconds=0.5)[0].limit == 25


def test_takes_too_short_too_long_or_endless_are_implausible():
    piece = planner().pieces([Chunk("These are some words that make a sentence.", 0)], None)[0]
    assert 130 < piece.expected < 160
    assert piece.is_plausible(140, True)
    assert piece.is_plausible(60, True)
    assert not piece.is_plausible(20, True)
    assert not piece.is_plausible(piece.limit, False)
    assert not piece.is_plausible(0, True)
    # A short word may be short, but not nothing.
    short = planner().pieces([Chunk("No.", 0)], None)[0]
    assert short.is_plausible(5, True)
    assert not short.is_plausible(0, True)


def test_a_take_that_ended_beats_one_that_did_not_and_then_the_expected_length_counts():
    piece = planner().pieces([Chunk("These are some words that make a sentence.", 0)], None)[0]
    takes = [(140, True), (100, True), (20, True), (140, False), (300, False), (0, True)]
    assert sorted(takes, key=lambda take: piece.distance(*take)) == takes


@pytest.mark.parametrize("text", ["", " \n\t", "\x00\x00", "\u200b"])
def test_empty_text_is_refused(text: str):
    with pytest.raises(LlasaError, match="nothing to say"):
        planner().chunks(text, None)


@pytest.mark.parametrize("text", ["...", "?!, -- ;", "😀 🎉", "♪"])
def test_text_without_words_is_refused(text: str):
    with pytest.raises(LlasaError, match="no words"):
        check_text(text)


@pytest.mark.parametrize("text", ["你好，世界。", "Привет, мир!", "こんにちは", "مرحبا بالعالم"])
def test_scripts_that_the_model_does_not_know_are_refused(text: str):
    lexicons: tuple[dict[str, str] | None, ...] = (None, {})
    for lexicon in lexicons:
        with pytest.raises(LlasaError, match="this model cannot read any of the text"):
            planner(lexicon).chunks(text, None)


def test_unreadable_chunks_are_left_out_and_told():
    # Mostly foreign, so that English normalisation does not drop it first.
    chunks, unread = planner().chunks("你好，世界。你好，世界。你好，世界。\n\nHello there.", None)
    assert [chunk.text for chunk in chunks] == ["Hello there."]
    assert "".join(unread).count("你好") == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("He said привет to me, 你好, and привет again.", ["привет", "你好,"]),
        ("Café, naïve, å, ısland, ﬁne, ½, x², π™ and -5 °C.", []),
        ("A mixed caféж stays in part.", ["caféж"]),
        ("नमस्ते is a word, ٣ a digit.", ["नमस्ते", "٣"]),
    ],
)
def test_words_that_are_left_out_are_told(text: str, words: list[str]):
    for reading in (planner(), planner({"he": "hE"})):
        assert reading.chunks(text, None)[1] == words


def test_other_scripts_stay_for_a_model_that_can_read_them():
    reads = character_tokenizer(ALPHABET + "你好，世界。", 64, context=512)
    chunks, unread = Planner(read_vocabulary(reads), None, 50, 512).chunks("你好，\x00世界。", None)
    assert [chunk.text for chunk in chunks] == ["你好，世界。"]
    assert not unread


def test_nul_bytes_and_controls_in_words_do_not_matter():
    chunks, _ = planner().chunks("Hel\x00lo \x1b there.", None)
    assert [chunk.text for chunk in chunks] == ["Hello there."]
    assert strip_controls("a\x00b\n c\u200b") == "ab c"


def test_a_voice_that_fills_the_context_is_refused():
    with pytest.raises(LlasaError, match="the voice anna fills this model's context of 512 tokens"):
        planner().chunks("Hello there, this is some text.", make_voice(codes=450))
    with pytest.raises(LlasaError, match="no room for speech"):
        planner(context=120).chunks("Hello there, this is some text.", None)


def test_wide_characters_stand_for_syllables():
    assert letters("ab c") == 3
    assert letters("你好") == 7
    assert is_latin("Déjà vu, naïve 42")
    assert is_latin("42")
    assert not is_latin("Это слово is Russian, я думаю")


def test_a_long_text_is_cut_into_many_chunks():
    text = "It was the best of times, it was the worst of times. " * 950
    assert len(text) > 50_000
    chunks, unread = planner().chunks(text, make_voice())
    assert not unread
    assert " ".join(chunk.text for chunk in chunks) == text.strip()

"""Word errors as Seed-TTS-Eval counts them, worked by hand."""

import pytest

from llasa.suites.seed_words import errors, plain, simplified


@pytest.mark.parametrize(
    ("text", "heard", "rate"),
    [
        ("Get the trust fund to the bank early.", "get the trust fund to the bank early", 0),
        # Marks go and leave no space: "well-known" is one word, "wellknown"; an apostrophe stays.
        ("A well-known man's hat.", "a wellknown man's hat", 0),
        ("A well-known man's hat.", "A well known mans hat", 3 / 4),  # one inserted, two wrong
        ("They said yes - and left.", "they said yes and left", 0),
        ("One two three four.", "one three four five six", 3 / 4),
        ("Say it.", "", 1),
        ("No.", "no no no", 2),  # what was inserted can be more than all words
        ("He said “stop”—now…", "he said stopnow", 0),  # as the scripts have it: no space is left for a dash
        ("It costs 5 dollars", "it costs five dollars", 1 / 4),  # nor are numbers written out
    ],
)
def test_english_is_compared_word_by_word(text: str, heard: str, rate: float) -> None:
    assert errors(text, heard, "en") == (pytest.approx(rate), 1)


@pytest.mark.parametrize(
    ("text", "heard", "rate"),
    [
        ("四是四，十是十。", "四是四十是十", 0),
        ("四是四，十是十。", "四四十是石", 2 / 6),  # one missing, one wrong
        ("你好，世界！", "你好 世界", 0),
        ("去KTV吗？", "去KTV吗", 0),
        ("去KTV吗？", "去ktv吗", 3 / 5),  # letters are characters, and keep their case
    ],
)
def test_chinese_is_compared_character_by_character(text: str, heard: str, rate: float) -> None:
    assert errors(text, heard, "zh") == (pytest.approx(rate), 1)


def test_marks_go_and_double_spaces_once() -> None:
    assert plain("A , b", "en") == "a b"
    assert plain("don't!", "en") == "don't"
    assert plain("我，们", "zh") == "我 们"


def test_traditional_characters_become_simplified() -> None:
    assert simplified("語音識別") == "语音识别"

"""What is plainly wrong: found in speech that was spoilt, not in speech that is well."""

from typing import Any

import numpy as np
import pytest

from llasa.codec import load_codec
from llasa.data.teachers.flite import TEACHERS, Speaker, speak
from llasa.verifiers import Batch
from llasa.verifiers.sanity import Sanity, judge_sound, repeats

ODD = ("Yes.", "No, no, no, no, no.", "It was very, very, very, very good.", "In 1984 he paid $1,234,567 for it.")


def silence(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1e-5, int(16000 * seconds)).astype(np.float32)


@pytest.mark.parametrize("voice", TEACHERS)
def test_nothing_is_wrong_with_the_teachers(voice: str) -> None:
    for text in (*ODD, "The old man walked slowly down to the river."):
        assert judge_sound(text, speak(text, Speaker(voice, voice))[0]) is None, text


def test_a_long_pause_is_neither_silence_nor_a_loop(spoken: Any) -> None:
    text = f"{spoken.texts[0]} {spoken.texts[1]}"
    for pause in (silence(2.5), np.zeros(40000, np.float32)):
        assert judge_sound(text, np.concatenate([spoken.rms[0], pause, spoken.rms[1]])) is None


def test_what_is_wrong_is_said(spoken: Any) -> None:
    text, clip = spoken.texts[1], spoken.rms[1]
    word = clip[8000 : 8000 + 320 * 40]
    cases = {
        "silent": [clip[:0], silence(4), np.zeros(64000, np.float32), np.concatenate([clip[:12000], silence(3)])],
        "clipped": [np.clip(30 * clip, -1, 1)],
        "too short for its text": [clip[:14000]],
        "too long for its text": [np.concatenate([clip, *spoken.slt, *spoken.rms])],
        "repeats itself": [np.concatenate([clip[:16000], *[word] * 4])],
        "NaN": [np.where(np.arange(clip.size) == 9, np.nan, clip)],
    }
    for wrong, clips in cases.items():
        assert [judge_sound(text, one) for one in clips] == [wrong] * len(clips)
    assert list(Sanity().score(Batch([text] * 2, [clip, clip[:14000]], [None] * 2))) == [1, 0]


def test_a_fragment_may_be_short_and_begin_late_but_not_loop(spoken: Any) -> None:
    text, clip = spoken.texts[1], spoken.rms[1]
    assert judge_sound(text, clip[:8000], ended=False) is None
    assert judge_sound(text, np.concatenate([silence(0.8), clip[:3200]]), ended=False) is None
    assert judge_sound(text, silence(1.5), ended=False) == "silent"
    assert judge_sound(text, np.concatenate([clip[8000:11200]] * 8), ended=False) == "repeats itself"


def test_a_slow_voice_has_its_own_pace(spoken: Any) -> None:
    slow = speak(spoken.texts[0], Speaker("slow", "rms", tempo=3.2))[0]
    assert judge_sound(spoken.texts[0], slow) == "too long for its text"
    assert judge_sound(spoken.texts[0], slow, pace=0.2) is None


def test_wide_letters_take_as_long_as_the_planner_expects(spoken: Any) -> None:
    assert judge_sound("你好，今天天气很好。", spoken.rms[0]) is None
    assert judge_sound("你好，今天天气很好。" * 5, spoken.rms[0]) == "too short for its text"


@pytest.mark.parametrize("lag", [2, 17, 50, 100])
def test_a_loop_of_codes_is_found_once_it_is_long_enough(lag: int) -> None:
    codes = np.random.default_rng(lag).integers(0, 4096, 400)
    least = max(50, 2 * lag)
    for run, found in ((least - 1, False), (least, True)):
        looped = codes.copy()
        for position in range(60 + lag, 60 + lag + run):
            looped[position] = looped[position - lag]
        assert repeats(looped) is found


def test_a_pause_of_one_code_is_no_loop_and_a_stuck_code_is() -> None:
    codes = np.random.default_rng(0).integers(0, 4096, 400)
    for run, found in ((100, False), (150, True)):
        stuck = codes.copy()
        stuck[100 : 100 + run] = 7
        assert repeats(stuck) is found
    assert not repeats([])
    assert not repeats(codes[:3])


def test_speech_and_its_pauses_hold_no_loop_of_codes(spoken: Any) -> None:
    codec = load_codec("tiny")
    joined = np.concatenate([spoken.rms[0], np.zeros(32000, np.float32), spoken.rms[1]])
    for clip in (spoken.rms[1], spoken.slt[1], joined):
        assert not repeats(codec.encode(clip))

import numpy as np
import pytest
from data.corpora import tone

from llasa.data.filters import Limits, activity, refuse, spoken_letters

LIMITS = Limits()
NOISE = np.random.default_rng(0).normal(0, 0.05, 32000).astype(np.float32)
SINE = (0.1 * np.sin(np.arange(32000) / 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (tone(2.0, 0), ""),
        (tone(0.4, 0), "too short"),
        (tone(31.0, 0), "too long"),
        (tone(2.0, 0) * 0.01, "too quiet"),
        (np.zeros(32000, np.float32), "too quiet"),
        (np.concatenate([tone(1.0, 0), np.zeros(80000, np.float32)]), "mostly silence"),
        (NOISE, "steady noise"),
        (SINE, "steady noise"),
    ],
)
def test_what_is_no_speech_is_dropped_for_its_reason(samples: np.ndarray, reason: str):
    assert refuse(samples, 16000, "", LIMITS) == reason


def test_noise_may_be_kept():
    assert refuse(NOISE, 16000, "", Limits(voiced=0.0)) == ""


def test_a_text_must_be_one_that_can_be_said_in_the_time():
    clip = tone(2.0, 0)
    assert refuse(clip, 16000, "a dozen words or so fit", LIMITS) == ""
    assert refuse(clip, 16000, "no", LIMITS) == "text does not fit"
    assert refuse(clip, 16000, "a text of another and much longer recording " * 2, LIMITS) == "text does not fit"
    assert refuse(clip, 16000, "...", LIMITS) == "text does not fit"
    # Silence around the speech does not make a text too short.
    padded = np.concatenate([np.zeros(24000, np.float32), clip, np.zeros(24000, np.float32)])
    assert refuse(padded, 16000, "twelve letters", LIMITS) == ""


def test_scripts_are_weighed_by_what_they_take_to_say():
    assert spoken_letters("it's 3, no?") == 3 + 4 + 2
    assert spoken_letters("こんにちは") == 10
    assert spoken_letters("你好") == 6
    assert spoken_letters("안녕") == 5


@pytest.mark.parametrize("gain", [0.1, 0.5, 3.0])
def test_activity_does_not_depend_on_the_level(gain: float):
    clip = tone(2.0, 3)
    assert activity(clip * np.float32(gain), 16000)[0] == pytest.approx(activity(clip, 16000)[0], abs=0.1)

"""Measures against hand-counted errors, closed forms, and sounds whose order is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llasa.data.teachers.flite import Speaker, speak
from llasa.errors import LlasaError
from llasa.measure import metrics


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    return speak("Nobody in the village had seen the ferry since early spring.", Speaker("rms", "rms"))[0]


def tone(frequency: float) -> np.ndarray:
    """Two seconds with fourteen harmonics."""
    time = np.arange(32000) / 16000
    return sum((np.sin(2 * np.pi * k * frequency * time) / k for k in range(1, 15)), np.zeros(32000))


def test_words_drop_case_and_punctuation_but_keep_apostrophes() -> None:
    assert metrics.words("“Don’t!” cried O'Neil; the well-known 'café'.") == (
        ["don't", "cried", "o'neil", "the", "well", "known", "cafe"]
    )


def test_words_of_a_number_are_the_words_read() -> None:
    assert metrics.words("It cost 12 dollars") == ["it", "cost", "twelve", "dollars"]


def test_word_errors_are_counted_by_hand() -> None:
    # sat -> sits, down added, the second "the" gone
    assert metrics.word_errors("The cat sat on the mat.", "the cat sits down on mat") == (3, 6)
    assert metrics.wer("The cat sat on the mat.", "the cat sits down on mat") == 0.5


def test_letter_errors_count_the_spaces_between_words() -> None:
    assert metrics.letter_errors("The cat sat.", "the cats at") == (2, 11)  # an s added, a space and an s moved
    assert metrics.letter_errors("The cat sat.", "") == (11, 11)
    assert metrics.letter_errors("?", "a b") == (3, 0)


def test_nothing_heard_is_all_deleted_and_extra_words_exceed_one() -> None:
    assert metrics.wer("two words", "") == 1.0
    assert metrics.wer("two words", "and these are all quite other ones") == 3.5
    assert metrics.word_errors("...", "noise heard") == (2, 0)


def test_wer_without_words_says_so() -> None:
    with pytest.raises(LlasaError, match="no words"):
        metrics.wer("?!", "something")


def test_measures_of_equal_sounds_are_perfect(spoken: np.ndarray) -> None:
    assert metrics.stoi(spoken, spoken) == pytest.approx(1.0, abs=1e-6)
    assert metrics.pesq_wb(spoken, spoken) == pytest.approx(4.64, abs=0.01)
    assert metrics.mel_distance(spoken, spoken) == 0


def test_a_voice_that_loses_its_pitch_is_told_from_one_that_is_cleaned(spoken: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    assert metrics.pitch_error(spoken, spoken) == 0
    assert metrics.pitch_error(spoken, np.zeros_like(spoken)) == 1
    assert metrics.pitch_error(spoken, spoken + 0.001 * rng.normal(size=spoken.size)) < 0.05
    # Its envelope on noise is a whisper; half a fifth up is another pitch, a quarter tone is not.
    assert metrics.pitch_error(spoken, np.abs(spoken) * rng.normal(size=spoken.size)) > 0.9
    higher, sharper = (np.interp(np.arange(0, 32000, by), np.arange(32000), tone(120)) for by in (1.35, 1.03))
    assert metrics.pitch_error(tone(120)[: higher.size], higher) > 0.9
    assert metrics.pitch_error(tone(120)[: sharper.size], sharper) == 0


def test_measures_fall_as_noise_rises(spoken: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(size=spoken.size).astype(np.float32)
    noisy = [spoken + level * noise for level in (0.0003, 0.003, 0.03)]
    for measure in (metrics.stoi, metrics.pesq_wb, lambda one, other: -metrics.mel_distance(one, other)):
        scores = [measure(spoken, sound) for sound in noisy]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] - scores[-1] > 0.1


def test_a_codecs_longer_output_is_compared_over_the_shared_length(spoken: np.ndarray) -> None:
    longer = np.concatenate([spoken, np.ones(300, np.float32)])
    assert metrics.stoi(spoken, longer) == metrics.stoi(spoken, spoken)
    assert metrics.mel_distance(spoken, longer) == 0


def test_mel_distance_is_the_log_of_a_gain(spoken: np.ndarray) -> None:
    # In white noise every band lies above the floor, so a gain of two moves all by ln 2.
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    assert metrics.mel_distance(noise, 2 * noise) == pytest.approx(np.log(2), abs=1e-4)


@pytest.mark.parametrize("samples", [np.zeros(16000, np.float32), np.ones(100, np.float32), np.empty(0, np.float32)])
def test_sounds_without_speech_have_no_score(samples: np.ndarray) -> None:
    assert np.isnan(metrics.stoi(samples, samples))
    assert np.isnan(metrics.pesq_wb(samples, samples))
    assert np.isnan(metrics.pitch_error(samples, samples))


@given(st.integers(1, 300))
def test_evenly_used_codes_have_their_number_as_perplexity(count: int) -> None:
    used = metrics.codebook_usage([np.arange(count), np.arange(count)], 300)
    assert used.perplexity == pytest.approx(count)
    assert used.share == count / 300
    assert used.count == 2 * count


def test_rare_codes_count_as_used_but_hardly_add_perplexity() -> None:
    used = metrics.codebook_usage([np.zeros(999, np.uint16), np.array([7], np.uint16)], 8)
    assert used.share == 0.25
    assert used.perplexity == pytest.approx(1.008, abs=1e-3)


def test_codes_of_another_codebook_are_refused() -> None:
    with pytest.raises(LlasaError, match="another codec"):
        metrics.codebook_usage([np.array([64])], 64)
    with pytest.raises(LlasaError, match="no codes"):
        metrics.codebook_usage([], 64)


LINES = (
    "The old man walked slowly down to the river.",
    "There was nothing left in the house but a table and two chairs.",
    "We waited for the morning train until the rain came.",
)
PEOPLE = (
    Speaker("rms", "rms"),
    Speaker("slt", "slt"),
    Speaker("awb", "awb", formants=1.15, pitch=180),
    Speaker("low", "slt", formants=0.88, pitch=110),
    Speaker("child", "kal16", formants=1.2, pitch=250),
)


@pytest.fixture(scope="module")
def people() -> list[list[np.ndarray]]:
    return [[speak(line, person)[0] for line in LINES] for person in PEOPLE]


def test_speakers_are_further_apart_than_one_speakers_sentences(people: list[list[np.ndarray]]) -> None:
    within = [metrics.voice_distance(own[i], own[j]) for own in people for i, j in ((0, 1), (1, 2), (2, 0))]
    between = [
        metrics.voice_distance(one[i], other[(i + 1) % 3])
        for place, one in enumerate(people)
        for other in people[place + 1 :]
        for i in range(3)
    ]
    assert max(distance.combined for distance in within) < min(distance.combined for distance in between)
    for part in ("pitch", "spectrum"):
        own, others = ([getattr(distance, part) for distance in found] for found in (within, between))
        assert np.median(others) > 3 * np.median(own)


def test_pitch_is_told_in_semitones() -> None:
    low, high = tone(120), tone(120 * 2 ** (5 / 12))
    assert metrics.voice_distance(low, high).pitch == pytest.approx(5, abs=0.05)


def test_a_voice_is_at_no_distance_from_itself_louder(spoken: np.ndarray) -> None:
    found = metrics.voice_distance(spoken, 0.1 * spoken)
    assert (found.pitch, found.spectrum, found.combined) == pytest.approx((0, 0, 0), abs=1e-3)
    assert metrics.voice_distance(spoken, spoken) == metrics.VoiceDistance(0, 0)


def test_what_has_no_voice_has_no_distance(spoken: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    for other in (np.empty(0, np.float32), np.zeros(16000, np.float32), noise):
        assert np.isnan(metrics.voice_distance(spoken, other).combined)


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("The neighbours' grey colours, honoured in the theatre.", "the neighbors' gray colors honored in the theater"),
        ("He travelled to-day; any one can realise that.", "he traveled today anyone can realize that"),
        ("OK, Doctor, towards the defence.", "okay dr. toward the defense"),
    ],
)
def test_another_spelling_is_no_error(said: str, heard: str) -> None:
    assert metrics.word_errors(said, heard)[0] == 0
    assert metrics.word_errors(heard, said)[0] == 0


def test_other_words_are_errors_however_alike() -> None:
    assert metrics.word_errors("the four hours of rice", "the for ours of rise") == (3, 5)
    # "the rein" is no "therein" where both stand in a text.
    assert metrics.word_errors("the rein therein", "therein") == (2, 3)


def test_pitch_of_a_gliding_tone_and_of_none() -> None:
    time = np.arange(3 * 16000) / 16000
    semitones = 4 * np.sin(2 * np.pi * time)
    phase = 2 * np.pi * np.cumsum(200 * 2 ** (semitones / 12)) / 16000
    tone = sum(np.sin(k * phase) / k for k in range(1, 10)).astype(np.float32)
    found = metrics.pitch(tone)
    assert found.mean == pytest.approx(200, rel=0.02)
    assert found.deviation == pytest.approx(4 / np.sqrt(2), rel=0.05)
    assert found.span == pytest.approx(8, rel=0.05)
    assert np.isnan(metrics.pitch(np.zeros(16000, np.float32)).mean)

"""Decides which clips belong in a corpus, by length, level, voice activity, and whether the text can fit.

Voice activity is measured by energy. WebRTC's detector was tried and finds no more: it calls white noise, mains hum and
a sine 95 to 100 % speech, and agrees on what is silent. Speech varies in level, which noises and tones do not, so the
spread of levels is measured as well as the share of frames with sound. Music passes both tests.
"""

from dataclasses import dataclass

import numpy as np

from llasa import audio

FRAME = 0.05  # seconds
STEADY = 6.0  # dB between the 10th and 90th percentile of levels; speech has 15 or more, noise and tones under 2


@dataclass(frozen=True)
class Limits:
    """The limits that a clip must keep.

    Attributes:
        shortest, longest: seconds.
        quietest: least level of the speech in dBFS, as measured by `audio.loudness`.
        voiced: least share of the clip with sound; 0 lets noise pass too.
        slowest, fastest: letters a second between the first sound and the last; LJSpeech's reader says 7 to 17, flite's
            quickest voices 25.
    """

    shortest: float = 0.5
    longest: float = 30.0
    quietest: float = -45.0
    voiced: float = 0.3
    slowest: float = 4.0
    fastest: float = 28.0


def refuse(samples: np.ndarray, rate: int, text: str, limits: Limits) -> str:
    """The reason for which a clip is dropped, in a few words; empty if it is kept.

    Args:
        samples: (N,) float32.
        text: the transcript; empty if unknown.
    """
    seconds = len(samples) / rate
    if seconds < limits.shortest:
        return "too short"
    if seconds > limits.longest:
        return "too long"
    if audio.loudness(samples, rate) < limits.quietest:
        return "too quiet"
    share, spread = activity(samples, rate)
    if share < limits.voiced:
        return "mostly silence"
    if limits.voiced and spread < STEADY:
        return "steady noise"
    if text:
        spoken = len(audio.trim_silence(samples, rate, margin=0.0)) / rate
        if not limits.slowest <= spoken_letters(text) / spoken <= limits.fastest:
            return "text does not fit"
    return ""


def activity(samples: np.ndarray, rate: int) -> tuple[float, float]:
    """The share of 50 ms frames with sound, and the spread of levels in dB from the 10th to the 90th percentile.

    A frame has sound if it is no more than 30 dB below the 95th percentile and above -60 dBFS.
    """
    size = min(round(FRAME * rate), len(samples))
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    levels = 10 * np.log10(np.maximum(frames.var(axis=1, dtype=np.float64), 1e-6))
    low, high, top = np.percentile(levels, [10, 90, 95])
    return float((levels > max(-60.0, top - 30)).mean()), float(high - low)


def spoken_letters(text: str) -> float:
    """The number of letters of a text, as if every word were written out in an alphabet.

    A digit is read as a word and counts for four letters, a Chinese character for three, a kana for two, a Korean
    syllable for two and a half. That is about how long each takes to say, so one pair of limits serves all scripts.
    Punctuation does not count, since the pauses it stands for vary. For texts to be spoken, `text.script.letters`
    includes the pauses.
    """
    return sum(_weight(character) for character in text)


def _weight(character: str) -> float:
    if not character.isalnum():
        return 0.0
    code = ord(character)
    if 0x3040 <= code <= 0x30FF:
        return 2.0
    if 0xAC00 <= code <= 0xD7A3:
        return 2.5
    if 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x3FFFF:
        return 3.0
    return 4.0 if character.isdigit() else 1.0

"""Which clips belong in a corpus: their length, level, voice activity, and whether the text can be theirs.

Voice activity is a plain measure of energy. A detector such as WebRTC's was tried and finds no more: it calls white
noise, mains hum and a sine 95 to 100 % speech, and agrees on what is silent. Speech comes and goes, which noises and
tones do not, so beside the share of frames with sound the spread of their levels is asked for. Music passes both.
"""

from dataclasses import dataclass

import numpy as np

from llasa import audio

FRAME = 0.05  # seconds
STEADY = 6.0  # dB between the 10th and the 90th percentile of levels; speech has 15 and more, noise and tones under 2


@dataclass(frozen=True)
class Limits:
    """What is kept.

    Attributes:
        shortest, longest: seconds.
        quietest: level of the speech in dBFS, as `audio.loudness` measures it.
        voiced: least share of the clip in which there is sound; at 0 noise passes too.
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
    """Why a clip is left out, in a word or two that clips are counted by; empty if it is kept.

    Args:
        samples: (N,) float32.
        text: what is said in it; empty if unknown.
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
    """Share of 50 ms frames that have sound, and the spread of levels in dB from the 10th to the 90th percentile.

    A frame has sound when it is no more than 30 dB below the 95th percentile, and above -60 dBFS.
    """
    size = min(round(FRAME * rate), len(samples))
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    levels = 10 * np.log10(np.maximum(frames.var(axis=1, dtype=np.float64), 1e-6))
    low, high, top = np.percentile(levels, [10, 90, 95])
    return float((levels > max(-60.0, top - 30)).mean()), float(high - low)


def spoken_letters(text: str) -> float:
    """How many letters a text has, were every word of it written out in an alphabet.

    Digits are read as words, so one counts for four; a Chinese character for three, a kana for two, a Korean syllable
    for two and a half: about what each takes to say, so that one pair of limits serves all scripts. Marks count for
    nothing, for the pauses they stand for differ; `planning.letters` measures texts to be spoken, pauses included.
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

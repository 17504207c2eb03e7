"""Holds what was spoken, chunk by chunk, and joins the chunks into one recording."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llasa import audio
from llasa.reference import LEVEL
from llasa.speak.account import Account, Candidate
from llasa.speak.request import Request
from llasa.speak.stretch import stretch

if TYPE_CHECKING:
    from llasa.speak.word_times import Timer, Word

FAINT = LEVEL - 18.0  # dBFS; takes of the presets lie within 5 dB of LEVEL, those that lost the text 18 to 25 below
STEADY = 6.0  # dB; a chunk's level is corrected by no more than this
FADE = 0.005  # seconds, so that no chunk starts or ends with a click


@dataclass(frozen=True, eq=False)
class Utterance:
    """One chunk of a text, spoken.

    Attributes:
        text: the words, as the model read them.
        codes: (T,) uint16.
        samples: (N,) float32, as the codec decoded them, at speed 1.
        pause: seconds of silence after it.
        finished: whether the model ended it with the end token, rather than being cut off.
        work: seconds of computing: "generate" (the language model), "decode" (the codec) and, in a search, "verify".
    """

    text: str
    codes: np.ndarray
    samples: np.ndarray
    pause: float
    finished: bool
    work: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Speech:
    """The result of `Llasa.say`.

    Attributes:
        samples: (N,) float32 mono.
        rate: Hz.
        request: what was asked for.
        utterances: the chunks of its text, in order.
        timings: the work of all utterances added up (`Utterance.work`), and the elapsed seconds as "total".
        timer: tells the times of words.
        search: the account of the search, if there was one.
    """

    samples: np.ndarray
    rate: int
    request: Request
    utterances: list[Utterance]
    timings: dict[str, float]
    timer: "Timer"
    search: Account | None = None

    @property
    def text(self) -> str:
        """The text as the user gave it."""
        return self.request.text

    @property
    def seed(self) -> int:
        """The seed that makes the same audio again."""
        return self.request.seed

    @cached_property
    def words(self) -> "tuple[Word, ...] | None":
        """When each word of the text is said: see `speak.word_times.Word`. Computed when it is first asked for.

        None, with a warning, if nothing can tell; `timer.source` says what does.
        """
        return self.timer.words(self.request, self.utterances)

    def words_of(self, candidate: Candidate) -> "tuple[Word, ...] | None":
        """When a candidate of the search says each word of its chunk; None if nothing can tell."""
        assert self.search is not None
        return self.timer.chunk(self.request, self.search.texts[candidate.chunk], candidate.codes)

    @property
    def codes(self) -> np.ndarray:
        """(T,) uint16: the codes of all chunks, without the pauses between them."""
        return np.concatenate([np.empty(0, np.uint16), *(u.codes for u in self.utterances)])

    @property
    def finished(self) -> list[bool]:
        """For each chunk, whether the model ended it with the end token."""
        return [u.finished for u in self.utterances]

    @property
    def seconds(self) -> float:
        """How long the audio lasts."""
        return len(self.samples) / self.rate

    @property
    def rtf(self) -> float:
        """Real-time factor: seconds of work for a second of audio; below 1 is faster than real time."""
        return self.timings["total"] / max(self.seconds, 1e-9)

    def save(self, path: str | Path) -> None:
        """Writes a WAV, FLAC or OGG file, by the path's suffix. The file appears whole or not at all.

        Raises:
            LlasaError: another suffix, nothing to save, or the path cannot be written.
        """
        audio.save(path, self.samples, self.rate)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `Llasa.say`; `speech` holds the chunks that were finished, perhaps none."""

    def __init__(self, speech: Speech) -> None:
        super().__init__("interrupted")
        self.speech = speech


def total_work(utterances: Iterable[Utterance]) -> dict[str, float]:
    """The work of all utterances added up: seconds by kind of work (`Utterance.work`)."""
    total = {"generate": 0.0, "decode": 0.0}
    for utterance in utterances:
        for what, seconds in utterance.work.items():
            total[what] = total.get(what, 0.0) + seconds
    return total


def is_faint(samples: np.ndarray, rate: int) -> bool:
    """Whether samples (N,) are silent, or so nearly that they cannot be a reading of a text."""
    return audio.loudness(samples, rate) < FAINT


def join(utterances: list[Utterance], rate: int, speed: float = 1.0) -> np.ndarray:
    """The utterances one after the other, at one level, with their pauses between them, at a speed: (N,) float32."""
    parts = [np.empty(0, np.float32)]
    for utterance in utterances:
        parts += [_finish(utterance.samples, rate), silence(utterance.pause, rate)]
    return stretch(np.concatenate(parts[:-1] if utterances else parts), rate, speed)


def silence(seconds: float, rate: int) -> np.ndarray:
    """(N,) zeros, float32."""
    return np.zeros(round(seconds * rate), np.float32)


def _finish(samples: np.ndarray, rate: int) -> np.ndarray:
    level = audio.loudness(samples, rate) if len(samples) else -np.inf
    if level == -np.inf:
        return samples
    samples = audio.set_loudness(samples, rate, level + float(np.clip(LEVEL - level, -STEADY, STEADY)))
    size = min(round(FADE * rate), len(samples) // 2)
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    samples[:size] *= ramp
    samples[len(samples) - size :] *= ramp[::-1]
    return samples

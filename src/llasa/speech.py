"""What was spoken: chunks, their sound, and how they are joined.

Knows samples, codes and pauses; knows nothing of models.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llasa import audio
from llasa.search.account import Account

LEVEL = -23.0  # dBFS of speech: of references, as in the training corpora, and so of what is said after them
STEADY = 6.0  # dB; no chunk's level is corrected by more
FADE = 0.005  # seconds, so that no chunk starts or ends with a click


@dataclass(frozen=True, eq=False)
class Utterance:
    """One chunk of a text, spoken.

    Attributes:
        text: the words, as they were read.
        codes: (T,) uint16.
        samples: (N,) float32, as the codec decoded them.
        pause: seconds of silence to follow.
        finished: whether the model came to an end by itself, rather than being cut off.
    """

    text: str
    codes: np.ndarray
    samples: np.ndarray
    pause: float
    finished: bool


@dataclass(frozen=True, eq=False)
class Speech:
    """What `Llasa.say` made.

    Attributes:
        samples: (N,) float32 mono.
        rate: Hz.
        text: the text as it was given.
        utterances: its chunks, in order.
        seed: makes the same audio again.
        timings: seconds: "generate" (the language model), "decode" (the codec), "total"; "verify" too after a search.
        search: the account of the search, if there was one.
    """

    samples: np.ndarray
    rate: int
    text: str
    utterances: list[Utterance]
    seed: int
    timings: dict[str, float]
    search: Account | None = None

    @property
    def codes(self) -> np.ndarray:
        """(T,) uint16: the codes of all chunks, without the pauses between them."""
        return np.concatenate([np.empty(0, np.uint16), *(u.codes for u in self.utterances)])

    @property
    def finished(self) -> list[bool]:
        """For each chunk, whether the model came to an end by itself."""
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
        """Writes a WAV, FLAC or OGG file, by suffix; whole or not at all.

        Raises:
            LlasaError: another suffix, nothing to save, or the path cannot be written.
        """
        audio.save(path, self.samples, self.rate)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `Llasa.say`; `speech` holds the chunks that were finished, perhaps none."""

    def __init__(self, speech: Speech) -> None:
        super().__init__("interrupted")
        self.speech = speech


def join(utterances: list[Utterance], rate: int) -> np.ndarray:
    """The utterances one after the other at one level, with their pauses between them: (N,) float32."""
    parts = [np.empty(0, np.float32)]
    for utterance in utterances:
        parts += [_finish(utterance.samples, rate), silence(utterance.pause, rate)]
    return np.concatenate(parts[:-1] if utterances else parts)


def silence(seconds: float, rate: int) -> np.ndarray:
    """(N,) zeros."""
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

"""Tells when each word of a speech is said.

Training teaches some heads of the language model to attend to the character that is being spoken, so the model knows
where in the text it is at every code. One pass over a chunk's text and codes reads the attention of such a head, and
dynamic programming finds the path through the characters, never going back, that it speaks for most. The voice is left
out of that pass: where a code belongs depends on its own text.

A model without such heads, or whose backend does not let one look at them, is timed by its recogniser, if it has one:
by where the likeliest path of CTC spells each word.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from llasa import audio
from llasa.codec import Codec
from llasa.engine import Backend
from llasa.errors import LlasaWarning
from llasa.speak.request import Request
from llasa.speak.speech import Utterance
from llasa.text.typed import typed_words

FLOOR = 1e-6  # the least probability that counts, since a head may lose its place for a moment
ONSET = 0.05  # seconds; the first sound and the silence before it point at the same character, and it lasts so long
HEARD = 16000  # Hz, the rate that recognisers take

NO_TIMES = (
    "nothing tells when this model says a word: it has no recogniser, and no heads that were taught to point at the "
    "text, or a backend that does not show them"
)


class Word(NamedTuple):
    """A word of the text as it was typed, with its punctuation.

    Attributes:
        word: the typed word; "$5" is one, though two are said.
        start, end: seconds from the beginning of the speech. A word ends where the next one starts, so the pause after
            it is its own, and the last one ends with the speech.
        confidence: from 0 to 1. From attention, how much of it is on this word while it is said; from a recogniser, the
            mean probability of its letters.
    """

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, eq=False)
class Timer:
    """Times the words of what a model says.

    Attributes:
        backend, codec: the model's.
        head: layer and number of a head that was taught to point at what is said, if there is one to be seen.
        listen: gives the model's own recogniser (`verifiers.content.CtcContent`), if it has one.
    """

    backend: Backend
    codec: Codec
    head: tuple[int, int] | None
    listen: Callable[[], Any] | None

    @property
    def source(self) -> Literal["attention", "recogniser"] | None:
        """What tells the times; None if nothing can."""
        return "attention" if self.head else "recogniser" if self.listen else None

    def words(self, request: Request, spoken: Sequence[Utterance]) -> tuple[Word, ...] | None:
        """The words of the chunks of a request that have been spoken, in order.

        None if the model cannot tell: `source` is None, or its recogniser does not know the letters.
        """
        if self.source is None:
            warnings.warn(NO_TIMES, LlasaWarning, stacklevel=4)
            return None
        texts, starts, sure, offset = list[str](), list[float](), list[float](), 0.0
        rate, end = self.codec.rate / self.codec.hop, 0.0
        for one in spoken:
            found = self._starts(request, one)
            if found is None:
                return None
            texts += one.text.split()
            starts += (offset + found[0]).tolist()
            sure += found[1].tolist()
            end = offset + len(one.codes) / rate
            offset = end + one.pause
        typed = typed_words(
            request.text, texts, request.planner.cleaner(request.text), len(spoken) == len(request.chunks)
        )
        times = np.maximum.accumulate([*(min(starts[word.first], end) for word in typed), end]) / request.speed
        return tuple(
            Word(word.word, float(times[i]), float(times[i + 1]), float(np.mean(sure[word.first : word.stop])))
            for i, word in enumerate(typed)
        )

    def chunk(self, request: Request, text: str, codes: np.ndarray) -> tuple[Word, ...] | None:
        """The words of one chunk, or of a candidate for it, as the model read them, from its beginning and at speed 1.

        Args:
            codes: (T,), what was spoken.
        """
        spoken = Utterance(text, codes, np.empty(0, np.float32), 0.0, True)
        if (found := self._starts(request, spoken)) is None:
            return None
        starts, sure = found[0].tolist(), found[1].tolist()
        ends = [*starts[1:], len(codes) * self.codec.hop / self.codec.rate]
        return tuple(Word(*facts) for facts in zip(text.split(), starts, ends, sure, strict=True))

    def _starts(self, request: Request, spoken: Utterance) -> tuple[np.ndarray, np.ndarray] | None:
        """When each word of a chunk begins, in seconds from its beginning, and how sure that is, from 0 to 1."""
        count = len(spoken.text.split())
        if not len(spoken.codes):
            return np.zeros(count), np.zeros(count)
        if self.head and (places := request.planner.words(spoken.text)):
            prompt, starts = places
            tokens = request.planner.vocabulary.tokens(spoken.codes)
            attention = self.backend.attention([*prompt, *tokens[:-1]], *self.head)
            # Each token attends to what the next one says.
            pointed = attention[len(prompt) - 1 :, starts[0] : starts[-1] + 1]
            return align(pointed, np.array(starts) - starts[0], self.codec.rate / self.codec.hop)
        if self.listen is None:
            return None
        samples = spoken.samples if len(spoken.samples) else self.codec.decode(spoken.codes)
        return self.listen().starts(spoken.text.split(), audio.resample(samples, self.codec.rate, HEARD))


def align(attention: np.ndarray, starts: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """When each word begins, (W,) seconds, and how much of the attention is on it while it is said, (W,).

    The path goes from the first character to the last, stays at each for any number of codes, also none, and has the
    greatest product of attention. With the sums of each column, all codes are done at once.

    Args:
        attention: (T, N), from T codes to the N characters of the text and the token after it.
        starts: (W + 1,) where each word begins in the text, and where the text ends; the first is 0.
        rate: codes a second.
    """
    count, width = attention.shape
    sums = np.zeros((width, count + 1))  # of the first codes
    np.log(np.maximum(attention.T, FLOOR)).cumsum(1, out=sums[:, 1:])
    gains = np.empty((width, count + 1))  # of the best path that leaves the character before after so many codes
    best = np.full(count + 1, -np.inf)
    best[0] = 0.0
    for place in range(width):
        gains[place] = best - sums[place]
        best = sums[place] + np.maximum.accumulate(gains[place])
    entries, code = np.zeros(width, int), count
    for place in reversed(range(width)):
        entries[place] = code = int(gains[place, : code + 1].argmax())
    onsets = entries[starts]
    sure = np.array([
        attention[onsets[i] : onsets[i + 1], starts[i] : starts[i + 1]].sum() / max(1, onsets[i + 1] - onsets[i])
        for i in range(len(starts) - 1)
    ])  # fmt: skip
    seconds = onsets[:-1] / rate
    seconds[0] = max(0.0, entries[1] / rate - ONSET)
    return seconds, sure

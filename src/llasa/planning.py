"""What is going to be said: text cut into pieces, each with its prompt, the length it should have and the one it may.

Knows text, prompts and how fast people speak; knows nothing of models or sound. Lengths are in codes.
"""

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from llasa import text as texts
from llasa.errors import LlasaError
from llasa.lexicon import pronounce
from llasa.vocabulary import Vocabulary
from llasa.voice import ADVICE, Voice

PACE = 0.08  # seconds a letter: 150 English words a minute
WIDE = 3.5  # letters that a Chinese, Japanese or Korean character stands for
SLACK = 1.5  # seconds that even a single word may take beyond twice its expected length
LONGEST_CHUNK = 160  # characters; about ten seconds, the length of the utterances in most corpora
SHORTEST_CHUNK = 20  # letters; a model with less room than this for text cannot speak


@dataclass(frozen=True)
class Piece:
    """One chunk of the text, ready to be spoken.

    Attributes:
        text: the words, as they are read.
        prompt: token ids.
        expected: about how many codes it should take.
        limit: the most codes it may take; a longer take has run away.
        least: codes before which it may not end; a shorter take has lost its words.
        pause: seconds of silence after it.
    """

    text: str
    prompt: list[int]
    expected: float
    limit: int
    least: int
    pause: float

    def is_plausible(self, count: int, finished: bool) -> bool:
        """Whether a take of `count` codes came to its end by itself and neither too soon nor too late."""
        return finished and max(1, self.least) <= count <= self.limit

    def can_be_voice(self, count: int, finished: bool) -> bool:
        """Whether a take of this piece may be the reference of others, and leaves them room."""
        return self.is_plausible(count, finished) and count <= 1.5 * self.expected

    def distance(self, count: int, finished: bool) -> float:
        """How far a take is from what was expected; the least of several takes is the best."""
        return abs(math.log((count + 1) / (self.expected + 1))) + (0 if finished and count else 10)


@dataclass(frozen=True)
class Planner:
    """Makes pieces for one model.

    Attributes:
        vocabulary: the model's.
        lexicon: the model's, if it reads phones.
        codes_per_second: the codec's rate.
        context: longest sequence of the model, in tokens.
        speaker: the name that goes into each prompt, for models that were tuned with names.
    """

    vocabulary: Vocabulary
    lexicon: dict[str, str] | None
    codes_per_second: float
    context: int
    speaker: str | None = None

    def chunks(self, text: str, voice: Voice | None) -> tuple[list[texts.Chunk], list[str]]:
        """Cuts text into chunks that fit the context after the voice's prompt.

        Returns:
            the chunks, and the texts of those left out because the model has no token for any letter in them.

        Raises:
            LlasaError: nothing in the text can be spoken, or the voice leaves no room for text.
        """
        check_text(text)
        found = texts.chunks(text, self._longest(text, voice), self.cleaner(text))
        readable = [self._is_readable(chunk.text) for chunk in found]
        if not any(readable):
            raise LlasaError("there is nothing in the text that this model can read: is it in the model's language?")
        return list(compress(found, readable)), [c.text for c, fine in zip(found, readable, strict=True) if not fine]

    def pieces(
        self, chunks: Sequence[texts.Chunk], voice: Voice | None, max_seconds: float | None = None
    ) -> list[Piece]:
        """The chunks as pieces to be spoken in a voice.

        Args:
            max_seconds: the longest that a piece may last; by default about twice what is expected of it.
        """
        transcript = self._transcript(voice)
        return [self._piece(chunk, voice, transcript, max_seconds) for chunk in chunks]

    def _piece(self, chunk: texts.Chunk, voice: Voice | None, transcript: str, max_seconds: float | None) -> Piece:
        prompt = self._prompt(chunk.text, voice, transcript)
        expected = self.expected(chunk.text, voice)
        longest = (2 * expected / self.codes_per_second + SLACK) if max_seconds is None else max_seconds
        room = self.context - len(prompt)
        if room < expected / 2:
            raise self._no_room(voice)
        limit = max(1, min(room, round(longest * self.codes_per_second)))
        least = min(max(0, round(0.4 * expected - 8)), limit - 1)
        return Piece(chunk.text, prompt, expected, limit, least, chunk.pause)

    def expected(self, text: str, voice: Voice | None) -> float:
        """About how many codes a text takes."""
        return max(1.0, letters(text) * pace(voice, self.codes_per_second) * self.codes_per_second)

    def _longest(self, text: str, voice: Voice | None) -> int:
        """Most characters of a chunk that leave room for its own speech, with some to spare."""
        room = self.context - len(self._prompt("", voice, self._transcript(voice))) - self.codes_per_second
        if voice is None and self.speaker is None:
            room /= 2  # the first chunk is going to be the voice of the others
        density = letters(text) / len(text)
        spoken = 1.3 * density * pace(voice, self.codes_per_second) * self.codes_per_second
        longest = int(room / (1 + spoken))
        if longest * density < SHORTEST_CHUNK:
            raise self._no_room(voice)
        return min(LONGEST_CHUNK, longest)

    def _no_room(self, voice: Voice | None) -> LlasaError:
        if voice is None:
            return LlasaError(f"this model's context of {self.context} tokens has no room for speech")
        return LlasaError(f"the voice {voice.name} fills this model's context of {self.context} tokens: {ADVICE}")

    def _prompt(self, text: str, voice: Voice | None, transcript: str) -> list[int]:
        codes = () if voice is None else voice.codes
        return self.vocabulary.prompt(self._read(text), transcript, codes, self.speaker)

    def _transcript(self, voice: Voice | None) -> str:
        """The words of the reference, as the model reads them."""
        return "" if voice is None else self._read(self.cleaner(voice.text)(voice.text))

    def cleaner(self, text: str) -> Callable[[str], str]:
        """English normalisation, which drops other scripts, unless the text is in one and the model may know it."""
        return texts.normalise if self.lexicon is not None or is_latin(text) else strip_controls

    def _read(self, text: str) -> str:
        return text if self.lexicon is None else pronounce(text, self.lexicon)

    def _is_readable(self, text: str) -> bool:
        tokenizer = self.vocabulary.tokenizer
        spoken = "".join(character for character in self._read(text) if character.isalnum())
        ids = tokenizer(spoken, add_special_tokens=False)["input_ids"]
        return any(token != tokenizer.unk_token_id for token in ids)


def check_text(text: str) -> None:
    """Refuses a text without a single letter or digit.

    Raises:
        LlasaError: it has none.
    """
    if not any(character.isalnum() for character in text):
        raise LlasaError(f"there is nothing to say: the text {'has no words' if text.strip() else 'is empty'}")


def is_latin(text: str) -> bool:
    """Whether most of a text's letters are Latin ones."""
    found = [character for character in text if character.isalpha()]
    return sum(character < "\u0250" for character in found) * 2 >= len(found)


def strip_controls(text: str) -> str:
    """The text on one line, without control characters."""
    return " ".join("".join(c for c in text if c.isspace() or unicodedata.category(c)[0] != "C").split())


def letters(text: str) -> float:
    """The length of a text in letters; characters that stand for syllables count as several."""
    return sum(WIDE if unicodedata.east_asian_width(c) in "WF" else 1 for c in text if not c.isspace())


def pace(voice: Voice | None, codes_per_second: float) -> float:
    """Seconds a letter: the voice's own, if its transcript is long enough to tell."""
    spoken = letters(voice.text) if voice else 0
    if voice is None or spoken < 15:
        return PACE
    return float(np.clip(len(voice.codes) / codes_per_second / spoken, 0.04, 0.2))

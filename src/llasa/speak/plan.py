"""Plans what to say: cuts text into pieces, each with its prompt, its expected length and its greatest length.

Lengths are in codes. The expected length follows from how fast people speak.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llasa.engine.prompt import FRESH, Prompt
from llasa.errors import LlasaError, NoRoom
from llasa.reference import ADVICE
from llasa.text.lexicon import pronounce
from llasa.text.normalise import normalise
from llasa.text.script import PACE, check_text, is_latin, letters, longest, strip_controls
from llasa.text.splitting import Chunk, chunks, part_repeats
from llasa.vocabulary import Vocabulary
from llasa.voice import Voice

LONGEST_CHUNK = 160  # characters; about ten seconds, the length of the utterances in most corpora
SHORTEST_CHUNK = 20  # letters; a model with less room than this for text cannot speak


@dataclass(frozen=True)
class Piece:
    """One chunk of the text, ready to be spoken.

    Attributes:
        text: the words, as the model reads them.
        prompt: token ids.
        expected: about how many codes it should take.
        limit: the most codes it may take; a longer take has run away.
        least: the fewest codes it may take; a shorter take has lost words.
        pause: seconds of silence after it.
    """

    text: str
    prompt: list[int]
    expected: float
    limit: int
    least: int
    pause: float

    def is_plausible(self, count: int, finished: bool) -> bool:
        """Whether a take of `count` codes ended by itself, neither too soon nor too late."""
        return finished and max(1, self.least) <= count <= self.limit

    def can_be_voice(self, count: int, finished: bool) -> bool:
        """Whether a take of this piece can be the reference of later pieces and leaves them room."""
        return self.is_plausible(count, finished) and count <= 1.5 * self.expected

    def distance(self, count: int, finished: bool) -> float:
        """How far a take is from the expected length; of several takes, the one with the least distance is best."""
        return abs(math.log((count + 1) / (self.expected + 1))) + (0 if finished and count else 10)


@dataclass(frozen=True)
class Planner:
    """Makes pieces for one model.

    Attributes:
        vocabulary: the model's vocabulary.
        lexicon: the model's lexicon, if it reads phones.
        codes_per_second: the codec's rate.
        context: longest sequence of the model, in tokens.
        speaker: the name that goes into each prompt, for models that were tuned with speakers' names.
    """

    vocabulary: Vocabulary
    lexicon: dict[str, str] | None
    codes_per_second: float
    context: int
    speaker: str | None = None

    def chunks(self, text: str, voice: Voice | None) -> tuple[list[Chunk], list[str]]:
        """Cuts text into chunks that fit the context after the voice's prompt.

        Returns:
            the chunks that the model can read, and the words that are left out or lose a letter because it cannot.

        Raises:
            LlasaError: nothing in the text can be spoken, or the voice leaves no room for text.
        """
        check_text(text)
        found = chunks(text, self._longest(text, voice), self.cleaner(text))
        if self.lexicon is not None:
            found = [part for chunk in found for part in part_repeats(chunk)]
        readable = [chunk for chunk in found if self._is_readable(chunk.text)]
        if not readable:
            raise LlasaError("this model cannot read any of the text: check that the text is in the model's language")
        return readable, self._unread(text)

    def _unread(self, text: str) -> list[str]:
        """The words of a text with a letter or digit that the model cannot read, each once."""
        clean = self.cleaner(text)
        # Any model reads ASCII.
        strange = {character for character in set(text) if character > "\x7f" and character.isalnum()}
        # After a letter, since some, such as a raised 2, are read only there.
        unread = {character for character in strange if not self._is_readable(clean(f"x{character}").removeprefix("x"))}
        return [word for word in dict.fromkeys(text.split()) if not unread.isdisjoint(word)] if unread else []

    def pieces(self, chunks: Sequence[Chunk], voice: Voice | None, max_seconds: float | None = None) -> list[Piece]:
        """The chunks as pieces to be spoken in a voice.

        Args:
            max_seconds: the longest that a piece may last; by default about twice its expected length.
        """
        transcript = self._transcript(voice)
        return [self._piece(chunk, voice, transcript, max_seconds) for chunk in chunks]

    def _piece(self, chunk: Chunk, voice: Voice | None, transcript: str, max_seconds: float | None) -> Piece:
        prompt = self._prompt(self._closed(chunk.text), voice, transcript)
        expected = self.expected(chunk.text, voice)
        most = longest(chunk.text, pace(voice, self.codes_per_second)) if max_seconds is None else max_seconds
        room = self.context - len(prompt)
        if room < expected / 2:
            raise self._no_room(voice)
        limit = max(1, min(room, round(most * self.codes_per_second)))
        least = min(max(0, round(0.4 * expected - 8)), limit - 1)
        return Piece(chunk.text, prompt, expected, limit, least, chunk.pause)

    def expected(self, text: str, voice: Voice | None) -> float:
        """About how many codes a text takes."""
        return max(1.0, letters(text) * pace(voice, self.codes_per_second) * self.codes_per_second)

    def _longest(self, text: str, voice: Voice | None) -> int:
        """The most characters that a chunk may have so that its speech fits the context, with some room to spare."""
        room = self.context - len(self._prompt("", voice, self._transcript(voice))) - self.codes_per_second
        if voice is None and self.speaker is None:
            room /= 2  # the first chunk becomes the voice of the others
        folded = " ".join(text.split())  # as the chunks will be: a run of spaces is one
        density = letters(folded) / len(folded)
        spoken = 1.3 * density * pace(voice, self.codes_per_second) * self.codes_per_second
        longest = int(room / (1 + spoken))
        if longest * density < SHORTEST_CHUNK:
            raise self._no_room(voice)
        return min(LONGEST_CHUNK, longest)

    def _no_room(self, voice: Voice | None) -> NoRoom:
        if voice is None:
            return NoRoom(f"this model's context of {self.context} tokens has no room for speech: use another model")
        return NoRoom(f"the voice {voice.name} fills this model's context of {self.context} tokens: {ADVICE}")

    def _prompt(self, text: str, voice: Voice | None, transcript: str) -> list[int]:
        codes = () if voice is None else voice.codes
        ids = self.vocabulary.prompt(self._read(text), transcript, codes, self.speaker)
        if voice is None or not voice.reused or len(codes) <= FRESH:
            return ids
        return Prompt(ids, self.vocabulary.prompt("", transcript, codes, self.speaker), len(codes))

    def _transcript(self, voice: Voice | None) -> str:
        """The words of the reference, as the model reads them; empty without a voice, or if it does not know them."""
        said = "" if voice is None else self.cleaner(voice.text)(voice.text)
        return self._read(self._closed(said)) if said else ""

    def cleaner(self, text: str) -> Callable[[str], str]:
        """The function that cleans a text: English normalisation, which drops other scripts.

        A text in another script only loses its control characters, unless the model reads English phones.
        """
        return normalise if self.lexicon is not None or is_latin(text) else strip_controls

    def _closed(self, text: str) -> str:
        """The text as a sentence that a small model says once: after a comma, or nothing, it often goes on speaking,
        and a single word with an exclamation mark it often says twice.
        """
        if self.lexicon is None or (text[-1] in ".?!" and (text[-1] != "!" or " " in text)):
            return text
        return f"{text.rstrip(' ,;:!')}."

    def _read(self, text: str) -> str:
        return text if self.lexicon is None else pronounce(text, self.lexicon)

    def words(self, text: str) -> tuple[list[int], list[int]] | None:
        """The prompt of a chunk without a voice, and where in it each word begins, the end of the text last.

        None if the model's tokens are not characters, so that no head was taught to point at one.
        """
        read = self._read(self._closed(text))
        prompt = self.vocabulary.prompt(read, speaker=self.speaker)
        ids = self.vocabulary.tokenizer(read, add_special_tokens=False)["input_ids"]
        place = next((i for i in range(len(prompt) - len(ids)) if prompt[i : i + len(ids)] == ids), None)
        starts = [0, *(i + 1 for i, character in enumerate(read) if character == " "), len(read)]
        if place is None or len(ids) != len(read) or len(starts) != len(text.split()) + 1:
            return None
        return prompt, [place + start for start in starts]

    def _is_readable(self, text: str) -> bool:
        tokenizer = self.vocabulary.tokenizer
        spoken = "".join(character for character in self._read(text) if character.isalnum())
        ids = tokenizer(spoken, add_special_tokens=False)["input_ids"]
        return any(token != tokenizer.unk_token_id for token in ids)


def pace(voice: Voice | None, codes_per_second: float) -> float:
    """Seconds a letter: measured on the voice, if its transcript is long enough; else the usual pace."""
    spoken = letters(voice.text) if voice else 0
    if voice is None or spoken < 15:
        return PACE
    return float(np.clip(len(voice.codes) / codes_per_second / spoken, 0.04, 0.2))

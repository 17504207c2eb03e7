"""Speaks a request as a stream: one row at a time, decoded while it grows.

Audio that the listener has got cannot be taken back, so there is no second attempt: a piece that runs away is cut off.
Only a text of few words, which is easily said twice, is spoken whole before its first sound.

`Reading` decides what is generated next and what is decoded together, and computes nothing itself: `stream` runs one
alone, a server many at once. What is decoded together depends on the codes alone, so both make the same sound, bit for
bit.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llasa.codec import Codec
from llasa.engine import Backend
from llasa.errors import NoSound
from llasa.speak.plain import utterances
from llasa.speak.request import Request, take_seed
from llasa.speak.rows import Line, Rows
from llasa.speak.speech import Utterance, silence
from llasa.speak.stretch import Stretcher
from llasa.speak.word_times import Timer, Word
from llasa.text.wording import FEW, words

# Codes decoded together: few at first for a quick start, then ever more, because more at once cost less. A codec holds
# back the sound of some ten codes, so the first part is short to hear, and the second has to come soon.
SIZES = (16, 8, 12, 16, 24, 32, 50)


@dataclass(frozen=True, eq=False)
class Part:
    """Codes (T,) uint16 to decode together; the last of a piece, which may have none, is followed by a pause.

    `pause` is in seconds, and None before the last.
    """

    codes: np.ndarray
    pause: float | None = None


class Reading:
    """A request that is being read aloud, piece by piece.

    Attributes:
        line: the take to generate now; None when all pieces have been read. Whoever generates starts every new one.
        count: codes so far.
        spoken: the pieces that have been read, without their sound.
    """

    def __init__(self, request: Request) -> None:
        self._request, self._index = request, 0
        self.spoken = list[Utterance]()
        self._spoken = 0  # codes of the pieces before this one
        self._given, self._parts = 0, 0  # codes and parts of this piece that `parts` has given
        self.line = self._begin()

    def _begin(self) -> Line | None:
        if self._index == len(self._request.chunks):
            return None
        seed = take_seed(self._request.seed, self._index, 0)
        return Line(self._request.piece(self._index), seed, self._request.sampling)

    @property
    def count(self) -> int:
        """How many codes there are so far."""
        return self._spoken + (len(self.line.tokens) if self.line else 0)

    @property
    def fresh(self) -> bool:
        """Whether no part of this piece has been given yet."""
        return not self._parts

    @property
    def sizes(self) -> Sequence[int]:
        """How many codes the next parts have, unless the piece ends before; the last size goes on for ever."""
        return SIZES[min(self._parts, len(SIZES) - 1) :]

    @property
    def missing(self) -> int:
        """How many codes must still be generated before there is a part to decode."""
        return self.sizes[0] + self._given - (len(self.line.tokens) if self.line else 0)

    def parts(self) -> list[Part]:
        """What can be decoded now and was not given before. If the line has ended, the next one takes its place.

        Raises:
            NoSound: that was the last piece, and the model ended every one without a sound.
        """
        line, found = self.line, list[Part]()
        if line is None:
            return found
        codes = line.codes(self._request.planner.vocabulary, self._given)
        while len(codes) >= (size := self.sizes[0]):
            found.append(Part(codes[:size]))
            codes = codes[size:]
            self._given += len(found[-1].codes)
            self._parts += 1
        self._request.report(self.count, line.piece.expected - len(line.tokens), self._index + 1)
        if line.ended:
            found.append(Part(codes, line.piece.pause))
            self._follow(line)
        return found

    def _follow(self, line: Line) -> None:
        """Goes on to the next piece, which may have this one as its voice."""
        self._spoken += len(line.tokens)
        self._index += 1
        self._request.report(self._spoken, 0.0, self._index)
        whole = line.codes(self._request.planner.vocabulary)
        finished = len(whole) < line.piece.limit
        self.spoken.append(Utterance(line.piece.text, whole, np.empty(0, np.float32), line.piece.pause, finished))
        self._request = self._request.after(line.piece, whole, finished)
        self._given, self._parts = 0, 0
        self.line = self._begin()
        if self.line is None and not self._spoken:
            raise NoSound


class Sounding:
    """Turns the parts of a reading into its sound, at the speed of its request.

    Attributes:
        lookahead: how many codes it keeps until more come.

    Args:
        codec: the model's.
        speed: how many times as fast the speech is played.
    """

    def __init__(self, codec: Codec, speed: float) -> None:
        self.lookahead = codec.lookahead
        self._decoder, self._stretcher, self._rate = codec.decode_stream(), Stretcher(codec.rate, speed), codec.rate

    def push(self, part: Part) -> np.ndarray:
        """The samples (N,) float32 that a part adds; perhaps none."""
        samples = self._decoder.push(part.codes)
        if part.pause is not None:
            samples = np.concatenate([samples, self._decoder.finish(), silence(part.pause, self._rate)])
        return self._stretcher.push(samples)

    def finish(self) -> np.ndarray:
        """The samples that are still held back, after the last part."""
        return self._stretcher.finish()


class Stream(Iterator[np.ndarray]):
    """The audio of all chunks with their pauses, at the request's speed, in arrays (N,) float32 of any length but 0.

    Attributes:
        request: what is spoken.
        utterances: the chunks that have been spoken whole.
        timer: tells the times of words.

    Args:
        listen: gives the model's own recogniser, which counts the words of a text of few words, as in plain speaking.

    Raises:
        NoSound: the model ended every chunk without a sound.
    """

    def __init__(
        self, backend: Backend, codec: Codec, request: Request, timer: Timer, listen: Callable[[], Any] | None = None
    ) -> None:
        self.request, self.timer, self.utterances = request, timer, list[Utterance]()
        few = len(request.chunks) == 1 and len(words(request.chunks[0].text)) <= FEW
        parts = self._whole(backend, codec, listen) if listen and few else self._growing(backend)
        self._pieces = _sound(codec, request.speed, parts)

    def __next__(self) -> np.ndarray:
        return next(self._pieces)

    def close(self) -> None:
        """Ends it."""
        self._pieces.close()

    @property
    def words(self) -> tuple[Word, ...] | None:
        """When each word of the chunks spoken so far is said; see `Speech.words`."""
        return self.timer.words(self.request, self.utterances)

    def _whole(self, backend: Backend, codec: Codec, listen: Callable[[], Any]) -> Iterator[Part]:
        """The parts of the request once it is spoken: this costs the end of a short take, and listening to it."""
        self.utterances += utterances(backend, codec, self.request, listen)
        if not any(len(one.codes) for one in self.utterances):
            raise NoSound
        yield from (Part(one.codes, one.pause) for one in self.utterances)

    def _growing(self, backend: Backend) -> Iterator[Part]:
        """The parts of the request while it is being spoken."""
        reading, rows = Reading(self.request), Rows(backend)
        self.utterances = reading.spoken
        while reading.line is not None:
            if not rows.lines:
                rows.start([reading.line])
            rows.extend(reading.missing)
            yield from reading.parts()


def _sound(codec: Codec, speed: float, parts: Iterator[Part]) -> Generator[np.ndarray]:
    """The sound of parts, as soon as it is certain."""
    sounding = Sounding(codec, speed)
    for part in parts:
        if len(samples := sounding.push(part)):
            yield samples
    if len(rest := sounding.finish()):
        yield rest

"""Turns the user's arguments into a request: what to say, in which voice, from which seed.

Plain, streamed and searched speaking all start from a request.
"""

import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np

from llasa.engine import Sampling
from llasa.errors import LlasaError, LlasaWarning, printable
from llasa.models.defaults import SETTINGS
from llasa.speak.plan import Piece, Planner
from llasa.speak.stretch import check_speed
from llasa.text.splitting import Chunk
from llasa.voice import Voice

if TYPE_CHECKING:
    from llasa.verifiers.combine import Verify


class Progress(Protocol):
    """Called with the seconds of audio so far, and about how many seconds there will be in all."""

    def __call__(self, spoken: float, expected: float, /) -> None: ...


class Options(TypedDict, total=False):
    """Options of `say` and `stream`:

    temperature, top_p, top_k, min_p, repetition_penalty: see `llasa.engine.Sampling`; by default the model's own.
    max_seconds: the longest that one chunk may last at speed 1; by default it follows from the length of the text.
    speed: how many times as fast the speech is played, from 0.25 to 4, at the same pitch; the codes stay the same.
    speaker: a speaker's name that the model was tuned with; the model's default voice is then left out.
    on_progress: called often with the seconds spoken so far and about how many there will be in all.
    """

    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    max_seconds: float | None
    speed: float | None
    speaker: str | None
    on_progress: Progress | None


class SearchOptions(Options, total=False):
    """Options of `say` alone. Each of them starts a search, by default for the best of four:

    best_of: how many times to say each chunk; the best is kept.
    search: another kind of search, as `search.strategy.parse` reads it: "beam:4x4", "mixed:4x4@2s+16".
    verify: the verifiers, as `verifiers.combine.parse` reads them: "content=1,speaker=0.5", a `verifiers.Verifier`, or
        a function that turns a `verifiers.Batch` of N utterances into N numbers. The default scores the words:
        "content", with the model's own recogniser, or "whisper" if it has none.
    budget: seconds after which the search ends.
    """

    best_of: int | None
    search: str | None
    verify: "Verify | None"
    budget: float | None


@dataclass(frozen=True, eq=False)
class Request:
    """What to say and how; `make_request` makes it.

    Attributes:
        text: the text as the user gave it.
        chunks: the chunks of the text that the model can read.
        expected: about how many seconds each chunk takes at speed 1.
        planner: makes prompts of chunks.
        voice: the reference, or None.
        seed: the seed of the whole text.
        sampling: how tokens are picked.
        speed: how many times as fast the speech is played.
        max_seconds: the longest that a chunk may last at speed 1, or None to derive it from each chunk's length.
        on_progress: see `Progress`.
        note: what the user should know: which words the model cannot read.
    """

    text: str
    chunks: tuple[Chunk, ...]
    expected: tuple[float, ...]
    planner: Planner
    voice: Voice | None
    seed: int
    sampling: Sampling
    speed: float = 1.0
    max_seconds: float | None = None
    on_progress: Progress | None = None
    note: str | None = None

    @property
    def needs_voice(self) -> bool:
        """Whether the next chunk will become the voice of the later ones: there is no voice and no speaker's name."""
        return self.voice is None and self.planner.speaker is None

    def piece(self, index: int) -> Piece:
        """A chunk with its prompt after the voice, ready to be spoken.

        Raises:
            NoRoom: the voice leaves no room for the chunk.
        """
        return self.pieces(index, index + 1)[0]

    def pieces(self, first: int, last: int) -> list[Piece]:
        """Chunks `first` to `last` - 1 as pieces; see `piece`."""
        return self.planner.pieces(self.chunks[first:last], self.voice, self.max_seconds)

    def after(self, piece: Piece, codes: np.ndarray, finished: bool) -> "Request":
        """The request for the chunks after a piece. The piece becomes the voice if one is needed and it can be.

        Args:
            codes: (T,), what was spoken.
            finished: whether the model ended the piece with the end token.
        """
        if not self.needs_voice or not piece.can_be_voice(len(codes), finished):
            return self
        return replace(self, voice=Voice("first chunk", piece.text, codes))

    def report(self, spoken: float, rest: float, following: int) -> None:
        """Reports the progress.

        Args:
            spoken: codes so far.
            rest: codes still expected in the chunks that have begun.
            following: number of the first chunk that has not begun.
        """
        if self.on_progress:
            rate = self.planner.codes_per_second * self.speed
            later = sum(self.expected[following:]) / self.speed
            self.on_progress(spoken / rate, (spoken + max(0.0, rest)) / rate + later)


DAY = 86_400  # seconds
NAMED, LONGEST_NAMED = 5, 20  # words that a note names, and characters of each


def make_request(
    planner: Planner, defaults: Sampling, text: str, voice: Voice | None, seed: int | None, options: Options
) -> Request:
    """Cuts a text into chunks and gathers the settings for speaking it.

    Args:
        defaults: the model's sampling settings.
        seed: the seed; None draws one.

    Raises:
        LlasaError: nothing to say, a setting out of range, or a voice that leaves no room for text.
        TypeError: an unknown option.
    """
    given: Mapping[str, Any] = options
    if unknown := given.keys() - Options.__annotations__.keys():
        raise TypeError(f"unknown option {min(unknown)}: use {', '.join(Options.__annotations__)}")
    max_seconds = options.get("max_seconds")
    if max_seconds is not None and not 0 < max_seconds <= DAY:
        raise LlasaError(f"max_seconds is {max_seconds:g}: it must be above 0 and at most {DAY:,}, a day")
    speed = check_speed(1.0 if (wished := options.get("speed")) is None else wished)
    sampling = replace(defaults, **{name: given[name] for name in SETTINGS if given.get(name) is not None})
    planner = replace(planner, speaker=options.get("speaker"))
    seed = draw_seed(seed)
    chunks, unread = planner.chunks(text, voice)
    note = _note(unread)
    if note:
        warnings.warn(note, LlasaWarning, stacklevel=4)
    expected = tuple(planner.expected(chunk.text, voice) / planner.codes_per_second for chunk in chunks)
    return Request(
        text, tuple(chunks), expected, planner, voice, seed, sampling, speed, max_seconds, options.get("on_progress"),
        note,
    )  # fmt: skip


def _note(unread: Sequence[str]) -> str | None:
    """Names the words that a model cannot read, if there are any."""
    if not unread:
        return None
    named = ", ".join(word if len(word) <= LONGEST_NAMED else f"{word[:LONGEST_NAMED]}..." for word in unread[:NAMED])
    more = f" and {len(unread) - NAMED} more" if len(unread) > NAMED else ""
    return f"this model cannot read all of the text, and left out what it cannot of {printable(named)}{more}"


def draw_seed(seed: int | None) -> int:
    """The seed as given, or a random one.

    Raises:
        LlasaError: it is negative.
    """
    if seed is None:
        return secrets.randbits(31)
    if seed < 0:
        raise LlasaError(f"the seed is {seed}: it must be 0 or more")
    return seed


def take_seed(seed: int, piece: int, attempt: int) -> int:
    """The seed of one attempt at one piece. All are derived from the text's seed, so one number decides the audio."""
    return int(np.random.SeedSequence([seed, piece, attempt]).generate_state(1)[0])

"""What clients can want, and how it is done: streams, searches, voices. The protocols are elsewhere.

Texts are prepared in a thread of their own. Searches and clones run beside the streams, a few at once; the streams come
first only in that a search gives way to them after every few tokens (`beside.py`).
"""

import asyncio
import copy
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, TypeVar

import numpy as np

from llasa.errors import LlasaError
from llasa.listen.transcript import Transcript
from llasa.serve.beside import Beside
from llasa.serve.decoding import RATE
from llasa.serve.problems import Problem
from llasa.serve.scheduler import Busy, Scheduler
from llasa.serve.streams import Sound
from llasa.serve.turns import Turns
from llasa.serve.uploads import check_size, data_of, samples_of
from llasa.speak.request import Progress, Request
from llasa.speak.speech import Speech, Utterance
from llasa.speak.word_times import NO_TIMES, Word
from llasa.tts import Llasa
from llasa.voice import Voice, suggest

T = TypeVar("T")

# Verifiers that need neither a download nor a model that a client names.
VERIFIERS = ("content", "speaker", "naturalness", "pocketsphinx", "sanity")
# Voices that OpenAI's clients ask for when nobody has chosen one.
OPENAI_VOICES = (
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse",
)  # fmt: skip
KEPT = 32  # voices and clones in memory


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how much may wait.

    Attributes:
        characters: of a text.
        seconds: of speech, as expected from the text.
        candidates: of a search.
        budget: seconds of a search.
        heard: seconds of a recording to write down.
        jobs: searches and clones that run at once.
        waiting: searches and clones that may wait.
    """

    characters: int = 4096
    seconds: float = 900.0
    candidates: int = 16
    budget: float = 60.0
    heard: float = 3600.0
    jobs: int = 2
    waiting: int = 16


@dataclass(frozen=True)
class Wanted:
    """What a client wants to hear. `Llasa.say` explains the fields; a `reference` is a data URL or a voice's id."""

    text: str
    seed: int
    voice: str | None = None
    speed: float = 1.0
    temperature: float | None = None
    reference: str | None = None
    reference_text: str | None = None
    best_of: int | None = None
    search: str | None = None
    verify: str | None = None
    budget: float | None = None
    timestamps: bool = False

    @property
    def searched(self) -> bool:
        """Whether it is a search, and no stream."""
        return any(value is not None for value in (self.best_of, self.search, self.verify, self.budget))


def no_voice(name: str, files: Iterable[str], kind: str = "", status: int = 400) -> Problem:
    """That there is no voice of this name, of some `kind`."""
    told = suggest(name[:80], files, kind).replace("`llasa voices list` shows", "GET /v1/audio/voices lists")
    return Problem(told, status, "voice", "voice_not_found")


class Service:
    """A model that speaks for many clients. It lives in one event loop; `close` ends its threads."""

    def __init__(self, llasa: Llasa, scheduler: Scheduler, limits: Limits) -> None:
        self.llasa, self.scheduler, self.limits = llasa, scheduler, limits
        self.rate = llasa.rate
        self._preparing = ThreadPoolExecutor(1, "llasa text")
        self._working = ThreadPoolExecutor(limits.jobs, "llasa beside")
        self._jobs: Turns[asyncio.Future[None]] = Turns()
        self._busy: list[str] = []  # the client of each job that runs
        self._kept: OrderedDict[Any, Voice] = OrderedDict()

    def close(self) -> None:
        self.scheduler.close()
        self._preparing.shutdown(cancel_futures=True)
        self._working.shutdown(cancel_futures=True)

    async def prepare(self, wanted: Wanted, client: str) -> Request:
        """Reads a text for a stream.

        Raises:
            LlasaError: something in it is wrong, or too much.
        """
        self._check(wanted)
        voice = await self.voice(wanted, client)
        return await self._in_text_thread(lambda: self._request(wanted, voice))

    async def listen(self, request: Request, client: str, spoken: list[Utterance]) -> AsyncGenerator[np.ndarray, None]:
        """Yields the sound of a request as it is made, (N,) float32. To stop is to hang up.

        Args:
            spoken: gets the chunks, at the end.

        Raises:
            LlasaError: as `Scheduler.stream`, or the model fails.
        """
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Sound] = asyncio.Queue()

        def deliver(sound: Sound) -> None:
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(queue.put_nowait, sound)

        stream = self.scheduler.stream(request, client, deliver)
        try:
            while isinstance(sound := await queue.get(), np.ndarray):
                yield sound
                self.scheduler.taken(stream, len(sound) / self.rate)
            if sound is not None:
                raise sound
            spoken += stream.reading.spoken
        finally:
            self.scheduler.cancel(stream)

    async def words(self, request: Request, spoken: list[Utterance]) -> tuple[Word, ...] | None:
        """When the words of a request were said. The backend computes it between two steps of the streams."""
        own = self._beside(Beside(self.scheduler.backend, self.scheduler.call))
        return await self._in_text_thread(lambda: own.timer.words(request, spoken))

    def _beside(self, backend: Beside) -> Llasa:
        own = copy.copy(self.llasa)
        own.backend = backend
        return own

    async def say(self, wanted: Wanted, client: str, progress: Progress | None = None) -> tuple[Speech, str | None]:
        """Says a text as a whole, perhaps with a search: see `Llasa.say`. Cancelling it ends it at its next step.

        Args:
            progress: called from another thread.

        Returns:
            The speech, and what the client should know of it.
        """
        self._check(wanted)
        voice = await self.voice(wanted, client)
        request = await self._in_text_thread(lambda: self._request(wanted, voice))  # what is wrong shows at once

        def work(beside: Beside) -> Speech:
            speech = self._beside(beside).say(
                wanted.text, voice, wanted.seed, best_of=wanted.best_of, search=wanted.search, verify=wanted.verify,
                budget=min(wanted.budget or self.limits.budget, self.limits.budget) if wanted.searched else None,
                temperature=wanted.temperature, speed=wanted.speed, on_progress=progress,
            )  # fmt: skip
            if wanted.timestamps:
                _ = speech.words  # computed here, beside the streams
            return speech

        speech = await self.beside(client, work)
        notes = [request.note] if request.note else []
        notes += speech.search.notes if speech.search else []
        if cut := speech.finished.count(False):
            notes.append(f"{cut} of {len(speech.finished)} chunks did not end and were cut off: try another seed")
        return speech, "; ".join(notes) or None

    async def voice(self, wanted: Wanted, client: str) -> Voice | None:
        """The voice that is wanted: a clone, a voice by name, or the model's default.

        Raises:
            LlasaError: there is none of that name, or the recording cannot be a reference.
        """
        reference = wanted.reference
        if reference is None or not reference.startswith(("data:", "http:", "https:")):
            return await self._in_text_thread(lambda: self.find(reference or wanted.voice))
        return await self.clone(data_of(reference), wanted.reference_text, "reference", client)

    async def clone(self, data: bytes, text: str | None, name: str, client: str) -> Voice:
        """Makes a voice of a recording.

        Args:
            data: an audio file.
            text: the words spoken in it; None has them written down.

        Raises:
            LlasaError: as `Llasa.clone`, or the recording cannot be decoded.
        """
        key = (sha256(check_size(data)).digest(), text, name)
        if key in self._kept:
            return self._kept[key]
        samples = await samples_of(data)
        return self._keep(key, await self.beside(client, lambda _: self.llasa.clone(samples, text, name, RATE)))

    async def transcribe(self, data: bytes, client: str) -> Transcript:
        """Writes down what is said in a recording. Cancelling it ends it at its next step.

        Raises:
            LlasaError: the model does not recognise speech, or the recording cannot be decoded.
        """
        try:
            listener = await self._in_text_thread(lambda: self.llasa.listener)
        except LlasaError as error:  # which names a folder of the server
            raise Problem("this model was not trained to recognise speech", 400, "model", "no_recognition") from error
        samples = await samples_of(check_size(data, "file"), self.limits.heard, "file")

        def work(beside: Beside) -> Transcript:
            own = replace(listener, backend=replace(beside, backend=listener.backend))
            return own.transcribe(samples, RATE)

        return await self.beside(client, work)

    def find(self, name: str | None) -> Voice | None:
        """A voice by its name and never by a path; OpenAI's names stand for presets. None finds the default."""
        files = self.llasa.voices()
        if name in OPENAI_VOICES and name not in files and files:
            name = None if name == OPENAI_VOICES[0] else sorted(files)[OPENAI_VOICES.index(name) % len(files)]
        if name is None:
            return self.llasa.voice()
        if name not in files:
            raise no_voice(name, files)
        try:
            key = (name, files[name].stat().st_mtime_ns)
        except OSError as error:  # it was removed at this moment
            raise no_voice(name, {}) from error
        return self._kept.get(key) or self._keep(key, self.llasa.voice(name))

    def _keep(self, key: Any, voice: Voice | None) -> Voice:
        assert voice is not None
        self._kept[key] = voice
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return voice

    async def beside(self, client: str, work: Callable[[Beside], T]) -> T:
        """Runs something long in a thread beside the streams; clients take turns.

        Raises:
            Busy: too much waits already.
        """
        loop = asyncio.get_running_loop()
        if len(self._jobs) >= self.limits.waiting:
            raise Busy(5)
        turn: asyncio.Future[None] = loop.create_future()
        self._jobs.put(client, turn)
        self._take_turns()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn came at the same moment
                self._end_turn(client)
            self._jobs.remove(client, turn)
            raise
        backend = Beside(self.scheduler.backend, self.scheduler.call)
        running = loop.run_in_executor(self._working, work, backend)
        running.add_done_callback(lambda _: self._end_turn(client))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            backend.cancelled.set()
            running.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody else asks for it
            raise

    def _take_turns(self) -> None:
        while self._jobs and len(self._busy) < self.limits.jobs:
            client, turn = self._jobs.next(self._busy)
            self._busy.append(client)
            turn.set_result(None)

    def _end_turn(self, client: str) -> None:
        self._busy.remove(client)
        self._take_turns()

    async def _in_text_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._preparing, work)

    def _request(self, wanted: Wanted, voice: Voice | None) -> Request:
        request = self.llasa.request(
            wanted.text, voice, wanted.seed, {"temperature": wanted.temperature, "speed": wanted.speed}
        )
        if (seconds := sum(request.expected) / request.speed) > self.limits.seconds:
            most = f"{self.limits.seconds:.0f} s of speech are made for one request"
            raise Problem(f"the text takes about {seconds:.0f} s, and at most {most}: send it in parts", param="input")
        return request

    def _check(self, wanted: Wanted) -> None:
        limits = self.limits
        if (count := len(wanted.text)) > limits.characters:
            most = f"at most {limits.characters:,} are read"
            raise Problem(f"the text has {count:,} characters, and {most}: send it in parts", param="input")
        if wanted.timestamps and self.llasa.timer.source is None:
            raise Problem(NO_TIMES, param="timestamps")
        if wanted.searched:
            self._check_search(wanted)

    def _check_search(self, wanted: Wanted) -> None:
        from llasa.search.strategy import choose
        from llasa.verifiers.combine import parse

        strategy = choose(wanted.best_of, wanted.search, wanted.verify is not None, wanted.budget)
        if strategy and (count := max(strategy.rows, strategy.samples)) > self.limits.candidates:
            most = f"at most {self.limits.candidates} are made here"
            raise Problem(f"the search has {count} candidates, and {most}", param="best_of")
        if wanted.verify is not None:
            for name in (term.name for stage in parse(wanted.verify) for term in stage.terms):
                if name not in VERIFIERS:
                    raise Problem(f"{name[:80]} cannot verify here: use {', '.join(VERIFIERS)}", param="verify")

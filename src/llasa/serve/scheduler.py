"""Runs one model for many clients: continuous batching, with the codec in a thread of its own.

The engine's thread owns the backend. All streams are rows of one state: they join it and leave it between two steps, so
nobody waits for another's end. What a stream sounds like depends on its request alone, whatever runs beside it.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from llasa.codec import Codec
from llasa.engine import Backend
from llasa.errors import LlasaError
from llasa.serve.pace import Pace
from llasa.serve.streams import REAL_TIME, Sound, Stream
from llasa.serve.turns import Turns
from llasa.speak.request import Request
from llasa.speak.rows import Rows
from llasa.speak.stream import Reading, Sounding

SHORT, LONG = 4, 16  # tokens between two looks at who came and went: no more than somebody waits for, within these
STARTS = 4  # prompts that are prefilled between two steps
AHEAD = 30.0  # seconds of sound that may wait for a client before its next chunk begins
ENOUGH = 1.25  # how much faster than it is heard sound must come, in each stream, with one stream more
JITTER = 0.03  # seconds by which sound shall be early besides, since threads and networks are not punctual
LIMIT, LIMIT_CPU = 64, 16  # streams at once; beyond 16 rows a CPU makes no more speech, only later


class Busy(LlasaError):
    """There is no room for another request now; `seconds` is about how long until there is."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the server is busy: try again in {seconds} s")
        self.seconds = seconds


class Closed(LlasaError):
    """The server is stopping."""

    def __init__(self) -> None:
        super().__init__("the server is stopping: try again when it is back")


class Scheduler:
    """The threads that run a model. `close` ends them.

    Attributes:
        limit: the most streams that run at once, unless `most` says so.
        pace: codes a second that each row gets.
        gaps: how often a listener ran dry.
        finished: streams that were read to their end.

    Args:
        backend, codec: the model's; the backend must not be used elsewhere any more.
        most: streams that run at once; None for as many as are heard without gaps, and at most `limit`.
        room: streams that may wait.
    """

    def __init__(self, backend: Backend, codec: Codec, most: int | None = None, room: int = 32) -> None:
        self.backend, self.codec, self.most, self.room = backend, codec, most, room
        self.limit = LIMIT_CPU if backend.device.type == "cpu" else LIMIT
        self.pace = self._alone = 0.0
        self._pace, self._aside, self._decoding = Pace(), 0.0, 0.0
        self.gaps = self.finished = 0
        self._seconds = 5.0  # that a stream takes, lately
        self._changed = threading.Condition()
        self._closed = False
        self._waiting: Turns[Stream] = Turns()
        self._running: list[Stream] = []
        self._rows = Rows(backend)
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._sounding = threading.Condition()
        self._voiced: list[Stream] = []  # streams that have parts, or will have some
        self._threads = [
            threading.Thread(target=work, name=f"llasa {name}", daemon=True)
            for name, work in (("engine", self._generate), ("codec", self._decode))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> int:
        """How many streams run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many streams wait."""
        return len(self._waiting)

    def stream(self, request: Request, client: str, deliver: Callable[[Sound], None]) -> Stream:
        """Reads a request to a client.

        Args:
            client: whose it is; clients take turns.
            deliver: is called from another thread with samples (N,) float32, in order, and at last with None or with
                the error that ended the stream.

        Raises:
            Busy: too many wait already.
            Closed: the server is stopping.
        """
        sounding = Sounding(self.codec, request.speed)
        stream = Stream(client, Reading(request), sounding, self.codec.rate, request.speed, deliver)
        with self._changed:
            if self._closed:
                raise Closed
            if len(self._waiting) + len(self._running) >= (self.most or 1) + self.room:
                raise Busy(self._patience())
            self._waiting.put(client, stream)
            self._changed.notify()
        return stream

    def cancel(self, stream: Stream) -> None:
        """Ends a stream that nobody listens to. Its row is free within one step."""
        with self._changed:
            stream.cancelled = True
            self._waiting.remove(stream.client, stream)
            self._changed.notify()

    def taken(self, stream: Stream, seconds: float) -> None:
        """Notes that a client has got so many more seconds of sound."""
        with self._changed:
            stream.taken += seconds
            self._changed.notify()

    def call(self, function: Callable[[], Any]) -> Any:
        """Runs a function on the engine's thread between two steps, and returns its result or raises its error."""
        future: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise Closed
            self._calls.append((function, future))
            self._changed.notify()
        return future.result()

    def close(self) -> None:
        """Ends the threads; streams under way end with `Closed`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._threads[0].join()
        with self._sounding:
            self._sounding.notify()
        self._threads[1].join()

    def _patience(self) -> int:
        """Seconds until a place is free, about."""
        return max(1, round(self._seconds / max(1, len(self._running))))

    # The engine's thread.

    def _generate(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._work())
                if self._closed:
                    break
                self._leave()
                begun = self._begin()
                call = self._calls.popleft() if self._calls else None
            try:
                self._step(begun)
            except Exception as error:  # a fault of one step must not end the server
                self._fail(error)
            if call:
                before = time.monotonic()
                _answer(*call)
                self._aside += time.monotonic() - before
        self._fail(Closed())
        with self._changed:
            while self._waiting:
                self._pass(self._waiting.next(())[1], Closed())
            for _, future in self._calls:
                future.set_exception(Closed())

    def _work(self) -> bool:
        """Whether there is anything to do now."""
        leaving = any(stream.cancelled for stream in self._running)
        return bool(self._calls or self._rows.lines or leaving or self._ready() or self._admits())

    def _ready(self) -> list[Stream]:
        """The running streams whose next line has not begun, and whose client has not too much sound waiting."""
        return [s for s in self._running if s.reading.line is not s.line and s.ahead < AHEAD]

    def _admits(self) -> bool:
        """Whether a stream that waits may begin."""
        count = len(self._running)
        if not self._waiting or count >= (self.most or self.limit):
            return False
        if not count:
            return True
        if self.backend.rows_that_fit(self.backend.context) < 1:
            return False
        if self.most is not None:
            return True
        # What cannot be heard without gaps even alone needs no protection.
        guarded = [s for s in self._running if ENOUGH * REAL_TIME * s.speed <= self._alone]
        if not self._alone or not guarded:
            return self._alone > 0
        pace = self._pace(count + 1)
        if pace < ENOUGH * REAL_TIME * max(stream.speed for stream in guarded):
            return False
        # All rows stand still while prompts are prefilled.
        still = self._pace.prefill * (1 + len(self._ready())) + self._early
        now = time.monotonic()
        with self._sounding:
            return all(s.heard is None or s.slack(now, pace, still) >= still for s in guarded)

    def _leave(self) -> None:
        """Takes the streams out that nobody listens to."""
        gone = [stream for stream in self._running if stream.cancelled]
        if gone:
            self._rows.drop([stream.line for stream in gone if stream.line])
            self._running = [stream for stream in self._running if not stream.cancelled]
            for stream in gone:
                self._pass(stream, None)

    def _begin(self) -> list[Stream]:
        """The streams whose next line begins now."""
        while self._admits():
            _, stream = self._waiting.next(stream.client for stream in self._running)
            self._running.append(stream)
            with self._sounding:
                self._voiced.append(stream)
        now = time.monotonic()
        begun = sorted(self._ready(), key=partial(Stream.urgency, now=now))[:STARTS]
        if begun:
            self._plan(len(begun))
        return begun

    def _step(self, begun: list[Stream]) -> None:
        """Begins lines, takes a step with all rows, and passes on what can be decoded."""
        before = time.monotonic()
        for stream in begun:
            stream.line = stream.reading.line
        self._rows.start([stream.line for stream in begun if stream.line])
        if begun:
            self._pace.start(len(begun), time.monotonic() - before)
        if not self._rows.lines:
            return
        self._extend()
        for stream in list(self._running):
            if stream.line is not stream.reading.line:
                continue  # it waits for its client
            try:
                parts = stream.reading.parts()
            except LlasaError as error:  # a voice made of the first chunk leaves no room; or there was no sound at all
                self._end(stream, error)
                continue
            if parts:
                with self._sounding:
                    stream.parts.extend(parts)
                    self._sounding.notify()
            if stream.reading.line is None:
                self._end(stream, None)
        self._plan(0)

    def _extend(self) -> None:
        """Samples more tokens in all rows, and notes how long that takes."""
        lines = self._rows.lines
        missing = min(stream.reading.missing for stream in self._running if stream.reading.line is stream.line)
        steps = -(-missing // LONG)
        before, had = time.monotonic(), [len(line.tokens) for line in lines]
        ended = self._rows.extend(max(SHORT, -(-missing // steps)))  # as even as can be
        now = time.monotonic()
        grown = [len(line.tokens) - count for line, count in zip(lines, had, strict=True)]
        if most := max(grown):
            self._pace.step(sum(grown) / most, most, now - before + self._aside)
            self._aside = 0.0
        for line in ended:
            self._pace.piece(len(line.tokens))
        self.pace = self._pace(len(lines))
        if len(lines) == 1:
            self._alone = max(self._alone, self.pace)

    @property
    def _early(self) -> float:
        """How many seconds sound must be foretold to come early, so that it does not come late."""
        return JITTER + self._decoding + self._pace.surprise

    def _plan(self, prompts: int) -> None:
        """Settles when those who have heard nothing may begin to: when all that follows will surely come in time.

        Args:
            prompts: how many are prefilled before the next step.
        """
        now, count = time.monotonic(), len(self._running)
        if self._waiting and self._pace(count + 1) >= ENOUGH * REAL_TIME:  # whoever waits may be next
            count, prompts = count + 1, max(1, prompts)
        early = self._early + self._pace.prefill * prompts
        pace = self._pace(count)
        with self._sounding:
            for stream in self._running:
                if stream.heard is None:
                    # Where codes come slower than they are heard there will be gaps, so waiting does not help.
                    slow = pace <= REAL_TIME * stream.speed
                    stream.start = now if slow else now + early - stream.slack(now, pace, self._pace.prefill)
            self._sounding.notify()

    def _end(self, stream: Stream, error: Exception | None) -> None:
        with self._changed:
            self._running.remove(stream)
            self._seconds += 0.2 * (time.monotonic() - stream.began - self._seconds)
        if stream.line and not stream.line.ended:
            self._rows.drop([stream.line])
        self._pass(stream, error)

    def _pass(self, stream: Stream, error: Exception | None) -> None:
        with self._sounding:
            if stream not in self._voiced:
                self._voiced.append(stream)
            stream.parts.append(error)
            self._sounding.notify()

    def _fail(self, error: Exception) -> None:
        """Ends all running streams with an error."""
        self._rows = Rows(self.backend)
        with self._changed:
            failed, self._running = self._running, []
        for stream in failed:
            self._pass(stream, error)

    # The codec's thread.

    def _decode(self) -> None:
        while True:
            with self._sounding:
                now = time.monotonic()
                self._release(now)
                ready = [stream for stream in self._voiced if stream.parts]
                if not ready:
                    if self._closed and not self._threads[0].is_alive():
                        return
                    next_start = min((s.start for s in self._voiced if s.held), default=math.inf)
                    self._sounding.wait(None if math.isinf(next_start) else max(0.0, next_start - now))
                    continue
                stream = min(ready, key=partial(Stream.urgency, now=now))
                part = stream.parts[0]
            try:
                if isinstance(part, Exception):
                    stream.end(part)
                elif part is not None and not stream.cancelled:
                    before = time.monotonic()
                    stream.hear(stream.sounding.push(part))
                    self._decoding += 0.1 * (time.monotonic() - before - self._decoding)
                elif part is None:
                    if not stream.cancelled:
                        stream.hear(stream.sounding.finish())
                        self.finished += 1
                    self.gaps += stream.gaps
                    stream.end(None)
            except Exception as error:  # a fault of one stream must not end the others
                stream.end(error)
                self.cancel(stream)
            with self._sounding:  # only now, since until here it counts as sound to come
                stream.parts.popleft()
                if part is None or isinstance(part, Exception):
                    self._voiced.remove(stream)

    def _release(self, now: float) -> None:
        """Begins with the first sounds whose time has come."""
        for stream in self._voiced:
            if stream.held and stream.start <= now:
                stream.release()


def _answer(function: Callable[[], Any], future: "Future[Any]") -> None:
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)

"""The scheduler: the same sound whatever runs beside, turns, hanging up, limits, faults."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from served import SHORT, Listener

from llasa.engine import Backend, State
from llasa.errors import LlasaError, NoSound
from llasa.serve import scheduler as serving
from llasa.serve.beside import Beside, Cancelled
from llasa.serve.scheduler import Busy, Closed, Scheduler
from llasa.serve.streams import Stream
from llasa.speak.request import Request
from llasa.speak.stream import Part, Sounding
from llasa.tts import Llasa

TEXT = "Hello there. It is late now, and nobody in the house has said a word."


def request(llasa: Llasa, seed: int, text: str = TEXT, seconds: float = 1.0) -> Request:
    return llasa.request(text, None, seed, {"max_seconds": seconds})


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("beside", [0, 1, 8])
def test_a_stream_is_what_it_is_alone_whatever_runs_beside_it(small: Llasa, scheduler: Scheduler, beside: int) -> None:
    wanted = np.concatenate(list(small.stream(TEXT, seed=5, **SHORT)))
    others = [
        Listener(scheduler, request(small, seed, "Go on. " * (1 + seed % 3)), f"{seed}") for seed in range(beside)
    ]
    for other in others[: beside // 2]:
        other.next()  # so that half of them are in different places
    own = Listener(scheduler, request(small, 5))
    np.testing.assert_array_equal(own.rest(), wanted)
    for other in others:
        other.rest()
        assert other.stream.made > 0.5


def test_a_search_beside_is_what_it_is_alone(small: Llasa, scheduler: Scheduler) -> None:
    wanted = small.say(TEXT, seed=3, best_of=2, verify=lambda batch: [len(a) for a in batch.audios], **SHORT)
    stream = Listener(scheduler, request(small, 5))
    own = Llasa(small.folder, small.vocabulary, small.codec, Beside(scheduler.backend, scheduler.call))
    found = own.say(TEXT, seed=3, best_of=2, verify=lambda batch: [len(a) for a in batch.audios], **SHORT)
    np.testing.assert_array_equal(found.samples, wanted.samples)
    np.testing.assert_array_equal(stream.rest(), np.concatenate(list(small.stream(TEXT, seed=5, **SHORT))))


def test_whoever_hangs_up_frees_the_row_within_a_step(
    small: Llasa, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    extend = type(small.backend).extend

    def counting(self: Backend, state: State, tokens: int = 50) -> State:
        steps.append(len(state.tokens))
        return extend(self, state, tokens)

    monkeypatch.setattr(type(small.backend), "extend", counting)
    leaver, stayer = (Listener(scheduler, request(small, seed, seconds=6.0)) for seed in (1, 2))
    leaver.next()
    until(lambda: steps[-1] == 2)
    scheduler.cancel(leaver.stream)
    count = len(steps)
    until(lambda: scheduler.running == 1)
    until(lambda: len(steps) > count + 1)
    assert steps[count + 1] == 1
    assert len(stayer.rest())


def test_clients_take_turns_and_too_many_are_refused(small: Llasa) -> None:
    scheduler = Scheduler(small.backend, small.codec, most=1, room=3)
    try:
        first = Listener(scheduler, request(small, 0, seconds=3.0), "greedy")
        first.next()
        ended: list[str] = []
        listeners = {}
        for name in ("greedy again", "greedy", "modest"):
            listeners[name] = Listener(scheduler, request(small, 1, "Hi."), name.split()[0])
        with pytest.raises(Busy, match="try again in") as busy:
            Listener(scheduler, request(small, 1))
        assert busy.value.seconds >= 1
        threads = [
            threading.Thread(target=lambda name=name, one=one: (one.rest(), ended.append(name)))
            for name, one in listeners.items()
        ]
        for thread in threads:
            thread.start()
        first.rest()
        for thread in threads:
            thread.join(30)
        assert ended.index("modest") < ended.index("greedy")
    finally:
        scheduler.close()


def test_a_client_that_does_not_listen_is_not_read_to_for_long(
    small: Llasa, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "AHEAD", 1.0)
    listener = Listener(scheduler, request(small, 1, "One two three four five six seven. " * 12))
    until(lambda: listener.stream.ahead >= 1.0 and not scheduler._rows.lines)
    assert listener.stream.reading.line is not None
    assert len(listener.rest()) / small.rate > 5


def test_an_error_ends_a_stream_and_not_the_server(
    small: Llasa, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Listener(scheduler, request(small, 1, seconds=6.0))
    failing.next()
    with monkeypatch.context() as patch:
        patch.setattr(type(small.backend), "extend", lambda *_: (_ for _ in ()).throw(LlasaError("the model broke")))
        with pytest.raises(LlasaError, match="the model broke"):
            failing.rest()
    assert len(Listener(scheduler, request(small, 1)).rest())
    with monkeypatch.context() as patch:
        patch.setattr(Sounding, "push", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Listener(scheduler, request(small, 1)).rest()
    until(lambda: not scheduler.running)
    assert len(Listener(scheduler, request(small, 1)).rest())


def test_no_sound_is_an_error(small: Llasa, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(small.backend), "extend", lambda self, state, tokens: end(state))

    def end(state: Any) -> State:
        for row in state.rows:
            row.finished = True
        return state

    with pytest.raises(NoSound):
        Listener(scheduler, request(small, 1)).rest()


def test_a_job_that_nobody_wants_ends_at_its_next_call(small: Llasa, scheduler: Scheduler) -> None:
    backend = Beside(scheduler.backend, scheduler.call)
    prompt = small.vocabulary.prompt("Hello.")
    state = backend.extend(backend.start([prompt], seeds=[1]), 10)
    alone = small.backend.extend(small.backend.start([prompt], seeds=[1]), 10)
    assert state.tokens == alone.tokens
    backend.cancelled.set()
    with pytest.raises(Cancelled):
        backend.extend(state, 10)
    with pytest.raises(LlasaError, match="the prompt is empty"):
        Beside(scheduler.backend, scheduler.call).start([[]])


def test_closing_ends_everything(small: Llasa) -> None:
    scheduler = Scheduler(small.backend, small.codec, most=1)
    running, waiting = (Listener(scheduler, request(small, 1, seconds=8.0)) for _ in range(2))
    running.next()
    scheduler.close()
    for listener in (running, waiting):
        with pytest.raises(Closed):
            listener.rest()
    for call in (lambda: Listener(scheduler, request(small, 1)), lambda: scheduler.call(int)):
        with pytest.raises(Closed):
            call()


class Said:
    """A reading that has got no further than it says, of parts of 10 and then 50 codes."""

    sizes, fresh = (10, 50), False

    def __init__(self, missing: int) -> None:
        self.missing, self.line = missing, self


def listening(missing: int, heard: list[Any]) -> Stream:
    """A stream with half a second of sound, at 50 codes a second and with no codes held back."""
    reading: Any = Said(missing)
    sounding: Any = SimpleNamespace(lookahead=0)
    stream = Stream("somebody", reading, sounding, 16000, 1.0, heard.append)
    stream.line = reading.line
    stream.hear(np.ones(8000, np.float32))
    return stream


def test_a_first_sound_is_held_until_its_time() -> None:
    heard: list[Any] = []
    stream = listening(10, heard)
    assert stream.held
    assert not heard
    stream.hear(np.ones(16, np.float32))
    stream.release()
    assert [len(sound) for sound in heard] == [8000, 16]
    assert not stream.held
    assert stream.heard is not None
    stream.heard -= 5.0
    stream.hear(np.ones(16, np.float32))
    assert stream.gaps == 1


def test_slack_is_that_of_the_tightest_moment() -> None:
    stream = listening(5, [])
    # 5 codes at 100 a second come 0.45 s before the half second is over; the 50 after them, when 0.7 s are.
    assert stream.slack(0.0, 100.0, 0.0) == pytest.approx(0.7 - 0.55)
    stream.parts.append(Part(np.zeros(25, np.uint16)))
    assert stream.slack(0.0, 100.0, 0.0) == pytest.approx(1.2 - 0.55)
    stream.parts.clear()
    stream.heard = 10.0
    assert stream.slack(10.1, 1000.0, 0.0) == pytest.approx(0.4 - 0.005)
    stream.line = None  # the next piece waits for its prompt
    assert stream.slack(10.1, 1000.0, 0.2) == pytest.approx(0.4 - 0.205)


@pytest.mark.parametrize(
    ("milliseconds", "slack", "most", "admitted"),
    [
        (5.0, 9.0, None, True),
        (14.0, 9.0, None, False),  # two rows would get fewer than 62 codes a second
        (14.0, 9.0, 16, True),
        (5.0, 0.1, None, False),  # the prompt takes longer than the listener has sound for
    ],
)
def test_a_stream_begins_once_nobody_runs_dry_of_it(
    small: Llasa, monkeypatch: pytest.MonkeyPatch, milliseconds: float, slack: float, most: int | None, admitted: bool
) -> None:
    scheduler = Scheduler(small.backend, small.codec, most)
    try:
        scheduler._pace.step(1, 10, milliseconds / 100)
        scheduler._pace.start(1, 0.1)
        scheduler._alone = scheduler._pace(1)
        with scheduler._changed:  # the engine's thread stands still
            running = listening(10, [])
            running.heard = time.monotonic()
            monkeypatch.setattr(Stream, "slack", lambda *_: slack)
            scheduler._running.append(running)
            scheduler._waiting.put("another", listening(10, []))
            assert scheduler._admits() == admitted
            scheduler._running.clear()
            scheduler._waiting.next(())
    finally:
        scheduler.close()

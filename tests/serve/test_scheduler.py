"""The scheduler: the same sound whatever runs beside, turns, hanging up, limits, faults."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from served import SHORT, Listener

from llasa.engine import Backend, State
from llasa.errors import LlasaError, NoSound
from llasa.serve import scheduler as serving
from llasa.serve.beside import Beside, Cancelled
from llasa.serve.scheduler import Busy, Closed, Scheduler
from llasa.speak.request import Request
from llasa.speak.stream import Sounding
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


def test_a_first_sound_waits_until_the_next_is_sure(small: Llasa, scheduler: Scheduler) -> None:
    stream = Listener(scheduler, request(small, 1)).stream
    scheduler.cancel(stream)
    until(lambda: not scheduler.running)
    heard: list[Any] = []
    stream.deliver, stream.made, stream.heard = heard.append, 0.0, None
    stream.reading.line.tokens = []
    stream.hear(np.ones(1600, np.float32), pace=60.0)  # 16 codes at 60 a second take longer than 0.1 s
    assert not heard
    stream.hear(np.ones(16000, np.float32), pace=60.0)
    assert [len(sound) for sound in heard] == [1600, 16000]
    stream.heard -= 5.0
    stream.hear(np.ones(16, np.float32), pace=60.0)
    assert stream.gaps == 1

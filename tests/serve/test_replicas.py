"""A local Ray with two replicas, one of which is killed under load: nothing is lost but what it was streaming."""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from served import serving
from websockets.sync.client import connect

from llasa import audio
from llasa.serve.app import Settings
from llasa.serve.warming import load
from llasa.tts import Llasa

KEY = {"Authorization": "Bearer secret"}
# Its speech ends at its longest, so that a stream lasts for a while.
TEXT = "It was late, and nobody had said a word. The lamp had burned low."
SAID = "The words that are spoken in the recording."


@pytest.fixture(scope="module")
def address(endless_folder: Path, home: Path) -> Iterator[str]:
    import ray

    from llasa.serve import replicas

    ray.init(num_cpus=8, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    try:
        # One stream at once in each, so that most requests wait.
        model = partial(load, str(endless_folder), device="cpu", dtype="float32")
        door = replicas.deploy(model, Settings(most=1, key="secret"), fewest=2)
        with serving(door) as found:
            yield found
    finally:
        replicas.close()


def replicas() -> list[psutil.Process]:
    """The replicas that live, as processes of this one."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended, or nobody has waited for it yet
            if one.name().startswith("ray::ServeReplic") or "ServeReplica" in str(one.cmdline()):
                found.append(one)
    return found


class Client(threading.Thread):
    """Asks for a speech. `begun` is set once an answer has come; `data` stays None if it breaks off."""

    def __init__(self, address: str, seed: int, voice: str) -> None:
        super().__init__(daemon=True)
        self._address, self.seed, self._voice = address, seed, voice
        self.begun = threading.Event()
        self.status = 0
        self.data: bytes | None = None
        self.start()

    def run(self) -> None:
        body = {"input": TEXT, "seed": self.seed, "voice": self._voice, "response_format": "wav"}
        answer = requests.post(f"{self._address}/v1/audio/speech", json=body, headers=KEY, stream=True, timeout=120)
        self.status = answer.status_code
        self.begun.set()
        with suppress(requests.RequestException):
            self.data = answer.content


@pytest.fixture
def shared(address: str, voiced: np.ndarray) -> Iterator[str]:
    """An uploaded voice, which no later test finds."""
    wav = audio.wav_bytes(voiced, 16000)
    fields = {"name": "shared", "ref_text": SAID, "consent": "true"}
    answer = requests.post(
        f"{address}/v1/audio/voices", files={"audio_sample": wav}, data=fields, headers=KEY, timeout=60
    )
    assert answer.status_code == 201, answer.text
    yield "shared"
    assert requests.delete(f"{address}/v1/audio/voices/shared", headers=KEY, timeout=60).ok


def test_no_request_is_lost_that_was_not_being_streamed(address: str, small: Llasa, shared: str) -> None:
    assert requests.post(f"{address}/v1/audio/speech", json={"input": "Hi."}, timeout=60).status_code == 401
    # One replica has stored the voice, and either speaks in it.
    clients = [Client(address, seed, shared) for seed in range(4)]
    assert clients[0].begun.wait(60)
    os.kill(replicas()[0].pid, signal.SIGKILL)
    streamed = [client for client in clients if client.begun.is_set()]
    for client in clients:
        client.join(120)
        assert client.status == 200
        if client.data is None:
            assert client in streamed
        else:
            wanted = np.concatenate(list(small.stream(TEXT, voice=shared, seed=client.seed)))
            assert client.data[44:] == audio.pcm16(wanted)
    assert sum(client.data is None for client in clients) <= 1


def test_a_websocket_and_a_hang_up_pass_through(address: str) -> None:
    place = address.replace("http", "ws") + "/v1/audio/speech/stream"
    with connect(place, additional_headers=KEY, open_timeout=30) as socket:
        for message in (
            {"type": "session.config", "seed": 3},
            {"type": "input.text", "text": "Good morning."},
            {"type": "input.done"},
        ):
            socket.send(json.dumps(message))
        messages = list(socket)
    assert sum(len(message) for message in messages if isinstance(message, bytes)) > 16000
    assert json.loads(messages[-1])["type"] == "session.done"
    with requests.post(
        f"{address}/v1/audio/speech", json={"input": TEXT * 20}, headers=KEY, stream=True, timeout=60
    ) as answer:
        assert answer.status_code == 200
    deadline = time.monotonic() + 30
    while any(requests.get(f"{address}/health", timeout=60).json()["running"] for _ in range(6)):
        assert time.monotonic() < deadline
        time.sleep(0.1)

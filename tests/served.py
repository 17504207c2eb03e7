"""A server in this process, and somebody who listens to a stream."""

import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import uvicorn
from starlette.types import ASGIApp

from llasa.serve.app import Settings, create_app
from llasa.serve.scheduler import Scheduler
from llasa.serve.streams import Sound, Stream
from llasa.speak.request import Request
from llasa.tts import Llasa

SHORT = {"max_seconds": 1.0}


def served(model: Llasa, settings: Settings) -> AbstractContextManager[str]:
    """The address of a server, which ends with the block."""
    return serving(create_app(model, settings))


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The address of a server of any application, which ends with the block."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


class Listener:
    """Listens to a stream to its end."""

    def __init__(self, scheduler: Scheduler, request: Request, client: str = "somebody") -> None:
        self.scheduler = scheduler
        self.sounds: queue.Queue[Sound] = queue.Queue()
        self.stream: Stream = scheduler.stream(request, client, self.sounds.put)

    def next(self) -> Sound:
        sound = self.sounds.get(timeout=60)
        if isinstance(sound, np.ndarray):
            self.scheduler.taken(self.stream, len(sound) / self.stream.rate)
        return sound

    def rest(self) -> np.ndarray:
        """All sound to the end."""
        pieces = []
        while isinstance(sound := self.next(), np.ndarray):
            pieces.append(sound)
        if sound is not None:
            raise sound
        return np.concatenate([np.empty(0, np.float32), *pieces])

"""Grows out of one machine: the same application as a Ray Serve deployment, each of whose replicas has an engine.

`Speaker` is a replica. It answers through Ray what the application would answer through a port. Clients connect to a
`Door`, which passes each request to a replica, and to another one if that dies before anything of its answer was sent.
"""

import asyncio
import logging
import os
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llasa.errors import LlasaError, first_line
from llasa.serve.answers import unless_gone
from llasa.serve.app import BODY, Settings, create_app
from llasa.serve.problems import Problem, response_of
from llasa.serve.security import Guard
from llasa.tts import Llasa

NAME = "llasa"  # of the application
BUSY = 8  # requests that a replica answers at once; with more, there come more replicas
TRIES = 5  # replicas that may die of one request, or beside it
LEFT: Message = {"type": "websocket.disconnect", "code": 1001}


class Speaker:
    """A replica: the application with its engine.

    Args:
        load: loads the model.
        settings: as for one server.
        inbox: the `Inbox` actor.
    """

    def __init__(self, load: Callable[[], Llasa], settings: Settings, inbox: Any) -> None:
        self._app, self._inbox = create_app(load(), settings), inbox

    async def answer(self, scope: Scope, body: bytes, session: str | None) -> AsyncIterator[Message]:
        """Yields what the application sends.

        Args:
            scope: of ASGI.
            body: the request's.
            session: of a WebSocket, under which the inbox has what the client sends.
        """
        sent: asyncio.Queue[Message | None] = asyncio.Queue()
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if session:
                message: Message = await self._inbox.get.remote(session)
                return message
            if asked:  # the client hangs up by cancelling all of this
                await asyncio.Event().wait()
            asked = True
            return {"type": "http.request", "body": body}

        task = asyncio.ensure_future(self._app(scope, receive, sent.put))
        task.add_done_callback(lambda _: sent.put_nowait(None))
        try:
            while message := await sent.get():
                yield message
            await task
        finally:
            task.cancel()


class Inbox:
    """An actor that holds what the clients of WebSockets have sent until a replica reads it."""

    def __init__(self) -> None:
        self._messages: defaultdict[str, asyncio.Queue[Message]] = defaultdict(asyncio.Queue)

    async def put(self, session: str, message: Message) -> None:
        self._messages[session].put_nowait(message)

    async def get(self, session: str) -> Message:
        return await self._messages[session].get()

    async def forget(self, session: str) -> None:
        """Ends a session, and whoever waits for its messages."""
        if session in self._messages:
            self._messages.pop(session).put_nowait(LEFT)


class Door:
    """Where clients connect: an ASGI application that has its answers from the replicas.

    Args:
        answer: `Speaker.answer` of any replica.
        inbox: the `Inbox` actor.
    """

    def __init__(self, answer: Callable[[Scope, bytes, str | None], Any], inbox: Any) -> None:
        self._answer, self._inbox = answer, inbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._converse(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            body = await request.body()
            with suppress(HTTPException):  # the client has hung up
                await unless_gone(request, self._pass(scope, body, send))
        except HTTPException as error:  # the request is too large
            await response_of(Problem(str(error.detail), error.status_code))(scope, receive, send)

    async def _pass(self, scope: Scope, body: bytes, send: Send) -> None:
        """Has a request answered, by another replica if one dies before anything of its answer was sent."""
        from ray.exceptions import RayActorError

        for left in reversed(range(TRIES)):
            held: list[Message] = []  # the head, until something of the body has come as well
            begun = False
            answer = self._answer(plain(scope), body, None)
            try:
                async for message in answer:
                    held.append(message)
                    if message["type"] == "http.response.start":
                        continue
                    begun = True
                    for one in held:
                        await send(one)
                    held.clear()
                return
            except RayActorError:
                if begun or not left:
                    raise
            finally:
                answer.cancel()

    async def _converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the messages of a WebSocket to and fro. It ends with its replica."""
        from ray.exceptions import RayActorError

        session = uuid.uuid4().hex

        async def read() -> None:
            message: Message = {}
            while message.get("type") != LEFT["type"]:
                message = await receive()
                await self._inbox.put.remote(session, message)

        reading = asyncio.create_task(read())
        answer = self._answer(plain(scope), b"", session)
        try:
            async for message in answer:
                await send(message)
        except RayActorError:
            await send({"type": "websocket.close", "code": 1012, "reason": "try again"})
        finally:
            reading.cancel()
            answer.cancel()
            await self._inbox.forget.remote(session)


def plain(scope: Scope) -> Scope:
    """What of a scope can go to another process."""
    return {name: value for name, value in scope.items() if name not in ("app", "state", "extensions")}


def deploy(load: Callable[[], Llasa], settings: Settings, fewest: int = 1) -> ASGIApp:
    """Starts replicas on the Ray cluster of `$RAY_ADDRESS`, on the one that runs here, or on a new one here.

    Args:
        load: loads the model, in each replica.
        settings: of each.
        fewest: replicas that there are always; there may be as many as the cluster has room for now.

    Returns:
        The application to serve.

    Raises:
        LlasaError: the replicas do not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send some
    import ray
    from ray import serve

    if not ray.is_initialized():
        home = {name: os.environ[name] for name in ("LLASA_HOME",) if name in os.environ}
        options: dict[str, Any] = {
            "runtime_env": {"env_vars": home},
            "log_to_driver": False,
            "include_dashboard": False,
        }
        try:
            ray.init(logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise LlasaError(f"there is no Ray cluster to run on ({first_line(error)}): check $RAY_ADDRESS") from error
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    there = ray.cluster_resources()
    needs = {"num_gpus": 1} if there.get("GPU", 0) >= 1 else {"num_cpus": 2 if there.get("CPU", 0) >= 2 else 1}
    room = int(there.get("GPU", 0) or there.get("CPU", 1) // needs["num_cpus"])
    scaling = {"min_replicas": fewest, "max_replicas": max(fewest, room), "target_ongoing_requests": BUSY}
    inbox = ray.remote(num_cpus=0)(Inbox).options(max_concurrency=1000).remote()
    # A replica has its own bound on what waits.
    speaker = serve.deployment(autoscaling_config=scaling, max_ongoing_requests=100_000, ray_actor_options=needs)
    try:
        serve.start(proxy_location="Disabled")
        handle = serve.run(speaker(Speaker).bind(load, settings, inbox), name=NAME, route_prefix=None)
    except RuntimeError as error:
        raise LlasaError(f"the replicas did not start ({first_line(error)}): see Ray's logs") from error
    return Guard(Door(handle.options(stream=True).answer.remote, inbox), settings.key, settings.origins, BODY)


def close() -> None:
    """Ends the replicas, and Ray if it runs here for them alone."""
    import ray
    from ray import serve

    serve.delete(NAME)
    ray.shutdown()

"""The application: every route, its guard, its errors, its counters."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import llasa
from llasa.serve.answers import Answers
from llasa.serve.counters import Counters
from llasa.serve.decoding import BYTES
from llasa.serve.eleven_routes import eleven_router
from llasa.serve.listen_routes import listen_router
from llasa.serve.openai_routes import openai_router
from llasa.serve.problems import install
from llasa.serve.scheduler import Scheduler
from llasa.serve.security import Guard
from llasa.serve.service import Limits, Service
from llasa.serve.text_socket import socket_router
from llasa.serve.voice_routes import voice_router
from llasa.tts import Llasa

BODY = 2 * BYTES  # bytes of a request; a recording in base64 is a third longer


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
        name: the model's, for clients.
        key: the API key that clients must send; None lets everybody in.
        origins: addresses of pages elsewhere that may call.
        most: streams that run at once; None for as many as are heard without gaps.
        room: streams that may wait.
        limits: of one request.
        wyoming: the port for Home Assistant, if any, and the address to listen on.
    """

    name: str = "tiny"
    key: str | None = None
    origins: tuple[str, ...] = ()
    most: int | None = None
    room: int = 32
    limits: Limits = field(default_factory=Limits)
    wyoming: tuple[str, int] | None = None


def create_app(model: Llasa, settings: Settings) -> FastAPI:
    """An application that speaks with a model, which must not be used elsewhere meanwhile."""
    scheduler = Scheduler(model.backend, model.codec, settings.most, settings.room)
    service = Service(model, scheduler, settings.limits)
    counters = Counters(scheduler)
    answers = Answers(service, counters)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if settings.wyoming:
                from llasa.serve.home_assistant import wyoming

                await stack.enter_async_context(wyoming(answers, *settings.wyoming))
            yield
        service.close()

    app = FastAPI(
        title="llasa",
        version=llasa.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install(app)
    for router in (
        openai_router(answers, settings.name), listen_router(service, settings.name), voice_router(service),
        eleven_router(answers), socket_router(answers),
    ):  # fmt: skip
        app.include_router(router)
    page = read_page()

    @app.get("/", include_in_schema=False)
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """That the server lives, and how busy it is."""
        return {"status": "ok", "model": settings.name, "running": scheduler.running, "waiting": scheduler.waiting}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(counters.registry), media_type=CONTENT_TYPE_LATEST)

    app.add_middleware(Known, counters=counters)
    app.add_middleware(Guard, key=settings.key, origins=settings.origins, most=BODY)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.origins), allow_methods=["*"], allow_headers=["*"],
            expose_headers=["X-Llasa-Seed", "X-Llasa-Search", "X-Llasa-Note"],
        )  # fmt: skip
    app.state.service = service
    return app


def read_page() -> str:
    """The page as one file, its style and its script inside."""
    folder = files("llasa.serve") / "page"
    html, style, script = ((folder / name).read_text("utf-8") for name in ("index.html", "style.css", "script.js"))
    return html.replace("STYLE", style).replace("SCRIPT", script)


# The page uses nothing from elsewhere; sound that it makes itself has a blob's address.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "media-src blob: data:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Known:
    """Knows each request's client, for fairness, and counts its answer."""

    def __init__(self, app: ASGIApp, counters: Counters) -> None:
        self.app, self.counters = app, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        key = headers.get("authorization") or headers.get("xi-api-key") or ""
        address = (scope.get("client") or ("",))[0]
        scope.setdefault("state", {})["client"] = f"{address} {sha256(key.encode()).hexdigest()[:16]}"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                self.counters.requests.labels(route, message["status"]).inc()
            await send(message)

        await self.app(scope, receive, counted)

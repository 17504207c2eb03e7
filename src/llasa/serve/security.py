"""Who may ask, from where, and how much at once: the key, the origin of a page, and the size of a request."""

import hmac
from hashlib import sha256
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llasa.serve.problems import Problem, response_of

OPEN = ("/", "/health")  # without a key
SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Lets a request through that has the key, comes from no foreign page, and is not too large.

    Args:
        app: what is behind it.
        key: None lets everybody in.
        origins: pages elsewhere that may call.
        most: bytes of a request's body.
    """

    def __init__(self, app: ASGIApp, key: str | None, origins: tuple[str, ...], most: int) -> None:
        self.app, self.origins, self.most = app, origins, most
        self._key = None if key is None else sha256(key.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        problem = self._refusal(scope)
        if problem is None:
            await self.app(scope, self._bounded(receive), send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": str(problem)})
        else:
            await response_of(problem)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.most:
            return self._large()
        # A page elsewhere that somebody here opens must not speak, or store voices, in their name.
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE
        if origin and changes and origin not in self.origins and urlsplit(origin).netloc != headers.get("host"):
            return Problem(f"pages of {origin[:80]} may not call this server: start it with --cors", 403)
        preflight = scope["type"] == "http" and scope["method"] == "OPTIONS" and self.origins
        if self._key is None or scope["path"] in OPEN or preflight or self._has_key(headers):
            return None
        return Problem("the API key is missing or wrong: send it as Authorization: Bearer KEY", 401, code="invalid_key")

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = headers.get("xi-api-key", "")
        return hmac.compare_digest(sha256(given.strip().encode()).digest(), self._key or b"")

    def _bounded(self, receive: Receive) -> Receive:
        count = 0

        async def bounded() -> Message:
            nonlocal count
            message = await receive()
            if message["type"] == "http.request":
                count += len(message.get("body", b""))
                if count > self.most:
                    large = self._large()  # FastAPI passes on this kind of error alone
                    raise HTTPException(large.status, str(large))
            return message

        return bounded

    def _large(self) -> Problem:
        return Problem(f"the request has more than {self.most >> 20} MB: send less", 413, code="too_large")

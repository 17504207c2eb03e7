"""Errors as OpenAI's API has them: `{"error": {"message", "type", "param", "code"}}`."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from llasa.errors import LlasaError
from llasa.serve.scheduler import Busy, Closed

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class Problem(LlasaError):
    """A request that cannot be answered.

    Attributes:
        status: of HTTP.
        param: the field that is wrong, if it is one.
        code: a word for programs.
    """

    def __init__(self, message: str, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


def problem_of(error: Exception) -> Problem:
    """Any error as a problem. What is no fault of the client tells nothing of the server."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Busy):
        return Problem(str(error), 429, code="busy")
    if isinstance(error, Closed):
        return Problem(str(error), 503, code="stopping")
    if isinstance(error, LlasaError):
        return Problem(str(error))
    return Problem("the server failed: its log says why", 500, code="server_error")


def body_of(problem: Problem) -> dict[str, Any]:
    """The JSON of a problem."""
    kind = TYPES.get(problem.status, "server_error" if problem.status >= 500 else "invalid_request_error")
    return {"error": {"message": str(problem), "type": kind, "param": problem.param, "code": problem.code}}


def response_of(error: Exception) -> JSONResponse:
    """The answer that tells an error."""
    problem = problem_of(error)
    headers = {"Retry-After": str(error.seconds)} if isinstance(error, Busy) else {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body_of(problem), problem.status, headers)


def install(app: FastAPI) -> None:
    """Makes every error of an application one of these."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        return response_of(error)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        name = ".".join(place) or None
        # Not the value itself, which may be a text or a recording.
        return response_of(Problem(f"{name or 'the request'}: {first['msg'].lower()}", 400, name, first["type"]))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        found = JSONResponse(body_of(Problem(str(error.detail).lower(), error.status_code)), error.status_code)
        found.headers.update(error.headers or {})
        return found

    app.add_exception_handler(LlasaError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, known)

"""The two routes of ElevenLabs' API by which most of its clients speak."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from llasa.errors import LlasaError
from llasa.serve.answers import Answers
from llasa.serve.formats import MEDIA, Encoder, Format, Pcm, encoder
from llasa.serve.problems import Problem, problem_of, response_of
from llasa.serve.service import Wanted
from llasa.speak.request import draw_seed
from llasa.speak.stretch import FASTEST, SLOWEST

_FORMAT = re.compile(r"(mp3|opus|pcm)_(\d{4,5})(?:_\d+)?")


class ElevenSettings(BaseModel):
    """Of a voice; what is not named here has no meaning for this model."""

    speed: float = Field(default=1.0, ge=SLOWEST, le=FASTEST)


class ElevenInput(BaseModel):
    """A text to speak."""

    text: str = Field(min_length=1)
    model_id: str | None = None
    voice_settings: ElevenSettings | None = None
    seed: int | None = Field(None, ge=0, lt=2**63)


def eleven_router(answers: Answers) -> APIRouter:
    """The routes. Both send sound as it is made."""
    router = APIRouter(prefix="/v1/text-to-speech")

    async def speak(
        voice_id: str,
        body: ElevenInput,
        request: Request,
        output_format: Annotated[str, Query()] = "mp3_44100_128",
    ) -> Response:
        settings = body.voice_settings or ElevenSettings()
        try:
            made, media = _encoder(output_format, answers.service.rate)
            wanted = Wanted(body.text, draw_seed(body.seed), voice_id, settings.speed)
            headers = {"X-Llasa-Seed": str(wanted.seed), "Cache-Control": "no-store"}
            return await answers.stream(request, request.state.client, wanted, made, media, headers)
        except LlasaError as error:
            return _told(error)

    # One function for both: their difference is when sound comes, and here it always comes at once.
    for place in ("/{voice_id}", "/{voice_id}/stream"):
        router.add_api_route(place, speak, methods=["POST"], response_class=Response)
    return router


def _encoder(written: str, rate: int) -> tuple[Encoder, str]:
    """An encoder for a format as ElevenLabs names it, such as pcm_16000; MP3 and Opus keep the model's rate."""
    found = _FORMAT.fullmatch(written)
    if not found or not 8000 <= int(found[2]) <= 48000:
        raise Problem(
            f"cannot make {written[:40]}: use mp3_44100_128, opus_48000_64 or pcm_16000", param="output_format"
        )
    if found[1] == "pcm":
        return Pcm(rate, int(found[2])), MEDIA["pcm"]
    kind: Format = "mp3" if found[1] == "mp3" else "opus"
    return encoder(kind, rate), MEDIA[kind]


def _told(error: Exception) -> JSONResponse:
    """An error as ElevenLabs' clients read it."""
    problem, answer = problem_of(error), response_of(error)
    detail: dict[str, Any] = {"detail": {"status": problem.code or "invalid_request", "message": str(problem)}}
    told = JSONResponse(detail, problem.status)
    if "retry-after" in answer.headers:
        told.headers["retry-after"] = answer.headers["retry-after"]
    return told

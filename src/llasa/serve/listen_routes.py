"""The route of OpenAI's API that writes down what is said in a recording."""

import math
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse

from llasa.listen.transcript import Segment, Transcript, repetition
from llasa.serve.answers import unless_gone
from llasa.serve.decoding import BYTES
from llasa.serve.problems import Problem
from llasa.serve.service import Service

OPENAI_MODELS = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")  # which clients name by default
Format = Literal["json", "text", "srt", "verbose_json", "vtt"]


def listen_router(service: Service, name: str) -> APIRouter:
    """The route.

    Args:
        name: the model's.
    """
    router = APIRouter(prefix="/v1/audio")

    @router.post(
        "/transcriptions",
        response_class=Response,
        responses={200: {"content": {"application/json": {}, "text/plain": {}, "text/vtt": {}}}},
    )
    async def transcribe(
        request: Request,
        file: Annotated[UploadFile, File(description="A recording in any format, of up to an hour.")],
        model: Annotated[str | None, Form()] = None,
        response_format: Annotated[Format, Form()] = "json",
        language: Annotated[str | None, Form(description="Only repeated in verbose_json.")] = None,
        prompt: Annotated[str | None, Form(description="Ignored: the model follows none.")] = None,
        temperature: Annotated[float, Form(ge=0, le=1, description="Ignored: the likeliest text is written.")] = 0.0,
        granularities: Annotated[list[str] | None, Form(alias="timestamp_granularities[]")] = None,
    ) -> Response:
        """Writes down what is said; nothing for silence, music and noise."""
        if model not in (None, name, *OPENAI_MODELS):
            raise Problem(f"there is no model {model[:80]}: use {name}", 404, "model", "model_not_found")
        if "word" in (granularities or ()):
            raise Problem("a transcript has times of segments only", param="timestamp_granularities")
        data = await file.read(BYTES + 1)
        heard = await unless_gone(request, service.transcribe(data, request.state.client))
        return answer(heard, response_format, language)

    return router


def answer(heard: Transcript, format: Format, language: str | None) -> Response:
    """A transcript as OpenAI's API sends it."""
    if format == "json":
        return JSONResponse({"text": heard.text})
    if format == "verbose_json":
        facts = {"task": "transcribe", "language": language or "unknown", "duration": heard.seconds}
        segments = [_segment(number, segment) for number, segment in enumerate(heard.segments)]
        return JSONResponse(facts | {"text": heard.text, "segments": segments})
    return PlainTextResponse(heard.written(format), media_type="text/vtt" if format == "vtt" else "text/plain")


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    """A segment with all fields that OpenAI's clients expect; of those that Whisper has and this model has not, a
    neutral value."""
    return {
        "id": number, "seek": 0, "start": segment.start, "end": segment.end, "text": segment.text, "tokens": [],
        "temperature": 0.0, "avg_logprob": math.log(max(segment.confidence, 1e-9)), "no_speech_prob": 0.0,
        "compression_ratio": repetition(segment.text),
    }  # fmt: skip

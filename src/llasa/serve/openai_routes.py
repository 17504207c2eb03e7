"""The routes of OpenAI's speech API, with this package's own fields beside theirs."""

import asyncio
import base64
import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from llasa.errors import LlasaError
from llasa.serve.answers import Answers, unless_gone
from llasa.serve.formats import MEDIA, Format, encode, encoder
from llasa.serve.problems import Problem, body_of, problem_of
from llasa.serve.service import Wanted
from llasa.speak.request import draw_seed
from llasa.speak.stretch import FASTEST, SLOWEST
from llasa.speak.word_files import plain

OPENAI_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")  # which clients name when nobody has chosen one
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class VoiceId(BaseModel):
    """A voice, as OpenAI's clients name one that was uploaded."""

    id: str


class Manner(BaseModel):
    """How to speak: what a request and the items of a batch have in common."""

    model: str | None = None
    voice: str | VoiceId | None = None
    response_format: Format = "mp3"
    speed: float = Field(default=1.0, ge=SLOWEST, le=FASTEST)
    instructions: str | None = Field(None, description="Models that cannot follow them ignore them, with a header.")
    seed: Seed | None = Field(None, description="The same seed gives the same audio, whatever else is spoken.")
    temperature: float | None = Field(None, ge=0, le=2)
    ref_audio: str | None = Field(None, description="A data URL of a recording to clone, or the id of a voice.")
    ref_text: str | None = Field(None, description="The words spoken in it; without them they are recognised.")
    best_of: int | None = Field(None, ge=1, description="Says it so many times and keeps the best.")
    search: str | None = Field(None, description="Another search: beam:4x4, mixed:4x4@2s+16.")
    verify: str | None = Field(None, description="Which verifiers score: content=1,speaker=0.5.")
    budget: float | None = Field(None, gt=0, description="Searches for no more than so many seconds.")
    timestamps: bool = Field(False, description="Tells when each word is said: in the last event, or in the item.")


class SpeechInput(Manner):
    """A text to speak."""

    input: str = Field(min_length=1)
    stream_format: Literal["audio", "sse"] = "audio"
    candidates: bool = Field(False, description="With sse and a search: sends every candidate's sound at the end.")


class BatchItem(Manner):
    """A text of a batch; fields that it does not set are those of the batch."""

    input: str = Field(min_length=1)


class BatchInput(Manner):
    """Several texts."""

    items: list[BatchItem] = Field(min_length=1, max_length=32)


def wanted_of(manner: Manner, text: str) -> Wanted:
    """What a client wants, from the fields that it sent."""
    voice = manner.voice.id if isinstance(manner.voice, VoiceId) else manner.voice
    return Wanted(
        text, draw_seed(manner.seed), voice, manner.speed, manner.temperature, manner.ref_audio, manner.ref_text,
        manner.best_of, manner.search, manner.verify, manner.budget, manner.timestamps,
    )  # fmt: skip


def headers_of(manner: Manner, wanted: Wanted) -> dict[str, str]:
    """The headers of an answer that is spoken."""
    headers = {"X-Llasa-Seed": str(wanted.seed), "Cache-Control": "no-store"}
    if manner.instructions:
        headers["Warning"] = '299 - "this model follows no instructions, so they were ignored"'
    return headers


def openai_router(answers: Answers, name: str) -> APIRouter:
    """The routes.

    Args:
        name: the model's.
    """
    router = APIRouter(prefix="/v1")
    timed = answers.service.llasa.timer.source is not None
    models = [{"id": name, "object": "model", "created": 0, "owned_by": "llasa", "timestamps": timed}]

    def check_model(asked: str | None) -> None:
        if asked not in (None, name, *OPENAI_MODELS):
            raise Problem(f"there is no model {asked[:80]}: use {name}", 404, "model", "model_not_found")

    @router.get("/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": models}

    @router.get("/audio/models", include_in_schema=False)  # Open WebUI asks here
    async def list_audio_models() -> dict[str, Any]:
        return {"models": models}

    @router.post(
        "/audio/speech",
        response_class=Response,
        responses={200: {"content": {kind: {} for kind in (*dict.fromkeys(MEDIA.values()), "text/event-stream")}}},
    )
    async def speech(body: SpeechInput, request: Request) -> Response:
        """Speaks a text; the answer is sent while it is made."""
        check_model(body.model)
        wanted, client, format = wanted_of(body, body.input), request.state.client, body.response_format
        headers = headers_of(body, wanted)
        if body.stream_format == "sse":
            return answers.events(client, wanted, format, body.candidates, headers)
        if wanted.timestamps:
            where = "the last event, and this answer has none: set stream_format to sse"
            raise Problem(f"timestamps come in {where}", param="timestamps")
        if wanted.searched:
            return await answers.search(request, client, wanted, format, headers)
        made = encoder(format, answers.service.rate)
        return await answers.stream(request, client, wanted, made, MEDIA[format], headers)

    @router.post("/audio/speech/batch")
    async def batch(body: BatchInput, request: Request) -> dict[str, Any]:
        """Speaks several texts, and speaks again what went wrong. Each item succeeds or fails alone."""
        common = {field: getattr(body, field) for field in body.model_fields_set & Manner.model_fields.keys()}
        slots = asyncio.Semaphore(answers.service.limits.jobs)  # more would only wait

        async def one(index: int, item: BatchItem) -> dict[str, Any]:
            given = {field: getattr(item, field) for field in item.model_fields_set}
            whole = SpeechInput.model_construct(**(common | given))
            async with slots:
                try:
                    check_model(whole.model)
                    wanted = wanted_of(whole, item.input)
                    speech, note = await answers.service.say(wanted, request.state.client)
                    answers.counters.spoken.inc(speech.seconds)
                    data = encode(whole.response_format, speech.rate, speech.samples)
                except LlasaError as error:
                    return {"index": index, "status": "error", **body_of(problem_of(error))}
            return {
                "index": index, "status": "success", "seed": wanted.seed, "media_type": MEDIA[whole.response_format],
                "audio_data": base64.b64encode(data).decode(), **({"note": note} if note else {}),
                **({"words": plain(speech.words or ())} if wanted.timestamps else {}),
            }  # fmt: skip

        async def everything() -> list[dict[str, Any]]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(index, item)) for index, item in enumerate(body.items)]
            return [task.result() for task in tasks]

        results = await unless_gone(request, everything())
        good = sum(result["status"] == "success" for result in results)
        return {
            "id": f"batch-{uuid.uuid4().hex}", "results": results, "total": len(results), "succeeded": good,
            "failed": len(results) - good,
        }  # fmt: skip

    return router

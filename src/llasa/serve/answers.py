"""Turns sound into HTTP answers: files that grow while they are spoken, and server-sent events."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from llasa.serve.counters import Counters
from llasa.serve.formats import MEDIA, Encoder, Format, encode, encoder
from llasa.serve.problems import body_of, problem_of
from llasa.serve.service import Service, Wanted
from llasa.speak.account import Account, Candidate
from llasa.speak.request import Request as SpeakRequest
from llasa.speak.speech import Speech, Utterance
from llasa.speak.word_files import plain
from llasa.speak.word_times import Word

T = TypeVar("T")
LISTED = 20  # chunks whose scores go into a header


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of some work, which is cancelled if the client hangs up."""
    task, gone = asyncio.ensure_future(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(499, "the client has hung up")
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Answers:
    """Speaks what is wanted, as the answer to a request."""

    def __init__(self, service: Service, counters: Counters) -> None:
        self.service, self.counters = service, counters

    async def speak(self, wanted: Wanted, client: str) -> tuple[AsyncGenerator[np.ndarray, None], str | None]:
        """Begins to speak a text.

        Returns:
            Its sound, in arrays (N,) float32, and what the client should know of it.
        """
        began = time.monotonic()
        asked = await self.service.prepare(wanted, client)
        return self._sounds(asked, client, began, []), asked.note

    async def _sounds(
        self, asked: SpeakRequest, client: str, began: float, spoken: list[Utterance]
    ) -> AsyncGenerator[np.ndarray, None]:
        heard = False
        async with aclosing(self.service.listen(asked, client, spoken)) as stream:
            async for samples in stream:
                if not heard:
                    self.counters.first.observe(time.monotonic() - began)
                    heard = True
                self.counters.spoken.inc(len(samples) / self.service.rate)
                yield samples

    async def stream(
        self, request: Request, client: str, wanted: Wanted, encoder: Encoder, media: str, headers: dict[str, str]
    ) -> Response:
        """A file that is sent as it is spoken. Its headers go out with the first sound, so errors have a status."""

        async def begin() -> tuple[np.ndarray, AsyncGenerator[np.ndarray, None], str | None]:
            sounds, note = await self.speak(wanted, client)
            return await anext(sounds), sounds, note

        first, sounds, note = await unless_gone(request, begin())

        async def body() -> AsyncIterator[bytes]:
            try:
                async with aclosing(sounds):
                    if data := encoder.push(first):
                        yield data
                    async for samples in sounds:
                        if data := encoder.push(samples):
                            yield data
            finally:
                rest = encoder.finish()
            yield rest

        return StreamingResponse(body(), media_type=media, headers=headers | header_of(note))

    async def search(
        self, request: Request, client: str, wanted: Wanted, format: Format, headers: dict[str, str]
    ) -> Response:
        """The result of a search as a file, with the scores in a header."""
        speech, note = await unless_gone(request, self.service.say(wanted, client))
        self.counters.spoken.inc(speech.seconds)
        assert speech.search is not None
        headers["X-Llasa-Search"] = json.dumps(summary_of(speech.search), separators=(",", ":"))
        data = encode(format, speech.rate, speech.samples)
        return Response(data, media_type=MEDIA[format], headers=headers | header_of(note))

    def events(
        self, client: str, wanted: Wanted, format: Format, candidates: bool, headers: dict[str, str]
    ) -> Response:
        """Server-sent events: sound in base64, the progress of a search, and at the end what it took.

        Args:
            candidates: whether to send the sound of every candidate of a search.
        """

        async def body() -> AsyncIterator[str]:
            try:
                found = self._searched(wanted, client, format, candidates) if wanted.searched else None
                async for event in found or self._streamed(wanted, client, format):
                    yield _event(event)
            except Exception as error:
                yield _event({"type": "error", **body_of(problem_of(error))})

        return StreamingResponse(body(), media_type="text/event-stream", headers=headers)

    async def _streamed(self, wanted: Wanted, client: str, format: Format) -> AsyncIterator[dict[str, Any]]:
        made, began = encoder(format, self.service.rate), time.monotonic()
        count, spoken = 0, list[Utterance]()
        try:
            asked = await self.service.prepare(wanted, client)
            async with aclosing(self._sounds(asked, client, began, spoken)) as sounds:
                async for samples in sounds:
                    count += len(samples)
                    if data := made.push(samples):
                        yield _delta(data)
        finally:
            rest = made.finish()
        if rest:
            yield _delta(rest)
        codes = round(count * wanted.speed / self.service.llasa.codec.hop)
        words = await self.service.words(asked, spoken) if wanted.timestamps else None
        yield _done(wanted, count / self.service.rate, codes, asked.note, words)

    async def _searched(
        self, wanted: Wanted, client: str, format: Format, candidates: bool
    ) -> AsyncIterator[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        reports: asyncio.Queue[tuple[float, float] | None] = asyncio.Queue()

        def progress(spoken: float, expected: float) -> None:
            loop.call_soon_threadsafe(reports.put_nowait, (spoken, expected))

        task = asyncio.create_task(self.service.say(wanted, client, progress))
        task.add_done_callback(lambda _: reports.put_nowait(None))
        try:
            while report := await reports.get():
                yield {"type": "speech.audio.progress", "spoken": report[0], "expected": report[1]}
            speech, note = await task
        finally:
            task.cancel()
        self.counters.spoken.inc(speech.seconds)
        yield _delta(encode(format, speech.rate, speech.samples))
        assert speech.search is not None
        scores: dict[str, Any] = {"search": summary_of(speech.search, None)}
        if candidates:
            scores["candidates"] = await self._candidates(speech, client, wanted.timestamps)
        words = speech.words if wanted.timestamps else None
        yield _done(wanted, speech.seconds, speech.search.tokens, note, words) | scores

    async def _candidates(self, speech: Speech, client: str, timestamps: bool) -> list[dict[str, Any]]:
        """Every candidate with codes, with its sound as WAV, and if wanted when it says each word."""
        codec, account = self.service.llasa.codec, speech.search
        assert account is not None

        def timed(one: Candidate) -> dict[str, Any]:
            words = speech.words_of(one) if timestamps else None
            return {} if words is None else {"words": plain(words)}

        def work(_: Any) -> list[dict[str, Any]]:
            return [
                {
                    **facts_of(one), **timed(one), "text": account.texts[one.chunk],
                    "seconds": len(one.codes) * codec.hop / codec.rate,
                    "audio": base64.b64encode(encode("wav", codec.rate, codec.decode(one.codes))).decode(),
                }
                for one in account.candidates if len(one.codes)
            ]  # fmt: skip

        return await self.service.beside(client, work)


def header_of(note: str | None) -> dict[str, str]:
    """The header that tells a client something: in UTF-8, whatever is not plain ASCII written as in a URL."""
    return {"X-Llasa-Note": quote(note, safe=" !\"#$&'()*+,/:;<=>?@[]^`{|}")} if note else {}


def facts_of(one: Any) -> dict[str, Any]:
    """What the search thinks of a candidate."""
    return {
        "chunk": one.chunk, "number": one.number, "chosen": one.chosen, "condemned": one.condemned,
        "scores": {name: round(score, 4) for name, score in one.scores.items()},
    }  # fmt: skip


def summary_of(account: Account, most: int | None = LISTED) -> dict[str, Any]:
    """The search, and the scores of what it chose for each chunk."""
    chosen = [facts_of(one) for one in account.candidates if one.chosen][:most]
    return {"strategy": account.strategy, "verify": account.verify, "chosen": chosen}


def _event(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, separators=(',', ':'))}\n\n"


def _delta(data: bytes) -> dict[str, Any]:
    return {"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()}


def _done(
    wanted: Wanted, seconds: float, tokens: int, note: str | None, words: Sequence[Word] | None
) -> dict[str, Any]:
    """The last event. Input is counted in characters, output in codes."""
    count = len(wanted.text)
    usage = {"input_tokens": count, "output_tokens": tokens, "total_tokens": count + tokens}
    told = {"type": "speech.audio.done", "usage": usage, "seed": wanted.seed, "seconds": round(seconds, 3)}
    if words is not None:
        told["words"] = plain(words)
    return told | ({"note": note} if note else {})

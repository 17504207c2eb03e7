"""A WebSocket for text that comes in pieces: a language model's reply is spoken while it is written.

The client sends JSON: `session.config`, then `input.text` as often as it likes, then `input.done`. For each sentence or
two it gets `audio.start`, the sound in binary messages, and `audio.done`; at the end `session.done`. Errors come as
`error`, and end the session.
"""

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from llasa.errors import LlasaError
from llasa.serve.answers import Answers
from llasa.serve.formats import MEDIA, PCM_RATE, encoder
from llasa.serve.openai_routes import Manner, wanted_of
from llasa.serve.problems import Problem, body_of, problem_of
from llasa.speak.request import take_seed
from llasa.text.splitting import SHORT, sentences

MESSAGE = 1 << 20  # bytes
SENTENCES = 64  # that may wait to be spoken; more text is read only then


class Cutter:
    """Text in pieces in, whole sentences out. A sentence is whole once another has begun."""

    def __init__(self, most: int) -> None:
        self._text, self._most = "", most

    def push(self, text: str) -> list[str]:
        """Takes more text. Returns the sentences that are whole now, short ones joined to those after them.

        Raises:
            Problem: a sentence is too long.
        """
        self._text += text
        found = sentences(self._text)
        if len(found) < 2:
            if len(self._text) > self._most:
                raise Problem(f"a sentence has more than {self._most:,} characters: end it sooner", param="text")
            return []
        self._text = found.pop() + (" " if self._text[-1].isspace() else "")
        joined = [""]
        for sentence in found:
            joined[-1] = f"{joined[-1]} {sentence}".strip()
            if len(joined[-1]) >= SHORT:
                joined.append("")
        if joined[-1]:
            self._text = f"{joined[-1]} {self._text}"
        return joined[:-1]

    def finish(self) -> list[str]:
        """Returns what is left."""
        text, self._text = self._text.strip(), ""
        return [text] if any(character.isalnum() for character in text) else []


def socket_router(answers: Answers) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.websocket("/v1/audio/speech/stream")
    async def speak(socket: WebSocket) -> None:
        await socket.accept()
        client = socket.state.client
        waiting: asyncio.Queue[str | None] = asyncio.Queue(SENTENCES)
        try:
            message = await _message(socket)
            if message.get("type") != "session.config":
                raise Problem("the first message must be of the type session.config", param="type")
            manner = Manner.model_validate({"response_format": "pcm"} | message)
            if wanted_of(manner, "").searched:
                raise Problem("a search cannot be streamed, since it chooses only at the end", param="search")
            async with asyncio.TaskGroup() as group:
                speaking = group.create_task(_speak(socket, answers, manner, client, waiting))
                reading = group.create_task(_read(socket, answers.service.limits.characters, waiting))
                speaking.add_done_callback(lambda _: reading.cancel())
            await socket.close()
        except* (WebSocketDisconnect, RuntimeError):  # RuntimeError: it was sent to after its end
            pass
        except* Exception as errors:
            await _refuse(socket, errors.exceptions[0])

    return router


async def _refuse(socket: WebSocket, error: Exception) -> None:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        error = Problem(f"{first['loc'][0] if first['loc'] else 'session.config'}: {first['msg'].lower()}")
    try:
        await socket.send_json({"type": "error", **body_of(problem_of(error))})
        await socket.close(1011 if problem_of(error).status >= 500 else 1008)
    except (WebSocketDisconnect, RuntimeError):
        pass


async def _message(socket: WebSocket) -> dict[str, Any]:
    text = await socket.receive_text()
    try:
        message = json.loads(text) if len(text) <= MESSAGE else None
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise Problem("a message must be a JSON object of at most 1 MB")
    return message


async def _read(socket: WebSocket, most: int, waiting: "asyncio.Queue[str | None]") -> None:
    """Cuts what comes into sentences. It goes on to its cancellation, so that a client that hangs up is noticed."""
    cutter, done = Cutter(most), False
    while True:
        message = await _message(socket)
        kind = message.get("type")
        if kind == "input.text" and isinstance(message.get("text"), str) and not done:
            found = cutter.push(message["text"])
        elif kind == "input.done" and not done:
            found, done = cutter.finish(), True
        else:
            raise Problem("a message must be input.text with a text, or input.done, and nothing comes after that")
        for sentence in found:
            await waiting.put(sentence)
        if done:
            await waiting.put(None)


async def _speak(
    socket: WebSocket, answers: Answers, manner: Manner, client: str, waiting: "asyncio.Queue[str | None]"
) -> None:
    """Speaks sentences in order."""
    first, index, format, rate = wanted_of(manner, ""), 0, manner.response_format, answers.service.rate
    while (sentence := await waiting.get()) is not None:
        made = encoder(format, rate)
        about = {"sentence_index": index, "sentence_text": sentence}
        await socket.send_json(
            {"type": "audio.start", **about, "format": format, "media_type": MEDIA[format], "seed": first.seed,
             "sample_rate": PCM_RATE if format == "pcm" else rate}
        )  # fmt: skip
        wanted = replace(first, text=sentence, seed=take_seed(first.seed, index, 0) if index else first.seed)
        count, note = 0, None
        try:
            sounds, note = await answers.speak(wanted, client)
            async with aclosing(sounds):
                async for samples in sounds:
                    count += len(samples)
                    if data := made.push(samples):
                        await socket.send_bytes(data)
        except LlasaError as error:
            if problem_of(error).code in ("busy", "stopping"):
                raise
            await socket.send_json({"type": "warning", **about, **body_of(problem_of(error))})
        finally:
            rest = made.finish()
        if rest:
            await socket.send_bytes(rest)
        told = {"seconds": round(count / rate, 3)} | ({"note": note} if note else {})
        await socket.send_json({"type": "audio.done", **about, **told})
        index += 1
    await socket.send_json({"type": "session.done", "total_sentences": index})

"""Speaks over Wyoming, the protocol of Home Assistant's voices."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.server import AsyncEventHandler, AsyncServer
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

import llasa
from llasa import audio
from llasa.errors import LlasaError
from llasa.serve.answers import Answers
from llasa.serve.problems import problem_of
from llasa.serve.service import Wanted
from llasa.serve.text_socket import Cutter
from llasa.speak.request import draw_seed

OURS = Attribution("llasa", "https://arxiv.org/abs/2502.04128")


@asynccontextmanager
async def wyoming(answers: Answers, host: str, port: int) -> AsyncIterator[None]:
    """Listens on a port, inside."""
    server = AsyncServer.from_uri(f"tcp://{host}:{port}")
    await server.start(partial(Handler, answers))  # and not `run`, which would take the signal that ends everything
    try:
        yield
    finally:
        await server.stop()


class Handler(AsyncEventHandler):
    """One connection: `describe`, `synthesize`, and synthesis of text that comes in pieces."""

    def __init__(self, answers: Answers, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._answers = answers
        self._client = f"wyoming {(writer.get_extra_info('peername') or ('',))[0]}"
        self._cutter: Cutter | None = None
        self._voice: SynthesizeVoice | None = None
        self._sounding = False

    async def handle_event(self, event: Event) -> bool:
        """Answers an event. To return False ends the connection."""
        try:
            await self._handle(event)
        except LlasaError as error:
            problem = problem_of(error)
            await self.write_event(Error(str(problem), problem.code).event())
        return True

    async def _handle(self, event: Event) -> None:
        if Describe.is_type(event.type):
            await self.write_event(self._info().event())
        elif SynthesizeStart.is_type(event.type):
            self._voice = SynthesizeStart.from_event(event).voice
            self._cutter = Cutter(self._answers.service.limits.characters)
        elif SynthesizeChunk.is_type(event.type) and self._cutter:
            for sentence in self._cutter.push(SynthesizeChunk.from_event(event).text):
                await self._speak(sentence, self._voice)
        elif SynthesizeStop.is_type(event.type) and self._cutter:
            for sentence in self._cutter.finish():
                await self._speak(sentence, self._voice)
            self._cutter = None
            await self._stop()
            await self.write_event(SynthesizeStopped().event())
        elif Synthesize.is_type(event.type) and not self._cutter:  # in a stream the whole text comes again
            asked = Synthesize.from_event(event)
            await self._speak(asked.text, asked.voice)
            await self._stop()

    async def _speak(self, text: str, voice: SynthesizeVoice | None) -> None:
        rate = self._answers.service.rate
        name = (voice.name or voice.speaker) if voice else None
        sounds, _ = await self._answers.speak(Wanted(text, draw_seed(None), name), self._client)
        async with aclosing(sounds):
            async for samples in sounds:
                if not self._sounding:
                    await self.write_event(AudioStart(rate, 2, 1).event())
                    self._sounding = True
                await self.write_event(AudioChunk(rate, 2, 1, audio.pcm16(samples)).event())

    async def _stop(self) -> None:
        if self._sounding:
            self._sounding = False
            await self.write_event(AudioStop().event())

    def _info(self) -> Info:
        voices = [
            TtsVoice(name, OURS, True, None, llasa.__version__, ["en"], [])
            for name in self._answers.service.llasa.voices()
        ]
        program = TtsProgram(
            "llasa", OURS, True, "Text to speech with a plain Llama", llasa.__version__, voices,
            supports_synthesize_streaming=True,
        )  # fmt: skip
        return Info(tts=[program])

"""Wyoming: its own client describes, speaks, and streams a text that comes in pieces."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import served
from wyoming.audio import AudioChunk
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeVoice

from llasa.serve.app import Settings
from llasa.tts import Llasa


@pytest.fixture(scope="module")
def port(tiny: Llasa, home: Path) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    with served(tiny, Settings(wyoming=("127.0.0.1", number))):
        yield number


def talk(port: int, events: list[Event], last: str) -> list[Event]:
    """What comes after some events, up to one of the type `last`."""

    async def run() -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            for event in events:
                await client.write_event(event)
            found: list[Event] = []
            while not found or found[-1].type != last:
                event = await asyncio.wait_for(client.read_event(), 60)
                assert event is not None
                found.append(event)
            return found

    return asyncio.run(run())


def seconds(events: list[Event]) -> float:
    chunks = [AudioChunk.from_event(event) for event in events if AudioChunk.is_type(event.type)]
    return sum(len(chunk.audio) / 2 / chunk.rate for chunk in chunks)


def test_it_describes_itself(port: int) -> None:
    (event,) = talk(port, [Describe().event()], "info")
    (program,) = Info.from_event(event).tts
    assert program.supports_synthesize_streaming
    assert "alma" in [voice.name for voice in program.voices]


def test_it_speaks(port: int) -> None:
    found = talk(port, [Synthesize("Hello there.", SynthesizeVoice("bruno")).event()], "audio-stop")
    assert found[0].type == "audio-start"
    assert seconds(found) > 0.5


def test_it_speaks_a_text_that_comes_in_pieces(port: int) -> None:
    pieces = ["Good morning to you", " all. It is", " late."]
    events = [SynthesizeStart().event(), *(SynthesizeChunk(piece).event() for piece in pieces)]
    events += [Synthesize("".join(pieces)).event(), SynthesizeStop().event()]
    found = talk(port, events, "synthesize-stopped")
    assert [event.type for event in found if event.type != "audio-chunk"] == [
        "audio-start", "audio-stop", "synthesize-stopped"
    ]  # fmt: skip
    assert seconds(found) > 1


def test_an_error_is_told(port: int) -> None:
    (event,) = talk(port, [Synthesize("Hello.", SynthesizeVoice("nobody")).event()], "error")
    assert "no voice called nobody" in Error.from_event(event).text

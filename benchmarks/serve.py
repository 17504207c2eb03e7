"""Measures `llasa serve` over the loopback: first sound, speech a second, gaps, a search beside, and many rude clients.

    python benchmarks/serve.py [--requests 40] [--streams 1000] [--minutes 10] [--parts first speech gaps beside rude]
        [--backend torch]

The server is a process of its own, with the embedded voice; it and its clients share two cores. A listener begins to
play with the first bytes, and has a gap whenever sound comes after all before it has been heard. Writes
benchmarks/results/serve.md. All parts take about 19 minutes where 12 s of speech are made in a second.
"""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import machine
import psutil

RESULTS = Path(__file__).parent / "results" / "serve.md"
RATE = 16000
TEXTS = (
    "It is late.",
    "The lighthouse keeper counted the ships every evening, and every morning he forgot the number.",
    "She sells sea shells by the sea shore, and nobody buys them in winter.",
    "It was late. The lamp had burned low, and nobody in the house had said a word for some time. Then a dog ran by, "
    "and somebody laughed. Rain fell on the roof until the morning.",
)
NONSENSE = ("{", '{"input": ""}', '{"input": "a", "voice": "../x"}', '{"input": "a", "speed": 99}', '{"input": "..."}')


@dataclass
class Heard:
    """What one client got: the status, seconds to the first sound, seconds of sound, and how often it ran dry."""

    status: int
    first: float = 0.0
    seconds: float = 0.0
    gaps: int = 0


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[psutil.Process, int]]:
    """A server's process and its port."""
    command = [sys.executable, "-m", "llasa", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = re.search(r":(\d+)/", process.stderr.readline())
        assert found, "the server did not start"
        yield psutil.Process(process.pid), int(found[1])
    finally:
        process.terminate()
        process.wait()


async def ask(port: int, body: str, leave_after: float | None = None) -> Heard:
    """Asks for a speech and listens to it, or hangs up after some seconds of sound."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        heard = Heard(int(answer.split()[1]))
        if heard.status != 200 or b"chunked" not in answer:
            await reader.read()
            return heard
        start = 0.0
        async for data in chunks(reader):
            now = time.perf_counter()
            if not heard.first:
                heard.first, start = now - began, now
                data = data[44:]
            elif (late := now - start - heard.seconds) > 0:
                heard.gaps += 1
                start += late
            heard.seconds += len(data) / 2 / RATE
            if leave_after is not None and heard.seconds > leave_after:
                break
        return heard
    finally:
        writer.close()


async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The chunks of an HTTP body."""
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)


def body(text: str, **fields: object) -> str:
    return json.dumps({"input": text, "response_format": "wav", **fields})


async def clients(port: int, count: int, requests: int, texts: tuple[str, ...] = TEXTS[1:3]) -> list[Heard]:
    """So many clients at once, each of which asks again as soon as it has been answered, `requests` in all."""
    left = iter(range(requests))

    async def client() -> list[Heard]:
        return [await ask(port, body(texts[number % len(texts)], seed=number)) for number in left]

    return [heard for some in await asyncio.gather(*(client() for _ in range(count))) for heard in some]


def first(requests: int, backend: str) -> Iterator[str]:
    with serving("--backend", backend) as (_, port):
        for count, bar in ((1, 120), (8, 400)):
            found = asyncio.run(clients(port, count, requests))
            times = sorted(1000 * heard.first for heard in found)
            yield (
                f"| first sound, {count} client{'s' * (count > 1)}, median (90th of 100) | "
                f"{median(times):.0f} ms ({times[int(0.9 * len(times))]:.0f}) | {bar} ms |"
            )


def speech(requests: int, backend: str) -> Iterator[str]:
    with serving("--max-streams", "16", "--backend", backend) as (_, port):
        speeds = {}
        for count in (1, 16):
            began = time.perf_counter()
            found = asyncio.run(clients(port, count, max(requests, 3 * count)))
            speeds[count] = sum(heard.seconds for heard in found) / (time.perf_counter() - began)
    yield f"| speech made in a second, 1 stream | {speeds[1]:.1f} s | |"
    yield f"| speech made in a second, 16 streams | {speeds[16]:.1f} s | 12 s |"
    yield f"| 16 streams against one | {speeds[16] / speeds[1]:.1f} | 2.5 |"


def gaps(streams: int, backend: str) -> Iterator[str]:
    with serving("--max-waiting", "64", "--backend", backend) as (_, port):
        found = asyncio.run(clients(port, 24, streams, TEXTS[:3]))
    dry = sum(heard.gaps > 0 for heard in found)
    yield f"| streams with a gap, 24 clients, as many at once as are admitted | {dry} of {len(found)} | 0 |"


def beside(requests: int, backend: str) -> Iterator[str]:
    with serving("--max-streams", "4", "--backend", backend) as (_, port):

        async def with_search() -> list[Heard]:
            searching = [asyncio.create_task(searches()) for _ in range(2)]
            found = await clients(port, 4, requests)
            for task in searching:
                task.cancel()
            return found

        async def searches() -> None:
            while True:
                await ask(port, body(TEXTS[1], best_of=4))

        for name, run in (
            ("alone", lambda: clients(port, 4, requests)),
            ("beside two searches, best of 4", with_search),
        ):
            began = time.perf_counter()
            found = asyncio.run(run())
            speed = sum(heard.seconds for heard in found) / (time.perf_counter() - began)
            yield f"| speech made in a second, 4 streams {name} | {speed:.1f} s | |"


def rude(minutes: float, backend: str) -> Iterator[str]:
    sizes: list[float] = []
    with serving("--backend", backend) as (process, port):

        async def client(number: int, end: float) -> list[Heard]:
            dice, found = random.Random(number), []
            while time.perf_counter() < end:
                chance = dice.random()
                if chance < 0.1:
                    found.append(await ask(port, dice.choice(NONSENSE)))
                else:
                    leave = dice.uniform(0.1, 2.0) if chance < 0.3 else None
                    found.append(await ask(port, body(dice.choice(TEXTS)), leave))
                if found[-1].status == 429:
                    await asyncio.sleep(1)
            return found

        async def watch() -> None:
            while True:
                sizes.append(process.memory_info().rss / 2**20)
                await asyncio.sleep(1)

        async def everybody() -> list[Heard]:
            watching, end = asyncio.create_task(watch()), time.perf_counter() + 60 * minutes
            some = await asyncio.gather(*(client(number, end) for number in range(64)))
            watching.cancel()
            return [heard for one in some for heard in one]

        found = asyncio.run(asyncio.wait_for(everybody(), 60 * minutes + 120))
    statuses = Counter(heard.status for heard in found)
    early = median(sizes[60:90] or sizes)
    told = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    yield f"| 64 clients for {minutes:g} minutes, a fifth hang up, a tenth send nonsense | {told} | no 5xx |"
    yield f"| memory at the end against after a minute | {median(sizes[-30:]) / early:.3f} of {early:.0f} MB | 1.05 |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=40, help="of each measurement of speed")
    parser.add_argument("--streams", type=int, default=1000, help="streams that are listened to for gaps")
    parser.add_argument("--minutes", type=float, default=10.0, help="of rude clients")
    parser.add_argument("--parts", nargs="+", default=["first", "speech", "gaps", "beside", "rude"])
    parser.add_argument("--backend", default="torch", help="torch or llamacpp (default torch)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    machine.on_two_cores()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parts = {
        "first": (first, arguments.requests), "speech": (speech, arguments.requests),
        "gaps": (gaps, arguments.streams), "beside": (beside, arguments.requests), "rude": (rude, arguments.minutes),
    }  # fmt: skip
    from llasa.measure.tables import write_text

    lines = [
        "# llasa serve\n",
        "Over the loopback, the embedded voice, server and clients on the same two cores. See benchmarks/serve.py.\n",
        "| | measured | bar |",
        "|---|---|---|",
    ]
    print("\n".join(lines))
    for name in arguments.parts:
        part, amount = parts[name]
        for line in part(amount, arguments.backend):
            lines.append(line)
            print(line, flush=True)
        facts = [f"- {name}: {fact}" for name, fact in machine.describe("fastapi", "uvicorn").items()]
        write_text(arguments.output, "\n".join([*lines, "", *facts]) + "\n")  # after each part, as they take long


if __name__ == "__main__":
    main()

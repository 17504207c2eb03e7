"""A text of several chunks, each searched in turn: which voice and context a chunk gets, and how much time.

Knows plans and voices; the searching is `search.py`'s. A chunk is spoken as what follows the one before, whose words
and codes stand in its prompt after those of the voice; since that one was chosen among many, errors do not add up.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from llasa.engine import Sampling
from llasa.errors import LlasaError
from llasa.planning import Piece, Planner
from llasa.search.account import SILENT
from llasa.search.search import search
from llasa.search.strategy import Strategy
from llasa.search.task import Task, Tools
from llasa.speaking import row_count
from llasa.speech import Utterance
from llasa.text import Chunk
from llasa.voice import Voice


def speak(
    tools: Tools,
    planner: Planner,
    chunks: list[Chunk],
    voice: Voice | None,
    seed: int,
    sampling: Sampling,
    strategy: Strategy,
    max_seconds: float | None = None,
    budget: float | None = None,
    on_progress: Callable[[float, float], None] | None = None,
) -> Iterator[Utterance]:
    """The chunks in order, each the best that was found.

    Args:
        voice: the reference; without one, and without a speaker's name, the first chunk is that of the others.
        budget: seconds for all chunks together, shared out by their lengths.
        on_progress: called with the seconds of audio so far and about how many there will be.

    Raises:
        LlasaError: as `search`; or a verifier needs a reference and there is none.
        KeyboardInterrupt: on Ctrl-C, after the best so far of the chunk under way.
    """
    tools.judge.check(voice is not None)
    rate = planner.codes_per_second
    lengths = [planner.expected(chunk.text, voice) / rate for chunk in chunks]
    end = None if budget is None else time.perf_counter() + budget
    spoken = 0.0
    last: Utterance | None = None
    for index, chunk in enumerate(chunks):
        piece = _piece(planner, chunk, voice, last, max_seconds)
        rest, before = sum(lengths[index + 1 :]), tools.account.tokens
        share = lengths[index] / (lengths[index] + rest)
        now = time.perf_counter()
        work = piece.expected * max(strategy.rows, strategy.samples)

        def report(count: int, done: float = spoken, first: int = before, work: float = work, at: int = index) -> None:
            if on_progress:
                part = min(1.0, (count - first) / work)
                on_progress(done + part * lengths[at], done + sum(lengths[at:]))

        task = Task(
            piece, index, None if voice is None else voice.sound(tools.codec, tools.codec.rate), seed, sampling,
            None if end is None else now + share * (end - now), report,
        )  # fmt: skip
        own = replace(tools, rows=min(tools.rows, row_count(tools.engine, len(piece.prompt) + piece.limit)))
        chosen, interrupted = search(own, task, strategy)
        if chosen is None:
            if interrupted:
                raise KeyboardInterrupt
            last = Utterance(piece.text, np.empty(0, np.uint16), SILENT, piece.pause, False)
        else:
            last = Utterance(piece.text, chosen.codes, chosen.samples, piece.pause, chosen.finished)
        for candidate in tools.account.candidates:
            candidate.samples = SILENT  # a book's would fill the memory
        spoken += len(last.codes) / rate
        yield last
        if interrupted:
            raise KeyboardInterrupt
        if voice is None and planner.speaker is None and piece.can_be_voice(len(last.codes), last.finished):
            voice, last = Voice("first chunk", piece.text, last.codes, samples=last.samples), None


def _piece(
    planner: Planner, chunk: Chunk, voice: Voice | None, last: Utterance | None, max_seconds: float | None
) -> Piece:
    """The chunk as what follows the last one, if both and the voice fit the model's context; else after the voice."""
    if voice is not None and last is not None and last.finished and len(last.codes):
        both = replace(voice, text=f"{voice.text} {last.text}", codes=np.concatenate([voice.codes, last.codes]))
        try:
            piece = planner.pieces([chunk], both, max_seconds)[0]
        except LlasaError:  # no room at all
            piece = None
        if piece is not None and piece.limit > 1.5 * piece.expected:
            return piece
    return planner.pieces([chunk], voice, max_seconds)[0]

"""Searches a request chunk by chunk: gives each chunk its voice, context and time, and chooses its best candidate.

best_of.py and beam.py sample the candidates. Each chunk is spoken as the continuation of the one before: the prompt
holds the words and codes of the voice, then those of the last chunk. Errors do not add up, because that chunk was
chosen among many.

`sanity` is always on: a row that loops is dropped while it runs. A candidate that is silent, clipped, far too short or
never ends is chosen only when there is nothing else.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np

from llasa.errors import NoRoom
from llasa.search.beam import beam
from llasa.search.best_of import best_of
from llasa.search.pool import Pool
from llasa.search.score import score
from llasa.search.strategy import Strategy
from llasa.search.task import Task, Tools, timed
from llasa.speak.account import SILENT, Candidate, best
from llasa.speak.plan import Piece
from llasa.speak.request import Request
from llasa.speak.speech import Utterance

WORK = {"generate": "lm", "decode": "codec", "verify": "verifier"}  # names of the work in an utterance: in an account


def utterances(tools: Tools, request: Request, strategy: Strategy, budget: float | None = None) -> Iterator[Utterance]:
    """Yields the chunks in order, each as its best candidate.

    Args:
        budget: seconds for all chunks together, divided in proportion to their lengths.

    Raises:
        LlasaError: as `search_chunk`; or a verifier needs a reference and there is none.
        KeyboardInterrupt: on Ctrl-C, after the best candidate so far of the current chunk was yielded.
    """
    tools.scorer.check(request.voice is not None)
    deadline = None if budget is None else time.perf_counter() + budget
    reference = _reference(tools, request)
    last: Utterance | None = None
    spoken = 0  # codes
    for index in range(len(request.chunks)):
        piece, before = _piece(request, index, last), dict(tools.account.seconds)
        work = piece.expected * max(strategy.rows, strategy.samples)
        task = Task(
            piece, index, reference, request.seed, request.sampling, _chunk_deadline(request, index, deadline),
            _progress_reporter(request, index, spoken, work, tools.account.tokens),
        )  # fmt: skip
        chosen, interrupted = search_chunk(tools, task, strategy)
        if chosen is None and interrupted:
            raise KeyboardInterrupt
        codes, samples, finished = np.empty(0, np.uint16), SILENT, False
        if chosen is not None:
            codes, samples, finished = chosen.codes, chosen.samples, chosen.finished
        spent = {what: tools.account.seconds[own] - before[own] for what, own in WORK.items()}
        last = Utterance(piece.text, codes, samples, piece.pause, finished, spent)
        for candidate in tools.account.candidates:
            candidate.samples = SILENT  # the samples of a whole book would fill the memory
        spoken += len(codes)
        yield last
        if interrupted:
            raise KeyboardInterrupt
        following = request.after(piece, codes, finished)
        if following is not request:
            request, reference, last = following, _reference(tools, following), None


def search_chunk(tools: Tools, task: Task, strategy: Strategy) -> tuple[Candidate | None, bool]:
    """Searches one chunk and writes all its candidates into the account.

    After Ctrl-C the best of the candidates finished by then is chosen. If a beam has finished none, its best row is
    finished first, unless Ctrl-C comes again. When all verifiers of fragments have failed, a beam becomes a best-of-n.

    Returns:
        The best candidate, or None if Ctrl-C came before there was any; and whether Ctrl-C cut the search short.

    Raises:
        LlasaError: the beam does not fit the memory.
    """
    pool, notes, interrupted = Pool(tools, task), [], False
    if strategy.keep and tools.scorer.process is None:
        wanted, strategy = strategy, Strategy(samples=max(strategy.samples, strategy.rows))
        notes.append(f"no verifier that can score fragments is left: the search continues as {strategy}, not {wanted}")
    try:
        if strategy.keep:
            beam(pool, strategy)
        else:
            best_of(pool, strategy.samples)
    except KeyboardInterrupt:
        interrupted = True
        with suppress(KeyboardInterrupt):  # a second Ctrl-C
            pool.finish_best()
    chosen = _choose(pool, interrupted)
    if chosen is not None and chosen.condemned:
        notes.append(
            f"all {len(pool.found)} candidates are faulty, kept the likeliest ({chosen.condemned}): "
            f"{task.piece.text[:40]!r}"
        )
    account = tools.account
    account.texts.append(task.piece.text)
    account.candidates += sorted(pool.found, key=lambda candidate: candidate.number)
    failures = tools.scorer.failures
    account.failures += [line for line in failures if line not in account.failures]
    lines = [*(f"{line}: the search continues without it" for line in failures), *notes]
    account.notes += [line for line in lines if line not in account.notes]
    return chosen, interrupted


def _choose(pool: Pool, interrupted: bool) -> Candidate | None:
    """The best candidate of a pool, decoded in full precision; None if there is none to choose."""
    tools = pool.tools
    for candidate in pool.scored:  # scores of a verifier that has failed since no longer count
        candidate.key = tools.scorer.key(candidate.scores, candidate.stages)
    chosen = best(pool.scored) or best(pool.found)
    if chosen is None or (interrupted and not chosen.sound):
        return None
    with timed(tools, "codec"):
        chosen.samples = tools.codec.decode(chosen.codes)  # in full precision; a beam has decoded it in fragments
    chosen.chosen = True
    if not pool.scored and not interrupted:
        score(tools, pool.task, [chosen], tools.scorer)
    return chosen


def _piece(request: Request, index: int, last: Utterance | None) -> Piece:
    """The chunk as the continuation of the last one, if both and the voice fit the context; else after the voice."""
    voice = request.voice
    if voice is not None and last is not None and last.finished and len(last.codes):
        both = replace(voice, text=f"{voice.text} {last.text}", codes=np.concatenate([voice.codes, last.codes]))
        try:
            piece = replace(request, voice=both).piece(index)
        except NoRoom:
            return request.piece(index)
        if piece.limit > 1.5 * piece.expected:
            return piece
    return request.piece(index)


def _reference(tools: Tools, request: Request) -> np.ndarray | None:
    """The recording that the speech should sound like, (R,) at the codec's rate; None without a voice."""
    return None if request.voice is None else request.voice.sound(tools.codec, tools.codec.rate)


def _chunk_deadline(request: Request, index: int, deadline: float | None) -> float | None:
    """A chunk's own deadline: the time left is divided among it and the later chunks in proportion to their lengths."""
    if deadline is None:
        return None
    now = time.perf_counter()
    return now + request.expected[index] / sum(request.expected[index:]) * (deadline - now)


def _progress_reporter(request: Request, index: int, spoken: int, work: float, begun: int) -> Callable[[int], None]:
    """A function that reports the progress, given the number of tokens in the account.

    Args:
        spoken: codes of the chunks before.
        work: about how many tokens this chunk's search will sample.
        begun: tokens in the account when the search of this chunk began.
    """
    own = request.expected[index] * request.planner.codes_per_second

    def report(count: int) -> None:
        part = own * min(1.0, (count - begun) / work)
        request.report(spoken + part, own - part, index + 1)

    return report

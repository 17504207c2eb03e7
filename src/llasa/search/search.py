"""Searching for the best way to say one chunk of text: best-of-n, verifier-guided beam, and their mixture.

Built on the engine's three verbs: one prefill, rows that are forked and dropped, never computed again. Knows prompts,
codes, sound and verdicts; knows nothing of how texts are cut up. The strategies are those of Llasa, section 3.3, whose
code was not published: an outcome verifier picks among whole utterances (best-of-n), a process verifier picks among
fragments every second (beam), or a beam opens and best-of-n closes (mixed).

`sanity` is always on: a row that loops is dropped while it runs, and what is silent, clipped, far too short or without
an end is chosen only when there is nothing else.
"""

import time

import numpy as np

from llasa.engine import State
from llasa.errors import LlasaError
from llasa.search.account import SILENT, Candidate, best
from llasa.search.listening import assess, hear, inspect, listen
from llasa.search.strategy import Strategy
from llasa.search.task import Task, Tools, timed
from llasa.speaking import cache_memory
from llasa.verifiers.sanity import repeats

STEP = 50  # codes between two looks at which rows have stopped or loop
FIRST = 2  # samples of a search against the clock before it knows how long one takes


def search(tools: Tools, task: Task, strategy: Strategy) -> tuple[Candidate | None, bool]:
    """The best candidate for a chunk, all of which go into the account; and whether Ctrl-C cut the search short.

    Cut short, it is the best of what was finished by then, or None; a beam in which nothing was has its best row
    finished, unless there is another Ctrl-C. A beam without a verifier of fragments, since it has failed, is a
    best-of-n.

    Raises:
        LlasaError: the beam does not fit the memory.
    """
    found: list[Candidate] = []
    judged: list[Candidate] = []  # those that the whole judge has heard
    interrupted = False
    notes: list[str] = []
    account, piece, judge = tools.account, task.piece, tools.judge
    if strategy.keep and judge.process is None:
        beam, strategy = strategy, Strategy(samples=max(strategy.samples, strategy.rows))
        notes.append(f"no verifier is left that can judge fragments: the search goes on with {strategy}, not {beam}")
    try:
        (_beam if strategy.keep else _best_of)(tools, task, strategy, found, judged)
    except KeyboardInterrupt:
        interrupted = True
    for candidate in judged:  # a verifier that failed after the first of them counts for none
        candidate.key = judge.key(candidate.scores, candidate.stages)
    found.sort(key=lambda candidate: candidate.number)
    account.texts.append(piece.text)
    account.candidates += found
    chosen = best(judged) or best(found)
    if chosen is None or (interrupted and not chosen.sound):
        chosen = None
    else:
        if chosen.condemned:
            notes.append(
                f"none of {len(found)} candidates is sound, kept the likeliest ({chosen.condemned}): "
                f"{piece.text[:40]!r}"
            )
        with timed(tools, "codec"):
            chosen.samples = tools.codec.decode(chosen.codes)  # in full precision, and a beam's in one piece
        chosen.chosen = True
        if not judged and not interrupted:
            assess(tools, task, [chosen], judge)
    account.notes += [note for note in [*judge.notes, *notes] if note not in account.notes]
    return chosen, interrupted


def _best_of(tools: Tools, task: Task, strategy: Strategy, found: list[Candidate], judged: list[Candidate]) -> None:
    """Samples from one prefill."""
    count = strategy.samples
    _finish(tools, task, _start(tools, task), [0] * count, list(range(count)), 0, found, judged)


def _beam(tools: Tools, task: Task, strategy: Strategy, found: list[Candidate], judged: list[Candidate]) -> None:
    """Every `chunk` codes keeps the best rows by the process verifiers and forks them; finished rows compete."""
    process = tools.judge.process
    assert process is not None
    root = _start(tools, task)
    _check_memory(tools, task, strategy)
    numbers = list(range(strategy.rows))
    with timed(tools, "lm"):
        state = tools.engine.select(root, [0] * strategy.rows, task.seeds(numbers))
    tools.account.rows += strategy.rows
    kept = numbers  # rows of `state` that are to go on, the best first
    heard, before = [SILENT] * strategy.rows, 0
    fresh = strategy.rows  # the next candidate's number
    ends: list[Candidate] = []  # finished rows that are among the best
    opening = strategy.seconds * tools.codec.rate / tools.codec.hop
    try:
        while True:
            state = _extend(tools, task, state, strategy.chunk)
            going, stopped = _sort(tools, task, state, numbers)
            found += stopped
            stopped = hear(tools, task, stopped)
            assess(tools, task, stopped, process)
            running = [_candidate(tools, task, state, row, numbers[row]) for row in going]
            codes = _look_ahead(tools, task, state, going, strategy.ahead)
            listen(tools, running, codes, [heard[row] for row in going], before)
            assess(tools, task, running, process, ended=False)
            pool = [*ends, *stopped, *running]
            for candidate in pool:  # a verifier that failed just now counts for none
                candidate.key = process.key(candidate.scores, candidate.stages)
            pool.sort(key=lambda candidate: (candidate.key, -candidate.number), reverse=True)
            pool = _keep(tools, task, pool, strategy.keep)
            ends = [candidate for candidate in pool if candidate.finished]
            left = [candidate for candidate in pool if not candidate.finished]
            found += [candidate for candidate in running if candidate not in left]
            kept = [numbers.index(candidate.number) for candidate in left]
            before += strategy.chunk
            if not kept or task.late or tools.judge.process is None or (opening and before >= opening):
                break
            heard = [candidate.samples for candidate in left for _ in range(strategy.width)]
            copies, following = _number([c.number for c in left for _ in range(strategy.width)], fresh)
            with timed(tools, "lm"):
                forked = tools.engine.select(state, [row for row in kept for _ in range(strategy.width)])
            tools.account.rows += following - fresh
            state, numbers, kept, fresh = forked, copies, list(range(len(copies))), following
        assess(tools, task, ends, tools.judge)
        judged += ends
        if kept:
            # The second half of a mixed search; out of time, the best row alone; or, where nobody can tell which of
            # them to keep, all that there were.
            count = 1 if task.late else strategy.samples or strategy.rows
            rows = [kept[i % len(kept)] for i in range(count)]
            copies, _ = _number([numbers[row] for row in rows], fresh)
            _finish(tools, task, state, rows, copies, fresh, found, judged)
            known = {candidate.number for candidate in found}
            found += [candidate for candidate in left if candidate.number not in known]
    except KeyboardInterrupt:
        known = {candidate.number for candidate in found}
        rows = [row for row in kept if numbers[row] not in known][:1]
        if not any(candidate.sound for candidate in found):
            _finish(tools, task, state, rows, [numbers[row] for row in rows], fresh, found, judged)
        raise


def _keep(tools: Tools, task: Task, pool: list[Candidate], count: int) -> list[Candidate]:
    """The first of a pool in which nothing sounds wrong so far; if it does in all, the first."""
    kept: list[Candidate] = []
    for candidate in pool:
        if len(kept) < count:
            if not candidate.finished:
                inspect(tools, task, candidate)
            if candidate.condemned is None:
                kept.append(candidate)
    return kept or pool[:count]


def _number(taken: list[int], fresh: int) -> tuple[list[int], int]:
    """Numbers of forked rows, given those they come from, of each the first keeps its own; and the next free one."""
    numbers: list[int] = []
    for number in taken:
        copy = number in numbers
        numbers.append(fresh if copy else number)
        fresh += copy
    return numbers, fresh


def _start(tools: Tools, task: Task) -> State:
    piece = task.piece
    with timed(tools, "lm"):
        return tools.engine.start([piece.prompt], 1, [task.seed], task.sampling, piece.limit, [piece.least])


def _finish(
    tools: Tools,
    task: Task,
    state: State,
    rows: list[int],
    numbers: list[int],
    begun: int,
    found: list[Candidate],
    judged: list[Candidate],
) -> None:
    """Rows to their ends, as many at once as memory allows; or, against the clock, as the time left allows.

    Args:
        rows: of the state, which is left as it is; one that is there several times goes several ways.
        numbers: the candidates', who all get random numbers of their own.
        begun: the first number of a row that has not been counted yet.
    """
    count, size = 0, tools.rows if task.deadline is None else FIRST
    while count < len(rows) and size > 0:
        began = time.perf_counter()
        part = slice(count, count + size)
        with timed(tools, "lm"):
            batch = tools.engine.select(state, rows[part], task.seeds(numbers[part]))
        tools.account.rows += sum(number >= begun for number in numbers[part])
        ended = _run(tools, task, batch, numbers[part], found)
        assess(tools, task, ended, tools.judge)
        judged += ended
        count += len(rows[part])
        if task.deadline is not None:
            each = (time.perf_counter() - began) / len(rows[part])
            size = min(tools.rows, int((task.deadline - time.perf_counter()) / each))


def _run(tools: Tools, task: Task, state: State, numbers: list[int], found: list[Candidate]) -> list[Candidate]:
    """Rows to their ends: candidates that nothing is wrong with, decoded; those condemned go into `found` alone."""
    batch: list[Candidate] = []
    while numbers:
        state = _extend(tools, task, state, STEP)
        going, stopped = _sort(tools, task, state, numbers)
        found += stopped
        batch += stopped
        if stopped and going:
            with timed(tools, "lm"):
                state = tools.engine.select(state, going)
        numbers = [numbers[row] for row in going]
    return hear(tools, task, batch)


def _extend(tools: Tools, task: Task, state: State, tokens: int) -> State:
    before = sum(map(len, state.tokens))
    with timed(tools, "lm"):
        state = tools.engine.extend(state, tokens)
    tools.account.tokens += sum(map(len, state.tokens)) - before
    task.on_tokens(tools.account.tokens)
    return state


def _look_ahead(tools: Tools, task: Task, state: State, rows: list[int], ahead: int) -> list[np.ndarray]:
    """The codes of some rows and `ahead` more of each, which the state will not remember."""
    tokens = [state.tokens[row] for row in rows]
    if ahead and rows:
        with timed(tools, "lm"):
            peek = tools.engine.select(state, rows)
        tokens = _extend(tools, task, peek, ahead).tokens
    return [tools.vocabulary.codes(row) for row in tokens]


def _candidate(tools: Tools, task: Task, state: State, row: int, number: int) -> Candidate:
    """A row as far as it has got."""
    codes, finished = tools.vocabulary.codes(state.tokens[row]), state.finished[row]
    return Candidate(task.number, number, codes, finished, task.piece.distance(len(codes), finished))


def _sort(tools: Tools, task: Task, state: State, numbers: list[int]) -> tuple[list[int], list[Candidate]]:
    """The rows that go on, and those that have stopped or loop, as candidates yet to be decoded."""
    going, stopped = [], []
    for row, number in enumerate(numbers):
        candidate = _candidate(tools, task, state, row, number)
        codes, finished = candidate.codes, candidate.finished
        wrong = "repeats itself" if repeats(codes) else None
        if state.stopped[row] and not task.piece.is_plausible(len(codes), finished):
            wrong = "stops at once" if finished else "comes to no end"
        if state.stopped[row] or wrong:
            candidate.condemned = wrong
            stopped.append(candidate)
        else:
            going.append(row)
    return going, stopped


def _check_memory(tools: Tools, task: Task, strategy: Strategy) -> None:
    """Refuses a beam whose KV cache, old and new while it is forked, would not fit."""
    for row, free in cache_memory(tools.engine, len(task.piece.prompt) + task.piece.limit):
        needed = 2 * strategy.rows * row
        if needed > free:
            raise LlasaError(
                f"a beam of {strategy.keep}x{strategy.width} needs {needed / 2**30:.1f} GiB for its KV cache, and "
                f"{free / 2**30:.1f} GiB are free: make it narrower"
            )

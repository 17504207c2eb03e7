"""Searching for the best way to say one chunk of text: best-of-n, verifier-guided beam, and their mixture.

Built on the engine's three verbs: one prefill, rows that are forked and dropped, never computed again. Knows prompts,
codes, sound and verdicts; knows nothing of how texts are cut up. The strategies are those of Llasa, section 3.3, whose
code was not published: an outcome verifier picks among whole utterances (best-of-n), a process verifier picks among
fragments every second (beam), or a beam opens and best-of-n closes (mixed).

`sanity` is always on: a row that loops is dropped while it runs, and what is silent, clipped, far too short or without
an end is chosen only when there is nothing else.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from llasa.codec import Codec
from llasa.codec.stream import LOOKAHEAD
from llasa.engine import Engine, Sampling, State
from llasa.errors import LlasaError
from llasa.planning import Piece, letters
from llasa.search.account import Account, Candidate
from llasa.search.strategy import Strategy
from llasa.speaking import take_seed
from llasa.verifiers.combine import Judge
from llasa.verifiers.sanity import judge_sound, repeats
from llasa.vocabulary import Vocabulary

STEP = 50  # codes between two looks at which rows have stopped or loop
CONTEXT = 50  # codes decoded before a fragment; less than for what is to be heard by more than verifiers
FIRST = 2  # samples of a search against the clock before it knows how long one takes
SILENT = np.empty(0, np.float32)
NO_PROCESS = "a beam needs a verifier that can judge fragments, which {} cannot: use content or speaker, or best-of"


@dataclass(frozen=True, eq=False)
class Tools:
    """What searches work with: the models, the judge, how many rows may run at once, and the account to write."""

    engine: Engine
    vocabulary: Vocabulary
    codec: Codec
    judge: Judge
    rows: int
    account: Account


@dataclass(frozen=True, eq=False)
class Task:
    """A chunk to be said.

    Attributes:
        piece: the chunk, with its prompt.
        number: of the chunk in the text.
        reference: (R,) float32 at the codec's rate, whom it should sound like; None if that is open.
        seed: of the whole text; candidate i of a best-of-n is what `say` speaks at its try i.
        sampling: how tokens are picked.
        deadline: of `time.perf_counter`, after which no more is sampled than one candidate needs; None for no hurry.
        on_tokens: called with the number of tokens sampled for this chunk so far.
    """

    piece: Piece
    number: int
    reference: np.ndarray | None
    seed: int
    sampling: Sampling
    deadline: float | None = None
    on_tokens: Callable[[int], None] = lambda count: None

    @property
    def late(self) -> bool:
        """Whether time is up."""
        return self.deadline is not None and time.perf_counter() > self.deadline


def search(tools: Tools, task: Task, strategy: Strategy) -> tuple[Candidate | None, bool]:
    """The best candidate for a chunk, all of which go into the account; and whether Ctrl-C cut the search short.

    Cut short, it is the best of what was finished by then, or None.

    Raises:
        LlasaError: the beam does not fit the memory, or no verifier can judge fragments.
    """
    found: list[Candidate] = []
    keys: dict[int, tuple] = {}  # by candidates' numbers: what the judge made of them
    interrupted = False
    try:
        (_beam if strategy.keep else _best_of)(tools, task, strategy, found, keys)
    except KeyboardInterrupt:
        interrupted = True
    found.sort(key=lambda candidate: candidate.number)
    account, piece = tools.account, task.piece
    account.texts.append(piece.text)
    account.candidates += found
    account.notes += [note for note in tools.judge.notes if note not in account.notes]
    sound = [c for c in found if c.finished and c.condemned is None]
    # Where Ctrl-C came before any verdict, the most plausible length is what there is to go by.
    judged = [c for c in sound if c.number in keys] or sound
    condemned = [] if interrupted else [c for c in found if c.condemned and len(c.codes)]
    if judged:
        chosen = max(judged, key=lambda c: (keys.get(c.number, ()), -piece.distance(len(c.codes), True), -c.number))
    elif condemned:
        chosen = min(condemned, key=lambda c: piece.distance(len(c.codes), c.finished))
        account.notes.append(
            f"none of {len(found)} candidates is sound, kept the likeliest ({chosen.condemned}): {piece.text[:40]!r}"
        )
    else:
        return None, interrupted
    with _timed(tools, "codec"):
        chosen.samples = tools.codec.decode(chosen.codes)  # in full precision, and a beam's in one piece
    chosen.chosen = True
    return chosen, interrupted


def _best_of(tools: Tools, task: Task, strategy: Strategy, found: list[Candidate], keys: dict[int, tuple]) -> None:
    """Samples from one prefill, as many at once as memory allows; or, against the clock, as the time left allows."""
    root = _start(tools, task)
    count, size = 0, tools.rows if task.deadline is None else FIRST
    while count < strategy.samples and size > 0:
        began = time.perf_counter()
        numbers = range(count, min(strategy.samples, count + size))
        with _timed(tools, "lm"):
            seeds = [take_seed(task.seed, task.number, number) for number in numbers]
            state = tools.engine.select(root, [0] * len(numbers), seeds)
        tools.account.rows += len(numbers)
        batch = _run(tools, task, state, list(numbers), found)
        keys |= _judge(tools, task, batch, tools.judge)
        count += len(numbers)
        if task.deadline is not None:
            each = (time.perf_counter() - began) / len(numbers)
            size = min(tools.rows, int((task.deadline - time.perf_counter()) / each))


def _beam(tools: Tools, task: Task, strategy: Strategy, found: list[Candidate], keys: dict[int, tuple]) -> None:
    """Every `chunk` codes keeps the best rows by the process verifiers and forks them; finished rows compete."""
    process = tools.judge.process
    if process is None:
        raise LlasaError(NO_PROCESS.format(tools.judge.written))
    root = _start(tools, task)
    _check_memory(root, strategy)
    rows = strategy.rows
    with _timed(tools, "lm"):
        state = tools.engine.select(root, [0] * rows, [take_seed(task.seed, task.number, i) for i in range(rows)])
    tools.account.rows += rows
    numbers, heard, before = list(range(rows)), [SILENT] * rows, 0
    fresh = rows  # the next candidate's number
    ends: list[tuple[tuple, Candidate]] = []  # finished rows that are among the best
    opening = strategy.seconds * tools.codec.rate / tools.codec.hop
    while True:
        state = _extend(tools, task, state, strategy.chunk)
        going, stopped = _sort(tools, task, state, numbers)
        found += stopped
        verdicts = _judge(tools, task, _hear(tools, task, stopped), process)
        ends += [(verdicts[candidate.number], candidate) for candidate in stopped if candidate.number in verdicts]
        running = [Candidate(task.number, numbers[row], _codes(tools, state, row), SILENT, False) for row in going]
        _listen(tools, task, state, going, running, [heard[row] for row in going], before, strategy.ahead)
        verdicts = _judge(tools, task, running, process, ended=False)
        pool = [(key, -candidate.number, candidate, -1) for key, candidate in ends]
        pool += [(verdicts[c.number], -c.number, c, row) for c, row in zip(running, going, strict=True)]
        pool.sort(key=lambda entry: entry[:2], reverse=True)
        best, lost = pool[: strategy.keep], pool[strategy.keep :]
        ends = [(key, candidate) for key, _, candidate, row in best if row < 0]
        kept = [(candidate, row) for _, _, candidate, row in best if row >= 0]
        found += [candidate for _, _, candidate, row in lost if row >= 0]
        before += strategy.chunk
        if not kept or task.late or (opening and before >= opening):
            break
        forks = [one for one in kept for _ in range(strategy.width)]
        with _timed(tools, "lm"):
            state = tools.engine.select(state, [row for _, row in forks])
        heard = [candidate.samples for candidate, _ in forks]
        numbers, fresh = _number(forks, fresh)
        tools.account.rows += len(forks) - len(kept)
    closing = [candidate for _, candidate in ends]
    if kept:
        # The second half of a mixed search; or, out of time, the way to the end for the best row alone.
        count = 1 if task.late else strategy.samples
        forks = sorted((kept[i % len(kept)] for i in range(count)), key=lambda one: kept.index(one))
        found += [one[0] for one in kept if one not in forks]
        numbers, fresh = _number(forks, fresh)
        tools.account.rows += count - min(count, len(kept))
        for first in range(0, count, tools.rows):
            part = slice(first, first + tools.rows)
            with _timed(tools, "lm"):
                rest = tools.engine.select(state, [row for _, row in forks[part]])
            closing += _run(tools, task, rest, numbers[part], found)
    keys |= _judge(tools, task, closing, tools.judge)


def _number(forks: list[tuple[Candidate, int]], fresh: int) -> tuple[list[int], int]:
    """Numbers of forked rows, of each the first keeps the one it has; and the next number that is free."""
    numbers: list[int] = []
    for candidate, _ in forks:
        taken = candidate.number in numbers
        numbers.append(fresh if taken else candidate.number)
        fresh += taken
    return numbers, fresh


def _start(tools: Tools, task: Task) -> State:
    piece = task.piece
    with _timed(tools, "lm"):
        return tools.engine.start([piece.prompt], 1, [task.seed], task.sampling, piece.limit, [piece.least])


def _run(tools: Tools, task: Task, state: State, numbers: list[int], found: list[Candidate]) -> list[Candidate]:
    """Rows to their ends: candidates that nothing is wrong with, decoded; those condemned go into `found` alone."""
    batch: list[Candidate] = []
    while numbers:
        state = _extend(tools, task, state, STEP)
        going, stopped = _sort(tools, task, state, numbers)
        found += stopped
        batch += stopped
        if stopped and going:
            with _timed(tools, "lm"):
                state = tools.engine.select(state, going)
        numbers = [numbers[row] for row in going]
    return _hear(tools, task, batch)


def _extend(tools: Tools, task: Task, state: State, tokens: int) -> State:
    before = sum(map(len, state.tokens))
    with _timed(tools, "lm"):
        state = tools.engine.extend(state, tokens)
    tools.account.tokens += sum(map(len, state.tokens)) - before
    task.on_tokens(tools.account.tokens)
    return state


def _sort(tools: Tools, task: Task, state: State, numbers: list[int]) -> tuple[list[int], list[Candidate]]:
    """The rows that go on, and those that have stopped or loop, as candidates yet to be decoded."""
    going, stopped = [], []
    for row, number in enumerate(numbers):
        codes, finished = _codes(tools, state, row), state.finished[row]
        wrong = "repeats itself" if repeats(codes) else None
        if state.stopped[row] and not task.piece.is_plausible(len(codes), finished):
            wrong = "stops at once" if finished else "comes to no end"
        if state.stopped[row] or wrong:
            stopped.append(Candidate(task.number, number, codes, SILENT, finished, wrong))
        else:
            going.append(row)
    return going, stopped


def _hear(tools: Tools, task: Task, candidates: list[Candidate]) -> list[Candidate]:
    """Decodes what is not condemned yet, condemns what sounds wrong, and returns the rest."""
    piece, codec = task.piece, tools.codec
    pace = piece.expected * codec.hop / codec.rate / letters(piece.text)
    waiting = [candidate for candidate in candidates if candidate.condemned is None]
    with _timed(tools, "codec"):
        sounds = _decode(tools, [candidate.codes for candidate in waiting])
    for candidate, samples in zip(waiting, sounds, strict=True):
        candidate.samples = samples
        with _timed(tools, "verifier"):
            candidate.condemned = judge_sound(piece.text, candidate.samples, pace)
    return [candidate for candidate in waiting if candidate.condemned is None]


def _decode(tools: Tools, rows: list[np.ndarray]) -> list[np.ndarray]:
    """Rows of codes, of any lengths, to sound.

    The decoder normalises over a row's whole length, so rows of different lengths cannot share a batch. On a CPU as
    many go side by side as there are threads, with one each: more threads on a few seconds of speech gain little.
    """

    def one(codes: np.ndarray) -> np.ndarray:
        with _as_fast_as_the_lm(tools):
            return tools.codec.decode(codes)

    threads = torch.get_num_threads() if tools.codec.model.device.type == "cpu" else 1
    if min(threads, len(rows)) < 2:
        return [one(codes) for codes in rows]
    try:
        with ThreadPoolExecutor(min(threads, len(rows)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(one, rows))
    finally:
        torch.set_num_threads(threads)  # threads begun later ask for this number, not for their own


def _listen(
    tools: Tools,
    task: Task,
    state: State,
    going: list[int],
    running: list[Candidate],
    heard: list[np.ndarray],
    before: int,
    ahead: int,
) -> None:
    """Gives the running candidates their sound so far, `ahead` codes of which they will not remember included.

    Only the newest codes are decoded, with context and all rows at once; what came just before them is decoded again,
    now that it has something after it.

    Args:
        going: the candidates' rows.
        heard: what they, or those that they were forked from, sounded like at the last look.
        before: codes that there were then.
    """
    tokens = [state.tokens[row] for row in going]
    if ahead and going:
        with _timed(tools, "lm"):
            peek = tools.engine.select(state, going)
        tokens = _extend(tools, task, peek, ahead).tokens
    known = max(0, before - LOOKAHEAD)
    first, hop = max(0, known - CONTEXT), tools.codec.hop
    for length in sorted({len(row) for row in tokens}):  # of one length but where one ends in the look-ahead
        places = [place for place, row in enumerate(tokens) if len(row) == length]
        codes = np.stack([tools.vocabulary.codes(tokens[place])[first:] for place in places])
        with _timed(tools, "codec"), _as_fast_as_the_lm(tools):
            made = tools.codec.decode_window(codes.astype(np.int64))
        for place, samples in zip(places, made, strict=True):
            new = samples[(known - first) * hop :]
            running[place].samples = np.concatenate([heard[place][: known * hop], new])


def _judge(tools: Tools, task: Task, candidates: list[Candidate], judge: Judge, ended: bool = True) -> dict[int, tuple]:
    """Notes the verdicts on the candidates; returns their keys by the candidates' numbers, the greatest the best."""
    if not candidates:
        return {}
    count = len(candidates)
    with _timed(tools, "verifier"):
        verdicts = judge.judge(
            [task.piece.text] * count, [c.samples for c in candidates], [task.reference] * count, ended
        )
    for candidate, verdict in zip(candidates, verdicts, strict=True):
        candidate.scores, candidate.total = candidate.scores | verdict.scores, verdict.total
    return {candidate.number: verdict.key for candidate, verdict in zip(candidates, verdicts, strict=True)}


def _codes(tools: Tools, state: State, row: int) -> np.ndarray:
    return tools.vocabulary.codes(state.tokens[row])


def _check_memory(root: State, strategy: Strategy) -> None:
    """Refuses a beam whose KV cache, old and new while it is forked, would not fit."""
    needed = 2 * strategy.rows * sum(part.numel() * part.element_size() for part in root.cache)
    device = root.cache[0].device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise LlasaError(
            f"a beam of {strategy.keep}x{strategy.width} needs {needed / 2**30:.1f} GiB for its KV cache, and "
            f"{free / 2**30:.1f} GiB are free: make it narrower"
        )


def _as_fast_as_the_lm(tools: Tools) -> torch.autocast:
    """The codec in the language model's precision, for what verifiers alone hear."""
    fast = tools.engine.llama.weights == torch.bfloat16
    return torch.autocast(tools.codec.model.device.type, torch.bfloat16, enabled=fast)


@contextmanager
def _timed(tools: Tools, what: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        tools.account.seconds[what] += time.perf_counter() - began

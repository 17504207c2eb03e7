"""Searches with a beam: every second, verifiers score the fragments, and the best rows are kept and forked.

This is the process verification of Llasa, section 3.3, whose code was not published. A mixed search begins as a beam
and ends as a best-of-n.
"""

from llasa.errors import LlasaError
from llasa.search.pool import Pool, Rows
from llasa.search.score import check, decode_prefix, decode_whole, score
from llasa.search.strategy import Strategy
from llasa.search.task import Task, Tools
from llasa.speak.account import Candidate
from llasa.verifiers.combine import Scorer


def beam(pool: Pool, strategy: Strategy) -> None:
    """Every `chunk` codes, scores the fragments, keeps the best rows and forks them. Finished rows stay in the contest.

    Raises:
        LlasaError: the beam does not fit the memory.
    """
    tools, task = pool.tools, pool.task
    scorer = tools.scorer.process
    assert scorer is not None
    _check_memory(pool, strategy)
    root = pool.prefill()
    places = [0] * strategy.rows
    rows = pool.select(root, places, pool.number(root, places), anew=True)
    pool.unfinished = rows, list(range(strategy.rows))
    ends: list[Candidate] = []  # finished rows that are among the best
    opening, made = strategy.seconds * tools.codec.rate / tools.codec.hop, 0  # codes
    while True:
        rows = pool.extend(rows, strategy.chunk)
        stopped, running = _score_rows(pool, scorer, rows, strategy.ahead)
        ranked = [*ends, *stopped, *running]
        for candidate in ranked:  # scores of a verifier that has just failed no longer count
            candidate.key = scorer.key(candidate.scores, candidate.stages)
        ranked.sort(key=lambda candidate: (candidate.key, -candidate.number), reverse=True)
        best = drop_unsound(tools, task, ranked, strategy.keep)
        ends = [candidate for candidate in best if candidate.finished]
        unfinished = [candidate for candidate in best if not candidate.finished]
        pool.found += [candidate for candidate in running if candidate not in unfinished]
        kept = [rows.numbers.index(candidate.number) for candidate in unfinished]
        pool.unfinished = rows, kept
        made += strategy.chunk
        if not kept or task.late or tools.scorer.process is None or (opening and made >= opening):
            break
        places = [place for place in kept for _ in range(strategy.width)]
        rows = pool.select(rows, places, pool.number(rows, places))
        pool.unfinished = rows, list(range(len(places)))
    pool.score(ends)
    if kept:
        # The second half of a mixed search. When time is up, the best row alone is finished; when no verifier is left
        # to choose between rows, all are.
        count = 1 if task.late else strategy.samples or strategy.rows
        pool.finish(rows, [kept[i % len(kept)] for i in range(count)])
        known = {candidate.number for candidate in pool.found}
        pool.found += [candidate for candidate in unfinished if candidate.number not in known]


def _score_rows(pool: Pool, scorer: Scorer, rows: Rows, ahead: int) -> tuple[list[Candidate], list[Candidate]]:
    """Rows as scored candidates: first those that have stopped and sound right, then the unfinished ones.

    `ahead` is how many codes beyond each row's end the scorer hears.
    """
    tools, task = pool.tools, pool.task
    unfinished, stopped = pool.split(rows)
    stopped = decode_whole(tools, task, stopped)
    score(tools, task, stopped, scorer)
    running = [pool.candidate(rows, place) for place in unfinished]
    sounds = decode_prefix(tools, pool.peek(rows, unfinished, ahead))
    for candidate, samples in zip(running, sounds, strict=True):
        candidate.samples = samples
    score(tools, task, running, scorer, ended=False)
    return stopped, running


def drop_unsound(tools: Tools, task: Task, ranked: list[Candidate], count: int) -> list[Candidate]:
    """The first `count` candidates in which nothing sounds wrong so far; if all sound wrong, the first `count`."""
    kept: list[Candidate] = []
    for candidate in ranked:
        if len(kept) < count:
            if not candidate.finished:
                check(tools, task, candidate)
            if candidate.condemned is None:
                kept.append(candidate)
    return kept or ranked[:count]


def _check_memory(pool: Pool, strategy: Strategy) -> None:
    """Refuses a beam whose KV cache would not fit. While rows are forked, the old and the new cache both exist."""
    width = len(pool.task.piece.prompt) + pool.task.piece.limit
    if strategy.rows > (room := pool.tools.backend.rows_that_fit(width)):
        raise LlasaError(
            f"a beam of {strategy.keep}x{strategy.width} has {strategy.rows} rows of {width} tokens, and the free "
            f"memory holds the KV caches of {room}: make it narrower"
        )

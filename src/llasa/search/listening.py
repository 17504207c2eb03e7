"""What candidates sound like and what is made of it: decoding, sanity, and the verdicts of verifiers.

Knows codes, sound and verdicts; knows nothing of rows and of what is kept.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from llasa.codec import Codec
from llasa.planning import letters
from llasa.search.account import Candidate
from llasa.search.task import Task, Tools, timed
from llasa.verifiers.combine import Judge
from llasa.verifiers.sanity import judge_sound

CONTEXT = 50  # codes decoded before a fragment; less than for what is to be heard by more than verifiers


def hear(tools: Tools, task: Task, candidates: list[Candidate]) -> list[Candidate]:
    """Decodes what is not condemned yet, condemns what sounds wrong, and returns the rest."""
    waiting = [candidate for candidate in candidates if candidate.condemned is None]
    with timed(tools, "codec"):
        sounds = _decode(tools, [candidate.codes for candidate in waiting])
    for candidate, samples in zip(waiting, sounds, strict=True):
        candidate.samples = samples
        inspect(tools, task, candidate)
    return [candidate for candidate in waiting if candidate.condemned is None]


def inspect(tools: Tools, task: Task, candidate: Candidate) -> None:
    """Condemns what sounds wrong, as a whole or, unfinished, as a fragment."""
    piece, codec = task.piece, tools.codec
    pace = piece.expected * codec.hop / codec.rate / letters(piece.text)
    with timed(tools, "verifier"):
        candidate.condemned = judge_sound(piece.text, candidate.samples, pace, candidate.finished)


def _decode(tools: Tools, rows: list[np.ndarray]) -> list[np.ndarray]:
    """Rows of codes, of any lengths, to sound.

    The decoder normalises over a row's whole length, so rows of different lengths cannot share a batch. On a CPU as
    many go side by side as there are threads, with one each: more threads on a few seconds of speech gain little.
    """

    def one(codes: np.ndarray) -> np.ndarray:
        with _as_fast_as_the_lm(tools) as codec:
            return codec.decode(codes)

    threads = torch.get_num_threads() if tools.codec.model.device.type == "cpu" else 1
    if min(threads, len(rows)) < 2:
        return [one(codes) for codes in rows]
    try:
        with ThreadPoolExecutor(min(threads, len(rows)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(one, rows))
    finally:
        torch.set_num_threads(threads)  # threads begun later ask for this number, not for their own


def listen(
    tools: Tools, running: list[Candidate], codes: list[np.ndarray], heard: list[np.ndarray], before: int
) -> None:
    """Gives the running candidates their sound so far.

    Only the newest codes are decoded, with context and all rows at once; what came just before them is decoded again,
    now that it has something after it.

    Args:
        codes: the candidates' (T,), and what may lie ahead of them.
        heard: what they, or those that they were forked from, sounded like at the last look.
        before: codes that there were then.
    """
    known = max(0, before - tools.codec.lookahead)
    first, hop = max(0, known - CONTEXT), tools.codec.hop
    for length in sorted({len(row) for row in codes}):  # of one length but where one ends in the look-ahead
        places = [place for place, row in enumerate(codes) if len(row) == length]
        batch = np.stack([codes[place][first:] for place in places]).astype(np.int64)
        with timed(tools, "codec"), _as_fast_as_the_lm(tools) as codec:
            made = codec.decode_window(batch)
        for place, samples in zip(places, made, strict=True):
            new = samples[(known - first) * hop :]
            running[place].samples = np.concatenate([heard[place][: known * hop], new])


def assess(tools: Tools, task: Task, candidates: list[Candidate], judge: Judge, ended: bool = True) -> None:
    """Notes the verdicts on the candidates."""
    if not candidates:
        return
    count = len(candidates)
    with timed(tools, "verifier"):
        verdicts = judge.judge(
            [task.piece.text] * count, [c.samples for c in candidates], [task.reference] * count, ended
        )
    for candidate, verdict in zip(candidates, verdicts, strict=True):
        candidate.scores = candidate.scores | verdict.scores
        candidate.stages, candidate.key = verdict.stages, verdict.key


@contextmanager
def _as_fast_as_the_lm(tools: Tools) -> Iterator[Codec]:
    """The codec in the language model's precision, for what verifiers alone hear."""
    fast = tools.engine.llama.weights == torch.bfloat16
    with torch.autocast(tools.codec.model.device.type, torch.bfloat16, enabled=fast):
        yield tools.codec.for_autocast if fast else tools.codec

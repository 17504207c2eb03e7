"""Decodes candidates, checks them for plain faults, and has verifiers score them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from llasa.codec import Codec
from llasa.search.task import Task, Tools, timed
from llasa.speak.account import SILENT, Candidate
from llasa.speak.speech import is_faint
from llasa.text.script import letters
from llasa.verifiers import Batch
from llasa.verifiers.combine import Scorer
from llasa.verifiers.sanity import judge_sound


def decode_whole(tools: Tools, task: Task, candidates: list[Candidate]) -> list[Candidate]:
    """Decodes the candidates not condemned yet, condemns those that sound wrong, and returns the others."""
    waiting = [candidate for candidate in candidates if candidate.condemned is None]
    with timed(tools, "codec"):
        sounds = _decode(tools, [candidate.codes for candidate in waiting])
    for candidate, samples in zip(waiting, sounds, strict=True):
        candidate.samples = samples
        check(tools, task, candidate)
    return [candidate for candidate in waiting if candidate.condemned is None]


def check(tools: Tools, task: Task, candidate: Candidate) -> None:
    """Condemns a candidate that sounds wrong, as a whole or, if it is unfinished, as a fragment."""
    piece, codec = task.piece, tools.codec
    pace = piece.expected * codec.hop / codec.rate / letters(piece.text)
    with timed(tools, "verifier"):
        candidate.condemned = judge_sound(piece.text, candidate.samples, pace, candidate.finished)
        if candidate.finished and candidate.condemned is None and is_faint(candidate.samples, codec.rate):
            candidate.condemned = "silent"


def _decode(tools: Tools, rows: list[np.ndarray]) -> list[np.ndarray]:
    """Decodes rows of codes of any lengths.

    The decoder normalises over a row's whole length, so rows of different lengths cannot share a batch. On a CPU, rows
    are decoded in parallel with one thread each: more threads on a few seconds of speech gain little.
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
        torch.set_num_threads(threads)  # threads started later use this number


def decode_prefix(tools: Tools, codes: list[np.ndarray]) -> list[np.ndarray]:
    """Decodes fragments, (T,) codes each, to (N,) samples each; those of one length as a batch.

    They are decoded from their beginning each time. A decoder that begins later starts its pulses with another phase,
    and verifiers would hear a click where its sound is joined to the one before.
    """
    sounds: list[np.ndarray] = [SILENT] * len(codes)
    for length in sorted({len(row) for row in codes}):  # all are equally long, unless one ended in the look-ahead
        places = [place for place, row in enumerate(codes) if len(row) == length]
        batch = np.stack([codes[place] for place in places]).astype(np.int64)
        with timed(tools, "codec"), _as_fast_as_the_lm(tools) as codec:
            made = codec.decode_window(batch)
        for place, samples in zip(places, made, strict=True):
            sounds[place] = samples
    return sounds


def score(tools: Tools, task: Task, candidates: list[Candidate], scorer: Scorer, ended: bool = True) -> None:
    """Scores candidates and writes the scores on them; with `ended` false, they are fragments."""
    if not candidates:
        return
    count = len(candidates)
    sounds = [candidate.samples for candidate in candidates]
    batch = Batch([task.piece.text] * count, sounds, [task.reference] * count, tools.codec.rate)
    with timed(tools, "verifier"):
        verdicts = scorer.score(batch, ended)
    for candidate, verdict in zip(candidates, verdicts, strict=True):
        candidate.scores = candidate.scores | verdict.scores
        candidate.stages, candidate.key = verdict.stages, verdict.key


@contextmanager
def _as_fast_as_the_lm(tools: Tools) -> Iterator[Codec]:
    """The codec in the language model's precision, for audio that only verifiers hear."""
    fast = tools.backend.dtype == torch.bfloat16
    with torch.autocast(tools.codec.model.device.type, torch.bfloat16, enabled=fast):
        yield tools.codec.for_autocast if fast else tools.codec

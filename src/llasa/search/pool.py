"""Runs the rows of one chunk and turns them into candidates.

best_of.py and beam.py decide which rows to keep. All rows share one prefill, and no row is computed twice. A pool keeps
what it has found, so that nothing is lost when the search is stopped.
"""

import time
from dataclasses import dataclass

import numpy as np

from llasa.engine import State
from llasa.search.score import decode_whole, score
from llasa.search.task import Task, Tools, timed
from llasa.speak.account import Candidate
from llasa.speak.takes import row_count
from llasa.verifiers.sanity import repeats

STEP = 50  # codes between two checks for rows that have stopped or loop
FIRST = 2  # with a deadline: samples in the first round, which shows how long one takes


@dataclass(frozen=True, eq=False)
class Rows:
    """A state of the backend, and the candidate's number of each row."""

    state: State
    numbers: list[int]


class Pool:
    """Rows of one chunk.

    Attributes:
        found: candidates that have ended, were condemned, or were dropped unfinished.
        scored: those that all verifiers have scored.
        unfinished: rows, and the indices of those that may be continued, best first: `finish_best` chooses from them.
    """

    def __init__(self, tools: Tools, task: Task) -> None:
        self.tools, self.task = tools, task
        self.found: list[Candidate] = []
        self.scored: list[Candidate] = []
        self.unfinished: tuple[Rows, list[int]] | None = None
        self._begun: set[int] = set()
        self._next = 1  # number of the next candidate

    def prefill(self) -> Rows:
        """One row without a token: candidate 0, from which all others are forked."""
        piece, task = self.task.piece, self.task
        with timed(self.tools, "lm"):
            prompts, least = [piece.prompt], [piece.least]
            state = self.tools.backend.start(prompts, 1, [task.seed], task.sampling, piece.limit, least)
        return Rows(state, [0])

    def number(self, rows: Rows, places: list[int]) -> list[int]:
        """Candidates' numbers for copies of rows: the first copy of a row keeps its number, the others get new ones."""
        numbers: list[int] = []
        for place in places:
            number = rows.numbers[place]
            if number in numbers:
                number, self._next = self._next, self._next + 1
            numbers.append(number)
        return numbers

    def select(self, rows: Rows, places: list[int], numbers: list[int], anew: bool = False) -> Rows:
        """The rows at these places, under these numbers; `rows` stay usable.

        Args:
            anew: whether every row gets the random numbers of its candidate; otherwise only copies get new ones.
        """
        with timed(self.tools, "lm"):
            state = self.tools.backend.select(rows.state, places, self.task.seeds(numbers) if anew else None)
        self.tools.account.rows += len(set(numbers) - self._begun)
        self._begun |= set(numbers)
        return Rows(state, numbers)

    def extend(self, rows: Rows, tokens: int) -> Rows:
        """The rows with up to `tokens` more tokens each."""
        before = sum(map(len, rows.state.tokens))
        with timed(self.tools, "lm"):
            state = self.tools.backend.extend(rows.state, tokens)
        self.tools.account.tokens += sum(map(len, state.tokens)) - before
        self.task.on_tokens(self.tools.account.tokens)
        return Rows(state, rows.numbers)

    def peek(self, rows: Rows, places: list[int], ahead: int) -> list[np.ndarray]:
        """The codes of some rows, and `ahead` more of each, sampled in a copy that is then dropped."""
        if ahead and places:
            rows = self.extend(self.select(rows, places, [rows.numbers[place] for place in places]), ahead)
            places = list(range(len(places)))
        return [self.tools.vocabulary.codes(rows.state.tokens[place]) for place in places]

    def candidate(self, rows: Rows, place: int) -> Candidate:
        """A row as a candidate, with the codes that it has so far."""
        codes, finished = self.tools.vocabulary.codes(rows.state.tokens[place]), rows.state.finished[place]
        distance = self.task.piece.distance(len(codes), finished)
        return Candidate(self.task.number, rows.numbers[place], codes, finished, distance)

    def split(self, rows: Rows) -> tuple[list[int], list[Candidate]]:
        """Indices of the unfinished rows; and the rows that have stopped or loop, as candidates not decoded yet."""
        unfinished, stopped = [], []
        for place in range(len(rows.numbers)):
            candidate, ended = self.candidate(rows, place), rows.state.stopped[place]
            if ended and not self.task.piece.is_plausible(len(candidate.codes), candidate.finished):
                candidate.condemned = "stops at once" if candidate.finished else "never ends"
            elif repeats(candidate.codes):
                candidate.condemned = "repeats itself"
            if ended or candidate.condemned:
                stopped.append(candidate)
            else:
                unfinished.append(place)
        self.found += stopped
        return unfinished, stopped

    def finish(self, rows: Rows, places: list[int]) -> None:
        """Runs rows to their ends and scores them, as many at once as fit the memory and, with a deadline, the time.

        Args:
            places: indices of the rows; a row named several times is continued in several ways. All get new random
                numbers.
        """
        task, numbers = self.task, self.number(rows, places)
        most = row_count(self.tools.backend, len(task.piece.prompt) + task.piece.limit)
        count, size = 0, most if task.deadline is None else FIRST
        while count < len(places) and size > 0:
            began = time.perf_counter()
            part = slice(count, count + size)
            self.score(self._run(self.select(rows, places[part], numbers[part], anew=True)))
            done = len(places[part])
            count += done
            if task.deadline is not None:
                each = (time.perf_counter() - began) / done
                size = min(most, int((task.deadline - time.perf_counter()) / each))

    def finish_best(self) -> None:
        """Runs the best unfinished row to its end, unless there is a sound candidate already."""
        if self.unfinished is None or any(candidate.sound for candidate in self.found):
            return
        rows, places = self.unfinished
        known = {candidate.number for candidate in self.found}
        self.finish(rows, [place for place in places if rows.numbers[place] not in known][:1])

    def score(self, candidates: list[Candidate]) -> None:
        """Scores whole candidates with all verifiers."""
        score(self.tools, self.task, candidates, self.tools.scorer)
        self.scored += candidates

    def _run(self, rows: Rows) -> list[Candidate]:
        """Runs rows to their ends and decodes them; returns the candidates with nothing wrong."""
        ended: list[Candidate] = []
        while rows.numbers:
            rows = self.extend(rows, STEP)
            unfinished, stopped = self.split(rows)
            ended += stopped
            numbers = [rows.numbers[place] for place in unfinished]
            if stopped:
                rows = self.select(rows, unfinished, numbers) if unfinished else Rows(rows.state, [])
        return decode_whole(self.tools, self.task, ended)

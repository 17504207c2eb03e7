"""Several verifiers as one judge: weighted sums, thresholds, cascades, functions of the user's own.

As it is written: `content=1,speaker=0.5` is a sum with weights (1 where there is none). `speaker>=0.7` or, with a
weight, `speaker>=0.7=0.5` puts whoever misses the threshold below all who meet it. `content/4/whisper=1,speaker=0.5` is
a cascade: all candidates are judged by what stands first, the best 4 by what follows.

Knows verifiers by their protocol alone; knows nothing of searches.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from llasa.errors import LlasaError
from llasa.loading import first_line
from llasa.verifiers import check_name, load_verifier
from llasa.verifiers.protocol import Verifier

Function = Callable[[Sequence[str], Sequence[np.ndarray], Sequence[np.ndarray | None]], Any]
Verify = str | Function | Sequence[str | Function]

_CUT = re.compile(r"/(\d+)/")  # a hub id has a slash too, but no number between two of them
_TERM = re.compile(r"(?P<name>[^=<>]+)(?:>=(?P<least>[^=<>]*))?(?:=(?P<weight>[^=<>]*))?")
_FORM = "write content=1,speaker=0.5, a threshold as speaker>=0.7, a cascade as content/4/whisper"


@dataclass(frozen=True)
class Term:
    """One verifier in a sum: its name or the function itself, its weight, and the least score that will do."""

    what: str | Function
    weight: float = 1.0
    least: float | None = None

    @property
    def name(self) -> str:
        if isinstance(self.what, str):
            return self.what
        return getattr(self.what, "__name__", type(self.what).__name__)

    def __str__(self) -> str:
        least = "" if self.least is None else f">={self.least:g}"
        return f"{self.name}{least}={self.weight:g}"


@dataclass(frozen=True)
class Stage:
    """A sum of verifiers, and how many of the candidates it judges: None for all."""

    keep: int | None
    terms: list[Term]


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one candidate.

    Attributes:
        scores: of every verifier that judged it, by name.
        total: the weighted sum of the last stage that judged it.
        key: for comparing candidates that were judged by one judge, the greatest is the best: how many stages judged
            it, how many thresholds it met, and the total.
    """

    scores: dict[str, float]
    total: float
    key: tuple[int, int, float]


class Outcome:
    """A user's function as a verifier of whole utterances."""

    process = False
    needs_text = False
    needs_reference = False

    def __init__(self, name: str, function: Function) -> None:
        self.name, self.function = name, function

    def score(
        self,
        texts: Sequence[str],
        audios: Sequence[np.ndarray],
        references: Sequence[np.ndarray | None],
        ended: bool = True,
    ) -> np.ndarray:
        return np.asarray(self.function(texts, audios, references), float)


@dataclass(eq=False)
class Judge:
    """Verifiers weighed together. Made by `make_judge`.

    Attributes:
        stages: what is judged by what, in order.
        verifiers: by the names they were asked for. One that fails while judging is taken out, and the rest goes on
            without it.
        notes: a line for every verifier that was taken out.
    """

    stages: list[Stage]
    verifiers: dict[str, Verifier]
    notes: list[str] = field(default_factory=list)

    @property
    def written(self) -> str:
        """The judge in writing, always in the same form."""
        return format_stages(self.stages)

    @property
    def needs_reference(self) -> bool:
        return bool(self._comparing())

    @property
    def process(self) -> "Judge | None":
        """The judge reduced to verifiers that can judge a fragment, with the same notes; None if there is none."""
        able = {name for name, verifier in self.verifiers.items() if verifier.process}
        stages = [Stage(stage.keep, [term for term in stage.terms if term.name in able]) for stage in self.stages]
        stages = [stage for stage in stages if stage.terms]
        return Judge(stages, self.verifiers, self.notes) if stages else None

    def check(self, reference: bool) -> None:
        """Asserts that there is a reference if a verifier needs one.

        Raises:
            LlasaError: there is none.
        """
        wanting = self._comparing()
        if wanting and not reference:
            raise LlasaError(f"{wanting[0]} compares with a reference voice and there is none: pass --voice")

    def _comparing(self) -> list[str]:
        """The verifiers that need a reference."""
        asked = (self.verifiers.get(term.name) for stage in self.stages for term in stage.terms)
        return [verifier.name for verifier in asked if verifier and verifier.needs_reference]

    def judge(
        self,
        texts: Sequence[str],
        audios: Sequence[np.ndarray],
        references: Sequence[np.ndarray | None],
        ended: bool = True,
    ) -> list[Verdict]:
        """A verdict on each of N candidates, whose keys compare them.

        A verifier that raises, or whose scores are not N finite numbers, is left out from then on, with a note; with
        none left, all totals are 0.

        Args:
            texts, audios, references, ended: as in `Verifier.score`.
        """
        verdicts = [Verdict({}, 0.0, (0, 0, 0.0)) for _ in texts]
        for stage in self.stages:
            best = sorted(range(len(texts)), key=lambda i: verdicts[i].key, reverse=True)[: stage.keep]
            chosen = sorted(best)
            said, heard = [texts[i] for i in chosen], [audios[i] for i in chosen]
            known = [references[i] for i in chosen]
            found = [(term, self._scores(term.name, said, heard, known, ended)) for term in stage.terms if chosen]
            columns = [(term, scores) for term, scores in found if scores is not None]
            if not columns:
                continue
            for row, i in enumerate(chosen):
                before = verdicts[i]
                scores = {term.name: float(column[row]) for term, column in columns}
                total = sum(term.weight * scores[term.name] for term, _ in columns)
                met = sum(term.least is not None and scores[term.name] >= term.least for term, _ in columns)
                reached, already, _ = before.key
                verdicts[i] = Verdict(before.scores | scores, total, (reached + 1, already + met, total))
        return verdicts

    def _scores(
        self,
        name: str,
        texts: Sequence[str],
        audios: Sequence[np.ndarray],
        references: Sequence[np.ndarray | None],
        ended: bool,
    ) -> np.ndarray | None:
        """A verifier's scores, or None if it has failed, now or before."""
        verifier = self.verifiers.get(name)
        if verifier is None:
            return None
        try:
            scores = np.asarray(verifier.score(texts, audios, references, ended), dtype=np.float64)
            if scores.shape != (len(texts),):
                problem = f"it gave scores of shape {scores.shape} for {len(texts)} candidates"
            elif not np.isfinite(scores).all():
                problem = "it gave a score that is not a number"
            else:
                return scores
        except Exception as error:  # whatever a library or a user's function raises must not end the search
            problem = first_line(error) or type(error).__name__
        del self.verifiers[name]
        self.notes.append(f"{name} failed ({problem}): the search goes on without it")
        return None


def make_judge(verify: Verify, device: str = "cpu") -> Judge:
    """A judge as it is written, with its verifiers loaded.

    Raises:
        LlasaError: it is not written as it should be, or a verifier cannot be loaded.
    """
    stages = parse(verify)
    verifiers: dict[str, Verifier] = {}
    for term in (term for stage in stages for term in stage.terms):
        if not isinstance(term.what, str):
            verifiers[term.name] = Outcome(term.name, term.what)
        elif term.name not in verifiers:
            verifiers[term.name] = load_verifier(term.name, device)
    return Judge(stages, verifiers)


def parse(verify: Verify) -> list[Stage]:
    """Reads what is written; several items in a row are read as if commas stood between them.

    Raises:
        LlasaError: there is nothing, or something that is no verifier, threshold or weight; or one is there twice.
    """
    items = [verify] if isinstance(verify, str) or callable(verify) else list(verify)
    stages = [Stage(None, [])]
    for item in items:
        if not isinstance(item, str):
            if not callable(item):
                raise LlasaError(f"{item!r} is no verifier: pass its name or a function")
            stages[-1].terms.append(Term(item))
            continue
        sums = _CUT.split(item)
        stages[-1].terms.extend(_terms(sums[0]))
        for keep, written in zip(sums[1::2], sums[2::2], strict=True):
            if int(keep) < 1:
                raise LlasaError(f"{item} keeps {keep} candidates: keep at least 1")
            stages.append(Stage(int(keep), _terms(written)))
    _check(stages)
    return stages


def format_stages(stages: Sequence[Stage]) -> str:
    """Stages in writing, weights and all: what `parse` reads, where there are no functions in it."""
    sums = [",".join(map(str, stage.terms)) for stage in stages]
    return sums[0] + "".join(f"/{stage.keep}/{terms}" for stage, terms in zip(stages[1:], sums[1:], strict=True))


def _terms(written: str) -> list[Term]:
    return [_term(part.strip()) for part in written.split(",")]


def _term(written: str) -> Term:
    if not written:
        raise LlasaError(f"a verifier is missing: {_FORM}")
    match = _TERM.fullmatch(written)
    if not match:
        raise LlasaError(f"cannot read {written!r} as a verifier: {_FORM}")
    name = match["name"].strip()
    check_name(name)
    weight = 1.0 if match["weight"] is None else _number(match["weight"], f"the weight of {name}")
    if weight < 0:
        raise LlasaError(f"the weight of {name} is {match['weight'].strip()}: it must not be negative")
    least = None if match["least"] is None else _number(match["least"], f"the threshold of {name}")
    return Term(name, weight, least)


def _number(written: str, what: str) -> float:
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LlasaError(f"{what} is {written.strip()!r}, which is no number: {_FORM}")
    return value


def _check(stages: Sequence[Stage]) -> None:
    """Every stage has a verifier and each once, later ones judge no more than earlier ones, a name is one thing."""
    owners: dict[str, Any] = {}
    for stage in stages:
        if not stage.terms:
            raise LlasaError(f"there is no verifier: {_FORM}")
        names = [term.name for term in stage.terms]
        for term in stage.terms:
            if names.count(term.name) > 1 or owners.setdefault(term.name, term.what) != term.what:
                raise LlasaError(f"{term.name} is there twice: name every verifier once")
    for earlier, later in pairwise(stages):
        if earlier.keep is not None and later.keep is not None and later.keep > earlier.keep:
            raise LlasaError(f"a later stage cannot judge more ({later.keep}) than the one before ({earlier.keep})")

"""Combines several verifiers into one score: weighted sums, thresholds, cascades, and the user's own functions.

`content=1,speaker=0.5` is a weighted sum; a weight left out is 1. With a threshold, `speaker>=0.7` or with a weight
`speaker>=0.7=0.5`, candidates that miss it rank below all that meet it. `content/4/whisper=1,speaker=0.5` is a cascade:
the first verifiers score all candidates, and the later ones only the best 4. A model's path starts with `/`, `.` or
`~`, and ends before the next `=`, or before a comma and a verifier's name.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from llasa.errors import LlasaError, first_line
from llasa.verifiers import NAMES, PROCESS, check_name, load_verifier
from llasa.verifiers.protocol import Batch, Verifier

Key = tuple[int, int, float]
Function = Callable[[Batch], Any]
Verify = str | Function | Verifier | Sequence[str | Function | Verifier]

# Matches the separators between verifiers. It matches paths as a whole, so that commas and slashes in them do not
# separate. A hub id has a slash too, but never a number between two slashes.
_BETWEEN = re.compile(rf":\s*[/.~](?:(?!,\s*(?:{'|'.join(NAMES)})\s*(?:[:=>/,]|$))[^=<>])*|(?P<sign>,|/(?P<keep>\d+)/)")
_TERM = re.compile(r"(?P<name>[^=<>]+)(?:>=(?P<least>[^=<>]*))?(?:=(?P<weight>[^=<>]*))?")
_FORM = "write content=1,speaker=0.5, a threshold as speaker>=0.7, a cascade as content/4/whisper"


@dataclass(frozen=True)
class Term:
    """One verifier in a sum: the verifier or its name, its weight, and its threshold."""

    what: str | Function | Verifier
    weight: float = 1.0
    least: float | None = None

    @property
    def name(self) -> str:
        if isinstance(self.what, str):
            return self.what
        if isinstance(self.what, Verifier):
            return self.what.name
        return getattr(self.what, "__name__", type(self.what).__name__)

    @property
    def process(self) -> bool:
        """Whether it can score a fragment."""
        if isinstance(self.what, str):
            return self.what.partition(":")[0] in PROCESS
        return isinstance(self.what, Verifier) and self.what.process

    def __str__(self) -> str:
        least = "" if self.least is None else f">={self.least:g}"
        return f"{self.name}{least}={self.weight:g}"


@dataclass(frozen=True)
class Stage:
    """A sum of verifiers, and how many of the candidates it scores: None for all."""

    keep: int | None
    terms: list[Term]


@dataclass(frozen=True)
class Verdict:
    """A scorer's result for one candidate.

    Attributes:
        scores: the scores, by the verifiers' names.
        stages: how many stages have scored it.
        key: all of this combined, for sorting (`Scorer.key`).
    """

    scores: dict[str, float]
    stages: int
    key: Key


class Outcome:
    """A user's function as a verifier of whole utterances."""

    process = False
    needs_text = False
    needs_reference = False

    def __init__(self, name: str, function: Function) -> None:
        self.name, self.function = name, function

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        return np.asarray(self.function(batch), float)


@dataclass(eq=False)
class Scorer:
    """Verifiers combined into one score. `make_scorer` makes it.

    Attributes:
        stages: the stages of the cascade, in order; a plain sum is one stage.
        verifiers: the verifiers by name. A verifier that fails is removed, and the others continue without it.
        failures: a line for every verifier that failed, for some texts or for good.
    """

    stages: list[Stage]
    verifiers: dict[str, Verifier]
    failures: list[str] = field(default_factory=list)

    @property
    def written(self) -> str:
        """The scorer as text, always in the same form."""
        return format_stages(self.stages)

    @property
    def process(self) -> "Scorer | None":
        """A scorer of only the verifiers that can score a fragment; None if there is none. It shares `failures`."""
        able = {name for name, verifier in self.verifiers.items() if verifier.process}
        stages = [Stage(stage.keep, [term for term in stage.terms if term.name in able]) for stage in self.stages]
        stages = [stage for stage in stages if stage.terms]
        return Scorer(stages, self.verifiers, self.failures) if stages else None

    def check(self, reference: bool) -> None:
        """Checks that there is a reference if a verifier needs one.

        Raises:
            LlasaError: there is none.
        """
        asked = (self.verifiers.get(term.name) for stage in self.stages for term in stage.terms)
        wanting = [verifier.name for verifier in asked if verifier and verifier.needs_reference]
        if wanting and not reference:
            raise LlasaError(f"{wanting[0]} compares with a reference voice, and there is none: pass --voice")

    def score(self, batch: Batch, ended: bool = True) -> list[Verdict]:
        """Scores N candidates; the verdicts' keys compare them.

        A verifier that raises, or whose scores are not N finite numbers, is removed for good. One that raises a
        `LlasaError`, because it cannot score such texts, is skipped this time only. Both are noted in `failures`. With
        no verifier left, all candidates are equal.

        Args:
            batch, ended: as in `Verifier.score`.
        """
        scores: list[dict[str, float]] = [{} for _ in batch.texts]
        chosen = list(range(len(batch)))
        reached = [0] * len(batch)
        for number, stage in enumerate(self.stages):
            chosen.sort(key=lambda i: self.key(scores[i], number), reverse=True)
            chosen = sorted(chosen[: stage.keep])
            some = batch.pick(chosen)
            for term in stage.terms if chosen else ():
                found = self._scores(term.name, some, ended)
                if found is not None:
                    for i, score in zip(chosen, found, strict=True):
                        scores[i][term.name] = float(score)
            for i in chosen:
                reached[i] = number + 1
        return [Verdict(own, count, self.key(own, count)) for own, count in zip(scores, reached, strict=True)]

    def key(self, scores: Mapping[str, float], stages: int) -> Key:
        """Sorts candidates; the greatest is the best.

        It consists of how many stages scored the candidate, how many thresholds it met, and the weighted sum of the
        last stage. Earlier scores of verifiers that have failed since do not count.

        Args:
            scores: the scores, by the verifiers' names.
            stages: how many stages have scored it.
        """
        sums = [[t for t in stage.terms if t.name in self.verifiers and t.name in scores] for stage in self.stages]
        passed = [terms for terms in sums[:stages] if terms]
        met = sum(term.least is not None and scores[term.name] >= term.least for terms in passed for term in terms)
        return len(passed), met, sum(term.weight * scores[term.name] for term in passed[-1]) if passed else 0.0

    def _scores(self, name: str, batch: Batch, ended: bool) -> np.ndarray | None:
        """A verifier's scores, or None if it has failed, now or before, or cannot score these texts."""
        verifier = self.verifiers.get(name)
        if verifier is None:
            return None
        try:
            scores = np.asarray(verifier.score(batch, ended), dtype=np.float64)
            if scores.shape != (len(batch),):
                problem = f"it gave scores of shape {scores.shape} for {len(batch)} candidates"
            elif not np.isfinite(scores).all():
                problem = "it gave a score that is not a finite number"
            else:
                return scores
        except LlasaError as error:  # for example a language that it does not know: it may know the next chunk's
            self._fail(f"{name} cannot score this text ({error})")
            return None
        except Exception as error:  # an error in a library or in the user's function must not end the search
            problem = first_line(error) or type(error).__name__
        del self.verifiers[name]
        self._fail(f"{name} failed ({problem})")
        return None

    def _fail(self, line: str) -> None:
        if line not in self.failures:
            self.failures.append(line)


def make_scorer(verify: Verify, load: Callable[[str], Verifier] = load_verifier, beam: bool = False) -> Scorer:
    """Makes a scorer from its description, and loads its verifiers.

    Args:
        verify, beam: as in `parse`.
        load: the function that loads a verifier by its name.

    Raises:
        LlasaError: as `parse`, or a verifier cannot be loaded.
    """
    stages = parse(verify, beam)
    verifiers: dict[str, Verifier] = {}
    for term in (term for stage in stages for term in stage.terms):
        if isinstance(term.what, Verifier):
            verifiers[term.name] = term.what
        elif not isinstance(term.what, str):
            verifiers[term.name] = Outcome(term.name, term.what)
        elif term.name not in verifiers:
            verifiers[term.name] = load(term.name)
    return Scorer(stages, verifiers)


def parse(verify: Verify, beam: bool = False) -> list[Stage]:
    """Reads the description of a scorer. A list is read as if commas stood between its items.

    Args:
        verify: names, functions and verifiers.
        beam: whether it has to score fragments.

    Raises:
        LlasaError: the description is empty or wrong, names a verifier twice, or has no verifier that can score
            fragments although `beam` asks for one.
    """
    stages = [Stage(None, [])]
    for item in verify if isinstance(verify, list | tuple) else [verify]:
        if isinstance(item, str):
            _read(item, stages)
        elif isinstance(item, Verifier) or callable(item):
            stages[-1].terms.append(Term(item))
        else:
            raise LlasaError(f"{item!r} is not a verifier: pass a name, a function, or a verifiers.Verifier")
    _check(stages)
    if beam and not any(term.process for stage in stages for term in stage.terms):
        raise LlasaError(
            f"a beam needs a verifier that can score fragments, which {format_stages(stages)} cannot: "
            "use content or speaker, or best-of"
        )
    return stages


def format_stages(stages: Sequence[Stage]) -> str:
    """The stages as text, with all weights. `parse` can read it, unless it names functions."""
    sums = [",".join(map(str, stage.terms)) for stage in stages]
    return sums[0] + "".join(f"/{stage.keep}/{terms}" for stage, terms in zip(stages[1:], sums[1:], strict=True))


def _read(written: str, stages: list[Stage]) -> None:
    """Reads a text; adds its verifiers to the last stage, and new stages after it."""
    start = 0
    for sign in (found for found in _BETWEEN.finditer(written) if found["sign"]):
        stages[-1].terms.append(_term(written[start : sign.start()].strip()))
        start = sign.end()
        if sign["keep"]:
            if int(sign["keep"]) < 1:
                raise LlasaError(f"{written} keeps {sign['keep']} candidates: keep at least 1")
            stages.append(Stage(int(sign["keep"]), []))
    stages[-1].terms.append(_term(written[start:].strip()))


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
        raise LlasaError(f"{what} is {written.strip()!r}, which is not a number: {_FORM}")
    return value


def _check(stages: Sequence[Stage]) -> None:
    """Checks the stages.

    Raises:
        LlasaError: a stage is empty, a verifier is named twice in one, a name stands for two things, or a later stage
            keeps more candidates than an earlier one.
    """
    owners: dict[str, Any] = {}
    for stage in stages:
        if not stage.terms:
            raise LlasaError(f"there is no verifier: {_FORM}")
        names = [term.name for term in stage.terms]
        for term in stage.terms:
            if names.count(term.name) > 1 or owners.setdefault(term.name, term.what) != term.what:
                raise LlasaError(f"{term.name} is named twice: name every verifier once")
    for earlier, later in pairwise(stages):
        if earlier.keep is not None and later.keep is not None and later.keep > earlier.keep:
            raise LlasaError(
                f"a stage keeps {later.keep} candidates, the one before it only {earlier.keep}: "
                "keep fewer in later stages"
            )

"""Several verifiers as one judge: weighted sums, thresholds, cascades, functions of the user's own.

As it is written: `content=1,speaker=0.5` is a sum with weights (1 where there is none). `speaker>=0.7` or, with a
weight, `speaker>=0.7=0.5` puts whoever misses the threshold below all who meet it. `content/4/whisper=1,speaker=0.5` is
a cascade: all candidates are judged by what stands first, the best 4 by what follows. A model's path starts with `/`,
`.` or `~`, and goes on to the next `=`, or to a comma that a verifier's name follows.

Knows verifiers by their protocol alone; knows nothing of searches.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from llasa.errors import LlasaError
from llasa.loading import first_line
from llasa.verifiers import NAMES, PROCESS, check_name, load_verifier
from llasa.verifiers.protocol import Verifier

Key = tuple[int, int, float]
Function = Callable[[Sequence[str], Sequence[np.ndarray], Sequence[np.ndarray | None]], Any]
Verify = str | Function | Verifier | Sequence[str | Function | Verifier]

# What stands between two verifiers, and paths, in which the same is no such thing. A hub id has a slash too, but no
# number between two of them.
_BETWEEN = re.compile(rf":\s*[/.~](?:(?!,\s*(?:{'|'.join(NAMES)})\s*(?:[:=>/,]|$))[^=<>])*|(?P<sign>,|/(?P<keep>\d+)/)")
_TERM = re.compile(r"(?P<name>[^=<>]+)(?:>=(?P<least>[^=<>]*))?(?:=(?P<weight>[^=<>]*))?")
_FORM = "write content=1,speaker=0.5, a threshold as speaker>=0.7, a cascade as content/4/whisper"


@dataclass(frozen=True)
class Term:
    """One verifier in a sum: its name or itself, its weight, and the least score that will do."""

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
        """Whether it can judge a fragment."""
        if isinstance(self.what, str):
            return self.what.partition(":")[0] in PROCESS
        return isinstance(self.what, Verifier) and self.what.process

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
        stages: that judged it.
        key: of these (`Judge.key`).
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
        notes: a line for every verifier that was left out.
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

        A verifier that raises, or whose scores are not N finite numbers, is left out from then on, with a note; one
        that raises a `LlasaError`, since it cannot judge such texts, this time alone. With none left, all are equal.

        Args:
            texts, audios, references, ended: as in `Verifier.score`.
        """
        scores: list[dict[str, float]] = [{} for _ in texts]
        chosen = list(range(len(texts)))
        reached = [0] * len(texts)
        for number, stage in enumerate(self.stages):
            chosen.sort(key=lambda i: self.key(scores[i], number), reverse=True)
            chosen = sorted(chosen[: stage.keep])
            said, heard = [texts[i] for i in chosen], [audios[i] for i in chosen]
            known = [references[i] for i in chosen]
            for term in stage.terms if chosen else ():
                found = self._scores(term.name, said, heard, known, ended)
                if found is not None:
                    for i, score in zip(chosen, found, strict=True):
                        scores[i][term.name] = float(score)
            for i in chosen:
                reached[i] = number + 1
        return [Verdict(own, count, self.key(own, count)) for own, count in zip(scores, reached, strict=True)]

    def key(self, scores: Mapping[str, float], stages: int) -> Key:
        """For comparing candidates, the greatest is the best: how many stages judged it, how many thresholds it met,
        and the weighted sum of the last stage. Verifiers that have failed do not count, whatever they said before.

        Args:
            scores: by verifiers' names.
            stages: how many have judged it.
        """
        sums = [[t for t in stage.terms if t.name in self.verifiers and t.name in scores] for stage in self.stages]
        passed = [terms for terms in sums[:stages] if terms]
        met = sum(term.least is not None and scores[term.name] >= term.least for terms in passed for term in terms)
        return len(passed), met, sum(term.weight * scores[term.name] for term in passed[-1]) if passed else 0.0

    def _scores(
        self,
        name: str,
        texts: Sequence[str],
        audios: Sequence[np.ndarray],
        references: Sequence[np.ndarray | None],
        ended: bool,
    ) -> np.ndarray | None:
        """A verifier's scores, or None if it has failed, now or before, or cannot judge these texts."""
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
        except LlasaError as error:  # such as a language that it does not know: it may know that of the next chunk
            self._note(f"{name} cannot judge this ({error}): the search goes on without it")
            return None
        except Exception as error:  # whatever a library or a user's function raises must not end the search
            problem = first_line(error) or type(error).__name__
        del self.verifiers[name]
        self._note(f"{name} failed ({problem}): the search goes on without it")
        return None

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)


def make_judge(verify: Verify, load: Callable[[str], Verifier] = load_verifier, beam: bool = False) -> Judge:
    """A judge as it is written, with its verifiers loaded.

    Args:
        verify, beam: as in `parse`.
        load: what gives a verifier by its name.

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
    return Judge(stages, verifiers)


def parse(verify: Verify, beam: bool = False) -> list[Stage]:
    """Reads what is written; several items in a row are read as if commas stood between them.

    Args:
        verify: names, functions and verifiers.
        beam: whether fragments are to be judged.

    Raises:
        LlasaError: there is nothing, or something that is no verifier, threshold or weight; or one is there twice; or
            none can judge a fragment and one has to.
    """
    stages = [Stage(None, [])]
    for item in verify if isinstance(verify, list | tuple) else [verify]:
        if isinstance(item, str):
            _read(item, stages)
        elif isinstance(item, Verifier) or callable(item):
            stages[-1].terms.append(Term(item))
        else:
            raise LlasaError(f"{item!r} is no verifier: pass its name, a function, or a verifiers.Verifier")
    _check(stages)
    if beam and not any(term.process for stage in stages for term in stage.terms):
        raise LlasaError(
            f"a beam needs a verifier that can judge fragments, which {format_stages(stages)} cannot: "
            "use content or speaker, or best-of"
        )
    return stages


def format_stages(stages: Sequence[Stage]) -> str:
    """Stages in writing, weights and all: what `parse` reads, where there are no functions in it."""
    sums = [",".join(map(str, stage.terms)) for stage in stages]
    return sums[0] + "".join(f"/{stage.keep}/{terms}" for stage, terms in zip(stages[1:], sums[1:], strict=True))


def _read(written: str, stages: list[Stage]) -> None:
    """Adds what is written to the last stage, and stages of its own."""
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

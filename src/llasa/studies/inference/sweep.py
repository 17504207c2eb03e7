"""Searches every sentence of a study with each strategy, and measures the results with independent listeners.

`plots.py` evaluates the stored results and `summary.py` writes them. Best-of-n is sampled once, with the most
candidates; a search of n would have had the first n of them. A sentence's results are one JSON file, written when all
of them exist, so a killed study continues where it was.

Results name sentences by number, from 0. Only the stored files and the report contain their words.
"""

import json
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from llasa import audio
from llasa.errors import LlasaError, NoSound
from llasa.files import exists
from llasa.measure.independent import LISTENERS, Figure
from llasa.measure.tables import write_text
from llasa.search.strategy import parse as parse_strategy
from llasa.speak.account import Account, Candidate, best
from llasa.speak.speech import Speech, Utterance, join
from llasa.studies import workers
from llasa.studies.storage import open_folder, read
from llasa.tts import Llasa
from llasa.verifiers import RATE, campplus, combine

BEST_OF = "best-of"
MATCHED = "best-of at the tokens of "  # and a strategy: the first candidates that cost as much as that did
TIMED = 4  # sentences for which a search of every n is run and timed
STORED = "sentences"


@dataclass(frozen=True)
class SweepSettings:
    """The settings that two comparable studies share. Made by `make_settings`."""

    model: str
    verify: str
    strategies: tuple[str, ...]
    most: int
    listeners: tuple[str, ...]
    seed: int

    @property
    def sizes(self) -> list[int]:
        """The n of best-of-n: 1, 2, 4 ... and the most."""
        return sorted({min(2**k, self.most) for k in range(self.most.bit_length() + 1)})

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures by key, the verifier's own score first."""
        found = {"score": Figure(f"the verifier's own score, {self.verify}")}
        for name in self.listeners:
            found |= LISTENERS[name].figures
        return found


@dataclass(frozen=True)
class SweepJob:
    """One sentence to say in one voice, which is a name, a voice file, or None for the model's default."""

    number: int
    text: str
    voice: str | None


def make_settings(
    model: str, verify: str, strategies: Sequence[str], most: int, wanted: Sequence[str] | None, seed: int = 0
) -> SweepSettings:
    """Checks and makes the settings of a study.

    Args:
        verify: verifiers, in the form that `combine.parse` reads.
        strategies: best-of, which is always included, and others that `search.parse` reads.
        most: candidates of the largest best-of-n.
        wanted: names of listeners; by default all that are not verifiers here and whose package an extra installs.

    Raises:
        LlasaError: a name is unknown, the verifier is a cascade, a listener is also a verifier or its package is
            missing, or `most` is too small to compare anything.
    """
    if most < 2:
        raise LlasaError(f"the best of {most} compares with nothing: pass --most 2 or more")
    stages = combine.parse(verify)
    if len(stages) > 1:
        # Which candidates pass its first stage depends on how many there are.
        raise LlasaError(f"{verify} is a cascade, whose choice among the first n is not known: study a plain sum")
    used = {term.name.partition(":")[0] for term in stages[0].terms}
    for name in wanted or ():
        if name not in LISTENERS:
            raise LlasaError(f"there is no listener called {name}: choose from {', '.join(LISTENERS)}")
        if (verifier := LISTENERS[name].verifier) in used:
            raise LlasaError(f"{name} is the verifier {verifier}, which chooses here: use another listener")
    chosen = [
        name
        for name, listener in LISTENERS.items()
        if (name in wanted if wanted else listener.verifier not in used and not listener.on_request)
    ]
    if "campplus" in chosen:
        campplus.find()  # before hours of sampling
    others = list(dict.fromkeys(name for name in strategies if name != BEST_OF))
    for name in others:
        if not parse_strategy(name).keep:
            raise LlasaError(f"best-of is studied from 1 to --most: write best-of instead of {name}")
    return SweepSettings(model, combine.format_stages(stages), tuple(others), most, tuple(chosen), seed)


class Study:
    """A model and listeners at work on sentences.

    Raises:
        LlasaError: the model or a verifier cannot be loaded.
    """

    def __init__(self, settings: SweepSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder / STORED
        self.model = Llasa.load(settings.model)
        self.warm = False

    def run(self, job: SweepJob) -> None:
        """Searches, measures and stores one sentence.

        Raises:
            LlasaError: there is no such voice, a listener or verifier has no reference, or a verifier failed.
        """
        reference = self._reference(job)
        found: dict[str, Any] = asdict(job)
        try:
            takes, timed = self._takes(job)
        except NoSound:
            found["left_out"] = "it ended without a sound"
        else:
            if takes is None:
                found["left_out"] = "it is spoken in several chunks"
            else:
                found["takes"] = self._judged(job, reference, takes)
                found["timed"] = timed
        write_text(self.folder / f"{job.number:04d}.json", json.dumps(found, ensure_ascii=False, indent=1) + "\n")

    def _takes(self, job: SweepJob) -> tuple[list[tuple[dict[str, Any], Candidate]] | None, dict[int, Any]]:
        """What every strategy takes and what it cost, and the time of searches of every n if that is to be measured.

        None instead of the takes if the sentence has several chunks, whose candidates depend on what was chosen before.
        """
        settings = self.settings
        if not self.warm:  # the first search loads its verifiers, which is not part of a sentence's cost
            self._say(job, "best-of:1")
            self.warm = True
        pool, spent = self._say(job, f"best-of:{settings.most}")
        if len(pool.texts) != 1:
            return None, {}
        numbered = sorted(pool.candidates, key=lambda one: one.number)
        tokens = np.cumsum([len(one.codes) + one.finished for one in numbered])
        tokens = np.rint(tokens * pool.tokens / tokens[-1]).astype(int)

        def best_of(count: int, strategy: str = BEST_OF) -> tuple[dict[str, Any], Candidate]:
            taken = best(numbered[:count])
            if taken is None or not taken.scores:  # if all are condemned, a search scores only its choice
                again, _ = self._say(job, f"best-of:{count}")
                taken = next(one for one in again.candidates if one.chosen)
            facts = {"strategy": strategy, "n": count, "tokens": int(tokens[count - 1])}
            return facts | {"seconds": spent if count == settings.most else None}, taken

        takes = [best_of(count) for count in settings.sizes]
        for strategy in settings.strategies:
            account, seconds = self._say(job, strategy)
            taken = next(one for one in account.candidates if one.chosen)
            parsed = parse_strategy(strategy)
            facts = {"strategy": strategy, "n": max(parsed.rows, parsed.samples), "tokens": account.tokens}
            takes.append((facts | {"seconds": seconds}, taken))
            enough = min(int(np.searchsorted(tokens, account.tokens)) + 1, settings.most)
            takes.append(best_of(enough, MATCHED + strategy))
        timed: dict[int, Any] = {}
        for count in settings.sizes[:-1] if job.number < TIMED else ():
            account, seconds = self._say(job, f"best-of:{count}")
            timed[count] = [account.tokens, seconds]
        return takes, timed

    def _say(self, job: SweepJob, strategy: str) -> tuple[Account, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a search's warnings are in its account
            began = time.perf_counter()
            seed = self.settings.seed + job.number
            speech: Speech = self.model.say(job.text, job.voice, seed, search=strategy, verify=self.settings.verify)
            seconds = time.perf_counter() - began
        account = speech.search
        assert account is not None
        if account.failures:
            raise LlasaError(f"a study needs all its verifiers, and at sentence {job.number} {account.failures[0]}")
        return account, seconds

    def _reference(self, job: SweepJob) -> np.ndarray | None:
        """(R,) at 16 kHz: the reference for the speech, as the verifiers hear it."""
        voice = self.model.voice(job.voice)
        needing = [name for name in self.settings.listeners if LISTENERS[name].needs_reference]
        if voice is None:
            if needing:
                raise LlasaError(f"{needing[0]} compares with a reference voice, and there is none: pass --voices")
            return None
        return voice.sound(self.model.codec, RATE)

    def _judged(
        self, job: SweepJob, reference: np.ndarray | None, takes: list[tuple[dict[str, Any], Candidate]]
    ) -> list[dict[str, Any]]:
        """The takes with their scores and figures. A candidate that several strategies took is measured once."""
        heard: dict[bytes, dict[str, Any]] = {}
        result = []
        for facts, taken in takes:
            known = taken.codes.tobytes()
            if known not in heard:
                heard[known] = self._hear(job, reference, taken, f"{job.number:04d}-{len(heard)}.wav")
            result.append(facts | {"condemned": taken.condemned} | heard[known])
        return result

    def _hear(self, job: SweepJob, reference: np.ndarray | None, taken: Candidate, name: str) -> dict[str, Any]:
        # As a user hears it: a search decodes only its final choice in full precision.
        samples = self.model.codec.decode(taken.codes)
        said = join([Utterance(job.text, taken.codes, samples, 0.0, taken.finished)], self.model.rate)
        audio.save(self.folder / name, said, self.model.rate)
        sound = audio.resample(said, self.model.rate, RATE)
        figures: dict[str, tuple[float, float]] = {"score": (taken.key[-1], 1)}
        for listener in self.settings.listeners:
            figures |= LISTENERS[listener].hear(job.text, sound, reference)
        seconds = len(said) / self.model.rate
        return {"scores": taken.scores, "figures": figures, "seconds_of_audio": seconds, "wav": name}


def run(settings: SweepSettings, jobs: Sequence[SweepJob], folder: Path, processes: int = 1) -> Iterator[int]:
    """Does the jobs that are not done yet and yields how many are done, beginning with those of an earlier run.

    Every process has its own model and one thread.

    Raises:
        LlasaError: the folder belongs to another study or cannot be written, or as `Study`.
    """
    open_folder(folder, asdict(settings), f"{STORED}/*.json")
    todo = [job for job in jobs if not _is_done(job, folder)]
    done = len(jobs) - len(todo)
    yield done
    with one_thread():
        for _ in workers.share(partial(_work, settings, folder), todo, processes):
            done += 1
            yield done


@contextmanager
def one_thread() -> Iterator[None]:
    """Seconds are of one thread, in one process and in several."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _work(settings: SweepSettings, folder: Path, job: SweepJob) -> None:
    _study(settings, folder).run(job)


@lru_cache(maxsize=1)
def _study(settings: SweepSettings, folder: Path) -> Study:
    """A process's study, which it loads once."""
    return Study(settings, folder)


def _is_done(job: SweepJob, folder: Path) -> bool:
    path = folder / STORED / f"{job.number:04d}.json"
    if not exists(path):
        return False
    found = read(path)
    if (found.get("text"), found.get("voice")) != (job.text, job.voice):
        raise LlasaError(f"{path} belongs to another sentence or voice: name another folder, or remove this one")
    return True

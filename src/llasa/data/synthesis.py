"""Makes a synthetic corpus: a teacher reads a text file in many voices, in several processes, into shards.

Here is what all teachers share: which voice reads which text and how fast, the silence around it, its loudness, and
shards that appear whole or not at all. A teacher also gives the end of every phone if it can; the training of the
language model uses this alignment (`train/lm/data.py`).

Shards are Parquet: `id, text, audio (FLAC or Ogg Opus bytes), speaker, language, seconds, phones, ends`.
"""

import io
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from multiprocessing.connection import wait as wait_for_end
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from llasa.data.report import require_begun_with, write_json
from llasa.data.shards import AUDIO_SCHEMA, read_rows, write_shard
from llasa.data.teachers.teacher import RATE, Teacher, Unreadable, finish
from llasa.errors import LlasaError
from llasa.files import exists
from llasa.text.normalise import is_speakable, normalise

SHORTEST, LONGEST = 4, 170  # characters in a sentence
SHARD = 100  # utterances in a shard, so a process that is stopped loses only minutes
PACE = 15.0  # characters a second, a rough figure to plan hours with


class Sentence(NamedTuple):
    """A sentence of the corpus, and the form in which the teacher reads it."""

    text: str
    spoken: str


class Task(NamedTuple):
    """One utterance to make."""

    id: str
    sentence: Sentence
    voice: str
    speed: float


class Part(NamedTuple):
    """Sentences that make one folder of shards.

    Attributes:
        seed: decides who reads what, and is part of the names.
        hours: how much speech is enough; None reads all sentences.
    """

    folder: Path
    seed: int
    sentences: list[Sentence]
    hours: float | None


@dataclass
class Progress:
    """The progress of a part.

    Attributes:
        utterances, seconds: in the finished shards of its folder.
        running: seconds of audio in unfinished shards.
        total: rough estimate of the seconds at the end.
        made: seconds of audio made by this run.
        wall: seconds that this run has taken.
        unread: sentences of this run that the teacher could not read.
    """

    utterances: int = 0
    seconds: float = 0.0
    running: float = 0.0
    total: float = 0.0
    made: float = 0.0
    wall: float = 0.0
    unread: int = 0


def sentences(lines: Iterable[str]) -> list[Sentence]:
    """The lines that can be read: of suitable length, with at least one word.

    The teacher reads a line as it is written, since punctuation tells it how to read. If normalising changes words
    (numbers, abbreviations) it reads the normalised line, so that it says the words of the text.
    """
    result = []
    for line in lines:
        text, written = normalise(line), " ".join(line.split())
        if SHORTEST <= len(text) <= LONGEST and is_speakable(text):
            result.append(Sentence(text, written if _letters(written) == _letters(text) else text))
    return result


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()


def assign(sentences: list[Sentence], teacher: Teacher, shares: Mapping[str, float], seed: int) -> list[Task]:
    """Gives each sentence a voice and a speed: voices by their shares, the rest spread evenly over the invented ones.

    If there are no invented voices, the shares are scaled to a sum of 1.

    Args:
        shares: by voice; if empty, the teacher's own.
    """
    shares = shares or {name: share for name, share in teacher.shares.items() if name in teacher.voices}
    others = [name for name in teacher.invented if name not in shares]
    if not shares and not others:
        others = list(teacher.voices)
    pool = [name for name in (*teacher.voices, *teacher.invented) if name in shares]
    rest = max(0.0, 1.0 - sum(shares.values()))
    weights = np.array([*(shares[name] for name in pool), *(rest / len(others) for _ in others)])
    chosen = np.random.default_rng(seed).choice(len(weights), size=len(sentences), p=weights / weights.sum())
    # Drawn separately, so that a longer text begins with the tasks of a shorter one.
    speeds = np.random.default_rng([seed, 1]).uniform(*teacher.speeds, size=len(sentences)).round(2)
    pool += others
    return [
        Task(f"{teacher.name}-{seed:02d}-{index:06d}", sentence, pool[pick], float(speed))
        for index, (sentence, pick, speed) in enumerate(zip(sentences, chosen, speeds, strict=True))
    ]


def flac(samples: np.ndarray) -> bytes:
    """16-bit FLAC of mono float samples at the corpus rate."""
    return _file(samples, "FLAC", "PCM_16")


def opus(samples: np.ndarray) -> bytes:
    """Ogg Opus of mono float samples at the corpus rate: about a fifth of FLAC's bytes, 30 kbit/s."""
    return _file(samples, "OGG", "OPUS")


FORMATS: dict[str, Callable[[np.ndarray], bytes]] = {"flac": flac, "opus": opus}


def _file(samples: np.ndarray, container: str, coding: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format=container, subtype=coding)
    return buffer.getvalue()


def record(path: Path, teacher: Teacher, shares: Mapping[str, float], parts: list[Part], form: str) -> None:
    """Records what a corpus is made of, or compares it with the record of an earlier run.

    Hours are not recorded, since a corpus may grow.

    Raises:
        LlasaError: the two differ.
    """
    told = [text for part in parts for sentence in part.sentences for text in sentence] + [str(len(parts[0].sentences))]
    wanted = {
        "sentences": sha256("\n".join(told).encode()).hexdigest()[:16],
        "shares": dict(shares or teacher.shares),
        "invented voices": len(teacher.invented),
        "format": form,
        **teacher.identity(),
    }
    if not require_begun_with(path, wanted):
        write_json(path, wanted)


def synthesise(
    part: Part,
    teacher: Teacher,
    shares: Mapping[str, float],
    form: str = "flac",
    shard: int = SHARD,
    workers: int = 2,
) -> Iterator[Progress]:
    """Writes the missing shards of a part, and yields its progress twice a second.

    Args:
        shares: see `assign`.
        form: one of FORMATS.

    Raises:
        LlasaError: the teacher raised it, could read nothing of a shard, or a shard cannot be written or read.
    """
    tasks = assign(part.sentences, teacher, shares, part.seed)
    jobs = [
        (part.folder / f"{teacher.name}-{part.seed:02d}-{start // shard:05d}.parquet", tasks[start : start + shard])
        for start in range(0, len(tasks), shard)
    ]
    part.folder.mkdir(parents=True, exist_ok=True)
    found = Progress()
    for path, _ in jobs:
        if exists(path):
            lengths = [row["seconds"] for row in read_rows(path, ["seconds"])]
            found.utterances, found.seconds = found.utterances + len(lengths), found.seconds + sum(lengths)
    todo = [job for job in jobs if not exists(job[0])]
    enough = np.inf if part.hours is None else 3600 * part.hours
    found.total = min(enough, found.seconds + sum(map(_planned, todo)))
    yield replace(found)
    if found.seconds >= enough or not todo:
        return
    began = time.perf_counter()
    with _processes(teacher, form, workers) as (pool, made):
        pending: dict[Future[tuple[int, float, int]], float] = {}
        while True:
            while todo and len(pending) < workers and found.seconds + sum(pending.values()) < enough:
                pending[pool.submit(make_shard, *todo[0])] = _planned(todo[0])
                del todo[0]
            if not pending:
                return
            for future in wait(pending, timeout=0.5, return_when=FIRST_COMPLETED).done:
                try:
                    utterances, seconds, unread = future.result()
                except BrokenProcessPool as error:
                    raise LlasaError(
                        "a process of the teacher died, perhaps because memory ran out: try --workers 1"
                    ) from error
                del pending[future]
                found.utterances, found.seconds = found.utterances + utterances, found.seconds + seconds
                found.unread += unread
                found.running -= seconds
            found.wall, grown = time.perf_counter() - began, made.value - found.made
            found.made, found.running = found.made + grown, found.running + grown
            yield replace(found)


def _planned(job: tuple[Path, list[Task]]) -> float:
    """A rough estimate of the seconds of a shard."""
    return sum(len(task.sentence.text) / task.speed for task in job[1]) / PACE


# The state of a process of the pool, set when it starts.
_worker: dict[str, Any] = {}


@contextmanager
def _processes(teacher: Teacher, form: str, workers: int) -> Iterator[tuple[ProcessPoolExecutor, Any]]:
    """A pool that makes shards, and a counter of the seconds of audio it has made.

    After an error or Ctrl-C it stops when the current utterances are done.
    """
    # Spawned, because the teachers' libraries have threads and locks that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    made, stop = context.Value("d", 0.0), context.Event()
    pool = ProcessPoolExecutor(workers, context, _begin, (teacher, form, made, stop))
    try:
        yield pool, made
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _begin(teacher: Teacher, form: str, made: Any, stop: Any) -> None:
    """Prepares a process of the pool: it leaves Ctrl-C to its parent, and ends when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker.update(teacher=teacher, encode=FORMATS[form], made=made, stop=stop)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait_for_end([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def make_shard(path: Path, tasks: list[Task]) -> tuple[int, float, int]:
    """Speaks the utterances of one shard and writes it. A text that the teacher cannot read is left out.

    Returns:
        the number of utterances written, their seconds, and how many were left out.

    Raises:
        LlasaError: the teacher cannot speak at all, or can read none of these texts; the run was stopped; or the shard
            cannot be written.
    """
    teacher: Teacher = _worker["teacher"]
    rows: list[dict[str, Any]] = []
    told = ""
    for task in tasks:
        if _worker["stop"].is_set():
            raise LlasaError("stopped: run the same command again to continue")
        try:
            samples, phones, ends = finish(teacher.speak(task.sentence.spoken, task.voice, task.speed))
        except Unreadable as error:
            told = told or str(error)
            continue
        with _worker["made"].get_lock():
            _worker["made"].value += len(samples) / RATE
        rows.append(
            {
                "id": task.id,
                "text": task.sentence.text,
                "audio": _worker["encode"](samples),
                "speaker": teacher.prefix + task.voice,
                "language": "en",
                "seconds": len(samples) / RATE,
                "phones": phones,
                "ends": ends,
            }
        )
    if not rows:
        raise LlasaError(f"{teacher.name} could read none of {len(tasks)} sentences: {told}")
    write_shard(path, rows, AUDIO_SCHEMA)
    return len(rows), sum(row["seconds"] for row in rows), len(tasks) - len(rows)

"""A corpus to shards of codes: every task of a source becomes one shard, written once, whatever happens on the way.

The pieces of one shard's work, in `encode_task`: threads decode, resample and judge clips ahead of the codec (they need
no processes: decoding, resampling and NumPy release Python's lock); clips of a pool are sorted by length and go through
the codec in batches of little padding. What was dropped and why is written into the shard itself, so that shard and
account appear together or not at all, and the report of a job is that of its shards.

The job, in `encode`: one process, or a Ray cluster (`cluster.py`), runs the tasks whose shards are missing. A lock
keeps a second run out, `job.json` holds what the shards were made of and with.
"""

import io
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llasa import audio
from llasa.codec import Codec
from llasa.codec.convert import find
from llasa.data.filters import Limits, refuse
from llasa.data.layouts import Item
from llasa.data.origin import JOB, codes_of
from llasa.data.report import Report, Tally, read_account, read_report, require_begun_with, write_json
from llasa.data.shards import CODES_SCHEMA, write_shard
from llasa.data.sources import Source, Task
from llasa.errors import LlasaError
from llasa.loading import check_device, fingerprint
from llasa.locks import claimed

POOL = 128  # clips sorted by length together, and as many decoded ahead of them; 250 MB each at 30 s a clip
BATCH = {"cpu": 1000}  # codes that go through at once; on a CPU more only leave its cache
LARGEST = 8000  # elsewhere


class Step(NamedTuple):
    """Progress: the shard that is finished, if one is, seconds of audio more, and those the codec took for them."""

    shard: int | None
    seconds: float
    forward: float


class Clip(NamedTuple):
    """An utterance ready for the codec, or the reason why it is not."""

    item: Item
    samples: np.ndarray | None
    seconds: float
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Job:
    """What every task needs beside itself. It can be sent to another process.

    Attributes:
        out: where the shards go.
        model: the codec, as `Codec.load` takes it.
        device: a torch device, or None for the best there is.
        workers: threads that decode.
        level: dBFS of speech that clips are set to, after silence at their ends is cut off, as a reference is
            prepared; without it they stay as they are.
    """

    out: Path
    model: str
    device: str | None
    limits: Limits
    workers: int
    level: float | None = None


def encode(
    source: Source,
    job: Job,
    ray: str | None,
    progress: Callable[[int, float, float], None],
    warn: Callable[[str], None],
) -> Report:
    """Runs a job, or what is missing of it, and writes `report.json`.

    Args:
        ray: the address of a Ray cluster.
        progress: called after every batch with the shards there are, and of this run the seconds of audio encoded and
            the seconds that the codec took.
        warn: called with a line about a damaged shard of an earlier run, which is made again.

    Raises:
        LlasaError: another run writes the folder, it holds shards made of or with something else, or it cannot be
            written.
    """
    with claimed(job.out):
        _check_job(source, job)
        for left in job.out.glob(".*.tmp"):
            left.unlink()
        todo = [task for task in source.tasks if not _finished(job.out / task.shard, warn)]
        ready, seconds, forward = len(source.tasks) - len(todo), 0.0, 0.0
        progress(ready, seconds, forward)
        for step in _run(job, todo, ray):
            ready, seconds, forward = ready + (step.shard is not None), seconds + step.seconds, forward + step.forward
            progress(ready, seconds, forward)
        report = read_report([job.out / task.shard for task in source.tasks])
        write_json(job.out / "report.json", report.as_dict())
    return report


def _run(job: Job, todo: list[Task], ray: str | None) -> Iterator[Step]:
    if not todo:
        return
    if ray is not None:
        from llasa.data.cluster import run_on_ray

        yield from run_on_ray(job, todo, ray)
        return
    codec = Codec.load(job.model, device=check_device(job.device))
    for task in todo:
        yield from encode_task(codec, job, task)


def encode_task(codec: Codec, job: Job, task: Task) -> Iterator[Step]:
    """Makes one shard, its rows in the order of the source; the last step comes when it is there.

    Raises:
        LlasaError: the source cannot be read, or the shard not written.
    """
    tally = Tally()
    rows: list[dict[str, Any]] = []
    limit = BATCH.get(codec.model.device.type, LARGEST)
    ahead = _ahead(lambda item: prepare(item, codec.rate, job.limits, job.level), task.read(), job.workers)
    with closing(ahead) as clips:
        for pool in _pools(clips, tally):
            codes: dict[int, np.ndarray] = {}
            for batch in batches([codec.count(len(samples)) for _, samples in pool], limit):
                began = time.perf_counter()
                found = codec.encode_batch([pool[place][1] for place in batch])
                took = time.perf_counter() - began
                codes |= zip(batch, found, strict=True)
                yield Step(None, sum(len(pool[place][1]) for place in batch) / codec.rate, took)
            rows += [_codes_row(item, codes[i], len(samples) / codec.rate) for i, (item, samples) in enumerate(pool)]
    write_shard(job.out / task.shard, rows, CODES_SCHEMA.with_metadata(tally.metadata()))
    yield Step(task.index, 0.0, 0.0)


def prepare(item: Item, rate: int, limits: Limits, level: float | None = None) -> Clip:
    """Decodes, resamples and judges one utterance; one that is kept is then set to `level`, see `Job`."""
    if item.problem:
        return Clip(item, None, 0.0, "cannot be read", item.problem)
    source = item.audio if isinstance(item.audio, Path) else io.BytesIO(item.audio)
    try:
        # What is far too long is told from its header, before anything is decoded.
        samples = audio.load(source, rate, max_seconds=max(600.0, 2 * limits.longest))
    except LlasaError as error:
        told = str(error).replace(str(item.audio), "it") if isinstance(item.audio, Path) else str(error)
        return Clip(item, None, 0.0, "too long" if " is too long: " in told else "cannot be read", told)
    reason = refuse(samples, rate, item.text, limits)
    seconds = len(samples) / rate
    if level is not None and not reason:
        samples = audio.set_loudness(audio.trim_silence(samples, rate), rate, level)
    return Clip(item, None if reason else samples, seconds, reason)


def batches(lengths: list[int], limit: int) -> Iterator[list[int]]:
    """Places of neighbours in length, in batches of at most `limit` codes with their padding, or of one."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[place] > limit:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _pools(clips: Iterator[Clip], tally: Tally) -> Iterator[list[tuple[Item, np.ndarray]]]:
    """The clips that are kept, POOL at a time; the others go into the account alone."""
    pool: list[tuple[Item, np.ndarray]] = []
    for clip in clips:
        tally.add(clip.reason, clip.seconds, clip.item.where, clip.detail)
        if clip.samples is not None:
            pool.append((clip.item, clip.samples))
        if len(pool) == POOL:
            yield pool
            pool = []
    if pool:
        yield pool


def _ahead(work: Callable[[Item], Clip], items: Iterable[Item], workers: int) -> Generator[Clip, None, None]:
    """`map(work, items)` by threads, in order, POOL items ahead of whoever takes the results."""
    pending: deque[Future[Clip]] = deque()
    threads = ThreadPoolExecutor(workers)
    try:
        for item in items:
            pending.append(threads.submit(work, item))
            if len(pending) > POOL:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def _codes_row(item: Item, codes: np.ndarray, seconds: float) -> dict[str, Any]:
    facts = {"id": item.id, "text": item.text, "speaker": item.speaker, "language": item.language}
    return facts | {"codes": codes, "seconds": seconds, "phones": item.phones, "ends": item.ends}


def _check_job(source: Source, job: Job) -> None:
    """Compares a job with the one that the folder was begun with, or writes it down.

    Raises:
        LlasaError: they differ, or the folder holds shards that no job made.
    """
    path = job.out / JOB
    codec = find(job.model)
    wanted = {
        "source": {"layout": source.layout, "digest": source.digest, "shards": len(source.tasks)},
        "shard": source.shard,
        "codec": fingerprint(codec) if codec.is_dir() else f"{codec.name}, {codec.stat().st_size} bytes",
        "filters": asdict(job.limits),
    }
    if require_begun_with(path, wanted):
        return
    if next(job.out.glob("*.parquet"), None):
        raise LlasaError(f"{job.out} has shards of another origin: choose another folder")
    write_json(path, wanted | {"codes": codes_of(codec)})


def _finished(shard: Path, warn: Callable[[str], None]) -> bool:
    """Whether a shard is there and whole. A machine that lost power may have left one that is not: it is removed.

    Raises:
        LlasaError: the system cannot read it now, which says nothing of what is in it.
    """
    if not shard.exists():
        return False
    try:
        read_account(shard)
    except ValueError:
        shard.unlink()
        warn(f"{shard} was cut off by a crash: it is made again")
        return False
    return True

"""Encodes a corpus into shards of codes. Each task of a source becomes one shard, which is written whole or not at all.

`encode_task` makes one shard. Threads decode, resample and filter clips ahead of the codec; processes are not needed,
since decoding, resampling and NumPy release Python's lock. Clips are sorted by length in pools and go through the codec
in batches with little padding. The account of what was dropped, and why, is written into the shard itself, so both
appear together, and the report of a job is the sum over its shards.

`encode` runs a job: one process, or a Ray cluster (`cluster.py`), makes the shards that are missing. A lock keeps a
second run out. `job.json` remembers the source and the settings.
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
from llasa.codec import Codec, load_codec
from llasa.codec.convert import find
from llasa.data.filters import Limits, refuse
from llasa.data.layouts import Item
from llasa.data.origin import JOB, codes_of
from llasa.data.report import Report, Tally, read_account, read_report, require_begun_with, write_json
from llasa.data.shards import CODES_SCHEMA, write_shard
from llasa.data.sources import Source, Task
from llasa.errors import LlasaError, TooLong
from llasa.files import MB, claimed, exists, is_folder
from llasa.models.defaults import check_device
from llasa.models.folder import fingerprint

POOL = 128  # clips sorted by length together; as many are decoded ahead; 250 MB each at 30 s a clip
AHEAD = 512 * MB  # bytes of recordings from archives that wait to be decoded
BATCH = {"cpu": 1000}  # codes in a batch, by device; on a CPU more would not fit its cache
LARGEST = 8000  # codes in a batch on other devices


class Step(NamedTuple):
    """Progress: the finished shard if there is one, further seconds of audio, and the codec's seconds for them."""

    shard: int | None
    seconds: float
    forward: float


class Clip(NamedTuple):
    """An utterance ready for the codec, or the reason why it is dropped."""

    item: Item
    samples: np.ndarray | None
    seconds: float
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class EncodeJob:
    """The settings that all tasks share. It can be sent to another process.

    Attributes:
        out: folder of the shards.
        model: the codec, by a name that `load_codec` takes.
        device: a torch device, or None for the best one.
        workers: number of threads that decode.
        level: dBFS to which clips are set after the silence at their ends is cut, as for a reference; None leaves
            clips unchanged.
    """

    out: Path
    model: str
    device: str | None
    limits: Limits
    workers: int
    level: float | None = None


def encode_here(job: EncodeJob, todo: list[Task]) -> Iterator[Step]:
    """Makes shards in this process, one after the other."""
    if not todo:
        return
    codec = load_codec(job.model, device=check_device(job.device))
    for task in todo:
        yield from encode_task(codec, job, task)


# Makes the shards of some tasks; yields a step for each finished shard, and others in between.
Run = Callable[[EncodeJob, list[Task]], Iterator[Step]]


def encode(
    source: Source,
    job: EncodeJob,
    progress: Callable[[int, float, float], None],
    warn: Callable[[str], None],
    run: Run = encode_here,
) -> Report:
    """Runs a job, or the missing part of it, and writes `report.json`.

    Args:
        progress: called after every batch with the number of shards, and for this run the seconds of audio encoded and
            the seconds that the codec took.
        warn: called with a line about each damaged shard of an earlier run, which is made again.
        run: makes the shards; by default this process, one after the other.

    Raises:
        LlasaError: another run writes to the folder, it holds shards of another job, or it cannot be written.
    """
    with claimed(job.out):
        _check_job(source, job)
        for left in job.out.glob(".*.tmp"):
            left.unlink()
        todo = [task for task in source.tasks if not _finished(job.out / task.shard, warn)]
        ready, seconds, forward = len(source.tasks) - len(todo), 0.0, 0.0
        progress(ready, seconds, forward)
        for step in run(job, todo):
            ready, seconds, forward = ready + (step.shard is not None), seconds + step.seconds, forward + step.forward
            progress(ready, seconds, forward)
        report = read_report([job.out / task.shard for task in source.tasks])
        write_json(job.out / "report.json", report.as_dict())
    return report


def encode_task(codec: Codec, job: EncodeJob, task: Task) -> Iterator[Step]:
    """Makes one shard, with rows in the order of the source. The last step comes when the shard is written.

    Raises:
        LlasaError: the source cannot be read, or the shard cannot be written.
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
    """Decodes, resamples and filters one utterance; if it is kept, sets it to `level` (see `EncodeJob`)."""
    if item.problem:
        return Clip(item, None, 0.0, "cannot be read", item.problem)
    source = item.audio if isinstance(item.audio, Path) else io.BytesIO(item.audio)
    try:
        # What is far too long is told from its header, before anything is decoded.
        samples = audio.load(source, rate, max_seconds=max(600.0, 2 * limits.longest))
    except LlasaError as error:
        told = str(error).replace(str(item.audio), "it") if isinstance(item.audio, Path) else str(error)
        return Clip(item, None, 0.0, "too long" if isinstance(error, TooLong) else "cannot be read", told)
    reason = refuse(samples, rate, item.text, limits)
    seconds = len(samples) / rate
    if level is not None and not reason:
        samples = audio.set_loudness(audio.trim_silence(samples, rate), rate, level)
    return Clip(item, None if reason else samples, seconds, reason)


def batches(lengths: list[int], limit: int) -> Iterator[list[int]]:
    """Groups consecutive indices into batches of at most `limit` codes, padding included, or of one clip."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[place] > limit:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _pools(clips: Iterator[Clip], tally: Tally) -> Iterator[list[tuple[Item, np.ndarray]]]:
    """Yields the clips that are kept, POOL at a time, and counts all of them in the tally."""
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
    """`map(work, items)` in threads, in order, up to POOL items or AHEAD bytes ahead of the consumer."""
    pending: deque[Future[Clip]] = deque()
    weights: deque[int] = deque()
    threads = ThreadPoolExecutor(workers)
    try:
        for item in items:
            weights.append(len(item.audio) if isinstance(item.audio, bytes) else 0)
            pending.append(threads.submit(work, item))
            while len(pending) > POOL or (len(pending) > 1 and sum(weights) > AHEAD):
                weights.popleft()
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def _codes_row(item: Item, codes: np.ndarray, seconds: float) -> dict[str, Any]:
    facts = {"id": item.id, "text": item.text, "speaker": item.speaker, "language": item.language}
    return facts | {"codes": codes, "seconds": seconds, "phones": item.phones, "ends": item.ends}


def _check_job(source: Source, job: EncodeJob) -> None:
    """Compares a job with the one that the folder was begun with, or records it in a new folder.

    Raises:
        LlasaError: the two differ, or the folder holds shards of unknown origin.
    """
    path = job.out / JOB
    codec = find(job.model)
    wanted = {
        "source": {"layout": source.layout, "digest": source.digest, "shards": len(source.tasks)},
        "shard": source.shard,
        "codec": fingerprint(codec) if is_folder(codec) else f"{codec.name}, {codec.stat().st_size} bytes",
        "filters": asdict(job.limits),
    }
    if require_begun_with(path, wanted):
        return
    if next(job.out.glob("*.parquet"), None):
        raise LlasaError(f"{job.out} has shards of another origin: choose another folder")
    write_json(path, wanted | {"codes": codes_of(codec)})


def _finished(shard: Path, warn: Callable[[str], None]) -> bool:
    """Whether a shard exists and is whole. One that a power cut left damaged is removed.

    Raises:
        LlasaError: the system cannot read the shard now, so it may still be good.
    """
    if not exists(shard):
        return False
    try:
        read_account(shard)
    except ValueError:
        shard.unlink()
        warn(f"{shard} was cut off by a crash: it is made again")
        return False
    return True

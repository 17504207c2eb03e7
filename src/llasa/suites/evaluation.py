"""Runs a suite: makes the sound of every item in every row, and has it judged.

An item's results are one JSON file, and its sound a WAV beside it. So a killed run continues where it was, another
judge hears sounds that exist already, and what failed is tried again. A judge that fails for an item is noted there;
the others' figures stand.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from llasa import audio
from llasa.errors import LlasaError, first_line
from llasa.files import claimed, exists, is_folder
from llasa.measure.tables import write_text
from llasa.models.folder import find_base
from llasa.models.hub import find_model
from llasa.studies import workers
from llasa.studies.storage import open_folder, read
from llasa.suites import lists, seed_words, sounds
from llasa.suites.judges import OFFLINE, RECOGNISED, Heard, Judge, loaded, make_judges, with_second_speaker
from llasa.suites.lists import Item
from llasa.suites.table_rows import COPIES, RECORDINGS, Row, choosers
from llasa.text.wording import word_errors
from llasa.verifiers import RATE
from llasa.verifiers.wavlm_large import FILE as WAVLM
from llasa.verifiers.whisper import is_ideographic, letters

STORED = "items"
SPEECH = "speech"  # the problem of an item that could not be said


def _corpus(text: str, heard: str, language: str) -> tuple[float, float]:
    """A rate and the number of words, or of characters, for the rate of a whole corpus."""
    if is_ideographic(text):
        import jiwer

        ours = letters(text)
        return float(jiwer.cer(ours, letters(heard))), len(ours)
    wrong, total = word_errors(text, heard)
    return wrong / max(1, total), total


@dataclass(frozen=True)
class Suite:
    """A suite.

    Attributes:
        title: the report's.
        read: makes its items of --data.
        judges: the judges that papers had.
        offline: those whose weights come inside packages.
        words: an utterance's error rate and its weight.
        rows: what its rows are: "said" by a model, perhaps with searches; "copied" by a codec; or recordings, "heard".
        own_list: whether it has one, so that --data may be left out.
        blind: whether people score it too, and its parts are small and stand in one table.
    """

    title: str
    read: Callable[[Any], list[Item]]
    judges: tuple[str, ...]
    offline: tuple[str, ...] = OFFLINE
    words: Callable[[str, str, str], tuple[float, float]] = _corpus
    rows: str = "said"
    own_list: bool = False
    blind: bool = False


_SIGNAL = ("stoi", "pesq-wb", "pesq-nb")
_WHISPER = "whisper:openai/whisper-large-v3"
SUITES = {
    "seed-tts": Suite(
        "Seed-TTS-Eval", lists.seed_tts, (_WHISPER, "paraformer", "wavlm-large"), words=seed_words.errors
    ),
    "librispeech-continuation": Suite(
        "LibriSpeech, continued from 3 s", lists.continued, (_WHISPER, "wavlm-large", "utmos")
    ),
    "codec": Suite(
        "Copies of a codec", lists.recordings, (*_SIGNAL, "wavlm-large", _WHISPER, "utmos"), (*_SIGNAL, *OFFLINE),
        rows="copied",
    ),
    "asr": Suite("Recognition", lists.recordings, ("model",), ("model", "whisper-tiny"), rows="heard"),
    "esd": Suite("Emotion, on ESD", lists.esd, ("emotion", _WHISPER, "paraformer", "wavlm-large")),
    "text": Suite(
        "Complex texts", lists.texts, (_WHISPER, "utmos"), ("whisper-tiny", "distillmos"), own_list=True, blind=True
    ),
}  # fmt: skip


@dataclass(frozen=True)
class EvalSettings:
    """What the results of one folder have in common. Rows and judges may be added."""

    suite: str
    model: str
    seed: int = 0
    voice: str | None = None


@dataclass(frozen=True)
class Job:
    """One item in one row; `place` is the item's place in its list."""

    row: Row
    item: Item
    place: int

    def file(self, folder: Path) -> Path:
        return folder / STORED / self.row.folder / f"{self.place:05d}.json"


def choose_judges(
    suite: str, model: str, written: str, data: Path | None, rows: Sequence[Row], items: Sequence[Item]
) -> tuple[str, ...]:
    """The names of judges: `paper`, `offline`, or names by commas; and a second speaker encoder, if one is needed.

    Of `paper`, the recognisers that understand none of the items are left out.

    Raises:
        LlasaError: a judge does not exist, or its package is missing.
    """
    kind = SUITES[suite]
    names = {"paper": kind.judges, "offline": kind.offline}.get(
        written, tuple(name.strip() for name in written.split(",") if name.strip())
    )
    if not names:
        raise LlasaError("--judges names nobody: pass offline, paper, or names separated by commas")
    if len(set(names)) < len(names):
        raise LlasaError(f"--judges names {next(n for n in names if names.count(n) > 1)} twice: name it once")
    if written == "paper":
        spoken = {item.language for item in items}
        names = tuple(name for name in names if spoken & set(RECOGNISED.get(name.partition(":")[0], spoken)))
    weights = Path(WAVLM) if data is None else (data if is_folder(data) else data.parent) / WAVLM
    whole = {"wavlm-large": f"wavlm-large:{weights}", "model": f"model:{model}"}
    names = tuple(whole.get(name, name) for name in names)
    return with_second_speaker(names, choosers(rows)) if kind.rows == "said" else names


def default_verifier(model: str) -> str:
    """Who chooses by words, as in `llasa say`: the model's own recogniser, or Whisper if it has none."""
    return "content" if exists(find_base(find_model(model)).parent / "recogniser") else "whisper"


def make_jobs(suite: str, rows: Sequence[Row], items: Sequence[Item]) -> list[Job]:
    """All that there is to do, the recordings' row first where items have recordings, item by item."""
    own = [Row(RECORDINGS)] if any(item.recording for item in items) else []
    rows = [*own, *{"said": rows, "copied": [Row(COPIES)], "heard": []}[SUITES[suite].rows]]
    return [
        Job(row, item, place)
        for place, item in enumerate(items)
        for row in rows
        if row.name != RECORDINGS or item.recording
    ]


def run(
    settings: EvalSettings, jobs: Sequence[Job], judges: tuple[str, ...], folder: Path, processes: int = 1,
    ray: str | None = None,
) -> Iterator[int]:  # fmt: skip
    """Does what is not done yet and yields how many jobs are done, beginning with those of earlier runs.

    Raises:
        LlasaError: the folder belongs to other settings or another run is writing into it, or the model or a judge
            cannot be loaded.
    """
    open_folder(folder, asdict(settings), f"{STORED}/*")
    with claimed(folder):
        made = make_judges(judges)
        todo = [job for job in jobs if not _is_done(job, made, folder)]
        done = len(jobs) - len(todo)
        yield done
        for _ in workers.share(partial(_work, settings, judges, folder), todo, processes, ray):
            done += 1
            yield done


def _is_done(job: Job, judges: Sequence[Judge], folder: Path) -> bool:
    path = job.file(folder)
    if not exists(path):
        return False
    found = read(path)
    if found["item"] != asdict(job.item) or found["row"] != asdict(job.row):
        raise LlasaError(f"{path} belongs to another item or search: name another folder, or remove this one")
    return not found["problems"] and all(judge.written in found["figures"] for judge in judges if _judges(judge, job))


def _judges(judge: Judge, job: Job) -> bool:
    """Whether a judge has something to say of an item."""
    item = job.item
    return judge.hears(item.language, item.prompt is not None) and (bool(item.text) or not judge.words)


def _work(settings: EvalSettings, judges: tuple[str, ...], folder: Path, job: Job) -> None:
    """Makes and judges one item, as far as that is not done, and stores the results."""
    path = job.file(folder)
    known = read(path) if exists(path) else {}
    sound = path.with_suffix(".wav")
    figures: dict[str, Any] = known.get("figures", {})
    heard: dict[str, str] = known.get("heard", {})
    problems: dict[str, str] = {}
    facts: dict[str, Any] = known.get("facts", {})
    samples = audio.load(sound) if facts and exists(sound) else None
    if samples is None:
        figures, heard = {}, {}
        samples, facts, problems = _make(settings, job, sound)
    if not problems:
        reference = sounds.reference(job.item)
        for judge in make_judges(judges):
            if judge.written in figures or not _judges(judge, job):
                continue
            hear = loaded(judge)
            begin = 0 if judge.words else round(facts["begin"] * RATE)
            one = Heard(_whole_text(job.item), samples[begin:], reference, job.item.language)
            try:
                figures[judge.written] = _figure(settings, judge, hear(one), one, heard)
            except Exception as error:  # whatever a judge's library raises, the other judges' figures stand
                problems[judge.written] = first_line(error) or type(error).__name__
    stored = {"row": asdict(job.row), "item": asdict(job.item), "facts": facts, "figures": figures, "heard": heard}
    write_text(path, json.dumps(stored | {"problems": problems}, ensure_ascii=False, indent=1) + "\n")


def _make(settings: EvalSettings, job: Job, path: Path) -> tuple[np.ndarray, dict[str, Any], dict[str, str]]:
    """The sound of an item at 16 kHz, what there is to know of it, and why it could not be made, if so."""
    make = None if job.row.name == RECORDINGS else _maker(settings)
    began = time.perf_counter()
    try:
        made = make(job.row, job.item, settings.seed + job.place) if make else sounds.recording(job.item)
    except LlasaError as error:  # such as a prompt that cannot be a reference: the others can
        return np.empty(0, np.float32), {}, {SPEECH: str(error)}
    seconds = time.perf_counter() - began
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)  # if it cannot be made, the next line says so
    if len(made.samples):
        audio.save(path, made.samples, made.rate)
    facts = {
        "begin": made.begin, "notes": made.notes, "codes": made.codes, "codebook": made.codebook, "tokens": made.tokens,
        "seconds": round(seconds, 3), "seconds_of_audio": len(made.samples) / made.rate,
    }  # fmt: skip
    return audio.resample(made.samples, made.rate, RATE), facts, {}


def _whole_text(item: Item) -> str:
    """What recognisers should hear: of a continued prompt, its words too."""
    return f"{item.prompt_text} {item.text}" if item.cut else item.text


def _figure(settings: EvalSettings, judge: Judge, found: Any, one: Heard, heard: dict[str, str]) -> tuple[float, float]:
    """A judge's figure and its weight in the mean. A transcript is kept in `heard`."""
    if not judge.words:
        if not np.isfinite(found):
            raise ValueError("it found nothing to judge")
        return float(found), 1.0
    text = seed_words.simplified(found) if one.language == "zh" else str(found)
    heard[judge.written] = text
    return SUITES[settings.suite].words(one.text, text, one.language)


@lru_cache(maxsize=1)
def _maker(settings: EvalSettings) -> sounds.Maker:
    """A process's model, which it loads once."""
    if settings.suite == "codec":
        return sounds.copier(settings.model)
    return sounds.speaker(settings.model, settings.voice)


def stored(jobs: Sequence[Job], folder: Path) -> list[dict[str, Any]]:
    """The results of all jobs, in their order, each with the path of its sound as "wav", if it has one.

    Raises:
        LlasaError: a file is damaged, or there is none.
    """
    found = []
    for job in jobs:
        path = job.file(folder)
        sound = path.with_suffix(".wav")
        found.append(read(path) | {"wav": sound if exists(sound) else None})
    return found

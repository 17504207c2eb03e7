"""Measures how well the times of words agree with a teacher's own, and what they cost.

    python benchmarks/words.py READINGS [--sentences 100]

READINGS is a folder of what Kokoro read, with the time that it held each phoneme for: a `metadata.csv` of
`file|voice|speed|text|phonemes|durations`, where durations are in units of 25 ms, one for each phoneme and one for a
pad at either end. Writes benchmarks/results/words.md.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import machine
import numpy as np

from llasa import Llasa, audio
from llasa.data.teachers.kokoro import HELD, sound_ends
from llasa.data.teachers.teacher import sounding
from llasa.measure import statistics
from llasa.measure.statistics import Interval
from llasa.measure.tables import percent, show, write_text
from llasa.speak.speech import Utterance
from llasa.speak.word_times import Timer

RESULTS = Path(__file__).parent / "results" / "words.md"
NEAR = 0.12  # seconds
DRAWS = 2000
SPOKEN = 20  # sentences that the model itself says, for the cost


class Clip(NamedTuple):
    """A sentence that the teacher read: its sound (N,) and codes (T,), and the seconds at which its words begin.

    `starts` are those of the sound, `told` those at which the teacher was told the phoneme.
    """

    text: str
    samples: np.ndarray
    codes: np.ndarray
    starts: np.ndarray
    told: np.ndarray


def clips(folder: Path, model: Llasa, count: int) -> list[Clip]:
    """The first sentences of which the phonemes have as many words as the text."""
    found = list[Clip]()
    for line in (folder / "metadata.csv").read_text(encoding="utf-8").splitlines():
        file, _, _, text, phonemes, durations = line.split("|")
        words = [k for k, phoneme in enumerate(phonemes) if phoneme != " " and (k == 0 or phonemes[k - 1] == " ")]
        held = np.array(json.loads(durations), float)
        if len(held) != len(phonemes) + 2 or len(words) != len(text.split()) or not text.isascii():
            continue
        samples = audio.load(folder / file)
        ends = sound_ends(held, *sounding(samples))
        # Phoneme k is symbol k + 1, after the pad, so it begins where symbol k ends.
        found.append(Clip(text, samples, model.codec.encode(samples), ends[words], HELD * np.cumsum(held)[words]))
        if len(found) == count:
            break
    return found


def starts(model: Llasa, timer: Timer, clip: Clip) -> np.ndarray | None:
    """When each word of a clip begins, (W,) seconds; None if the model reads it as other words."""
    request = model.request(clip.text, None, 0, {})
    text = " ".join(chunk.text for chunk in request.chunks)
    words = timer.words(request, [Utterance(text, clip.codes, clip.samples, 0.0, True)])
    return np.array([word.start for word in words]) if words and len(words) == len(clip.starts) else None


def percentile(errors: list[np.ndarray], share: float) -> Interval:
    """A percentile of all errors; the bootstrap draws sentences."""
    dice = np.random.default_rng(0)
    draws = [np.concatenate([errors[i] for i in dice.integers(len(errors), size=len(errors))]) for _ in range(DRAWS)]
    low, high = np.percentile([np.percentile(draw, share) for draw in draws], (2.5, 97.5))
    return Interval(float(np.percentile(np.concatenate(errors), share)), float(low), float(high))


def row(name: str, errors: list[np.ndarray]) -> str:
    """A row of the table of errors, in seconds, one array a sentence."""
    sizes = [np.abs(one) for one in errors]
    near = statistics.error_rate([int((one <= NEAR).sum()) for one in sizes], [len(one) for one in sizes])
    figures = (percentile(sizes, 50), percentile(sizes, 95), percentile(errors, 50))
    median, most, bias = (show(figure.scaled(1000), 0) for figure in figures)
    cells = [name, median, most, percent(near), bias]
    return f"| {' | '.join(cells)} |"


def costs(model: Llasa, sentences: list[str]) -> tuple[Interval, float]:
    """The share of time that words add to saying a sentence, and their milliseconds in a sentence."""
    model.say("This is said first, so that all is warm.", seed=0).words  # noqa: B018 - computed when asked for
    spent, total = list[float](), list[float]()
    for seed, text in enumerate(sentences):
        began = time.perf_counter()
        speech = model.say(text, seed=seed)
        said = time.perf_counter()
        _ = speech.words
        spent.append(time.perf_counter() - said)
        total.append(said - began)
    return statistics.error_rate(spent, total), 1000 * float(np.mean(spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readings", type=Path)
    parser.add_argument("--sentences", type=int, default=100)
    arguments = parser.parse_args()

    model = Llasa.load("tiny")
    read = clips(arguments.readings, model, arguments.sentences)
    timers = {"attention": model.timer, "recogniser": replace(model.timer, head=None)}
    pairs = {name: [(clip, starts(model, timer, clip)) for clip in read] for name, timer in timers.items()}
    errors = {name: [at - clip.starts for clip, at in found if at is not None] for name, found in pairs.items()}
    told = [at - clip.told for clip, at in pairs["attention"] if at is not None]
    first = [one[:1] for one in errors["attention"]]
    cost, milliseconds = costs(model, [clip.text for clip in read[:SPOKEN]])
    seconds = sum(len(clip.samples) for clip in read) / model.codec.rate
    lines = [
        "# Times of words\n",
        f"{len(told)} sentences that Kokoro read ({seconds:.0f} s, {sum(map(len, told))} words), "
        "encoded. The times are",
        "computed from the codes and the text as typed, and compared with the teacher's phonemes. These are the first",
        "readings whose phonemes have as many words as the text; espeak-ng writes some words "
        "as one. The model may have",
        "learnt from readings of the same teacher. Errors are in ms with their 95 % interval, from a bootstrap over",
        "sentences; a positive median is late.\n",
        "| times by | median error | 95th percentile | within 120 ms | median, with its sign |\n|---|---|---|---|---|",
        *(row(name, found) for name, found in errors.items()),
        row("attention, first words alone", first),
        row("attention, against the durations as they are", told),
        "",
        "The last row is for comparison. Kokoro speaks ahead of its durations by 14 ms and 0.69 of the duration of the",
        "phoneme before (`data/teachers/kokoro.py`). The other rows take that into account, as training does.\n",
        f"Saying {SPOKEN} of the sentences took {percent(cost)} longer with the times of words, "
        f"{milliseconds:.0f} ms a",
        "sentence. They are computed only if somebody asks for them.\n",
        "The bars were a median error of 40 ms, 95 % within 120 ms, and 1 % of the time.\n",
        *(f"- {name}: {fact}" for name, fact in machine.describe().items()),
    ]
    write_text(RESULTS, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

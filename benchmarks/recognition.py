"""Measures how well models recognise speech, and what learning to costs their speaking.

    python benchmarks/recognition.py --models both=runs/both/model said=runs/said/model --codes runs/codes/held-out \\
        [--sets kathleen=held-out/kathleen LibriSpeech=held-out/people] [--sentences held-out.txt] [--count 50]

--models are models that `llasa train lm` left, for the same steps on the same corpus, with a `data.recognition` of 0,
of 1, and in between. --codes is a folder of codes shards that none has trained on: the table has the loss a token of
saying them and of hearing them. --sets are folders of recordings with texts, of any layout that `llasa data encode`
knows, of people or sentences that none has trained on; --sentences are said by the embedded voice, one a line. The
table has the words wrong in each, with a 95 % interval, and how many seconds the computing takes for one of sound. A
model that does not listen has only the first figure. Writes benchmarks/results/recognition.md.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import machine
import numpy as np

from llasa import Llasa, audio
from llasa.data.sources import find_source
from llasa.errors import LlasaError
from llasa.measure import statistics
from llasa.measure.tables import percent, write_text
from llasa.models.folder import find_codec, read_config
from llasa.text.wording import plain, word_errors
from llasa.train.lm.data import Corpus, Reader, packs, samples
from llasa.train.lm.settings import LMSettings
from llasa.train.lm.stage import Trainer, make_model
from llasa.train.lm.validation import measure

RESULTS = Path(__file__).parent / "results" / "recognition.md"
OWN = "the embedded voice"
BARS = {OWN: 10, "kathleen": 20, "LibriSpeech": 45}  # % of the words
TOKENS, LONGEST = 4096, 1024
ROWS = 4  # of TOKENS tokens, in which a loss is measured


class Clip(NamedTuple):
    """A recording (N,) at 16 kHz, and the words said in it."""

    samples: np.ndarray
    text: str


class Found(NamedTuple):
    """Of each clip the words wrong and all words; how many clips became no text; seconds of sound and of computing."""

    wrong: list[int]
    words: list[int]
    empty: int
    sound: float
    spent: float


def recordings(folder: str, count: int) -> list[Clip]:
    """The first recordings of a folder that have a text."""
    items = itertools.chain(*(task.read() for task in find_source(folder, None, 1000, "train").tasks))
    texts = (item for item in items if item.text)
    return [Clip(audio.load(item.audio), item.text) for item in itertools.islice(texts, count)]  # type: ignore[arg-type]


def spoken(sentences: Path, count: int) -> Iterator[Clip]:
    """What the embedded voice says."""
    voice = Llasa.load("tiny")
    lines = [line.strip() for line in sentences.read_text(encoding="utf-8").splitlines() if line.strip()]
    for seed, text in enumerate(lines[:count]):
        yield Clip(voice.say(text, seed=seed).samples, text)


def heard(model: Llasa, clips: list[Clip]) -> Found:
    """What a model writes down of clips. Apostrophes are left out on both sides, since a small model has none."""
    pairs, spent = list[tuple[int, int]](), 0.0
    empty = 0
    for clip in clips:
        began = time.perf_counter()
        text = model.transcribe(clip.samples).text
        spent += time.perf_counter() - began
        empty += not text
        pairs.append(word_errors(plain(clip.text), plain(text)))
    wrong, words = zip(*pairs, strict=True)
    return Found(list(wrong), list(words), empty, sum(len(clip.samples) for clip in clips) / 16000, spent)


def losses(folder: Path, codes: Path) -> tuple[float, float | None]:
    """The loss a token of saying held-out speech, and of hearing it, if the model listens: nats."""
    settings = LMSettings(codec=str(find_codec(folder)), init=str(folder))
    settings.embeddings.factored = False
    model, vocabulary = make_model(settings)
    trainer = Trainer(model, settings).eval()
    lexicon = Llasa.load(folder)._planner.lexicon
    found = []
    for share in (0.0, 1.0):
        reader = Reader(vocabulary, lexicon, 50.0, recognition=share)
        source = samples(Corpus({codes: 1}), reader, 0, LONGEST, 0.0, itertools.count())
        rows = list(itertools.islice(packs(source, TOKENS, 50.0, 1), ROWS))
        figures, _ = measure(trainer, rows)
        found.append(figures["text" if share else "loss"])
    return found[0], found[1] if read_config(folder).get("recognition") else None


def pairs_of(words: list[str]) -> dict[str, str]:
    """Pairs NAME=FOLDER of the command line."""
    found = dict(word.partition("=")[::2] for word in words)
    if not all(found.values()):
        raise LlasaError("write NAME=FOLDER")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--codes", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--sentences", type=Path)
    parser.add_argument("--count", type=int, default=50, help="clips of each set (default 50)")
    parser.add_argument("--about", default="trained alike", help="how the models were trained, in words")
    arguments = parser.parse_args()
    machine.on_two_cores()

    sets = {name: recordings(folder, arguments.count) for name, folder in pairs_of(arguments.sets).items()}
    if arguments.sentences:
        sets = {OWN: list(spoken(arguments.sentences, arguments.count))} | sets
    rows, factors = list[str](), list[str]()
    for name, where in pairs_of(arguments.models).items():
        folder = Path(where)
        said, listened = losses(folder, arguments.codes)
        cells = [name, f"{said:.3f}", "" if listened is None else f"{listened:.3f}"]
        found: dict[str, Found] = {}
        if listened is not None:
            model = Llasa.load(folder)
            found = {kind: heard(model, clips) for kind, clips in sets.items()}
        for kind in sets:
            if kind not in found:
                cells.append("")
                continue
            rate = percent(statistics.error_rate(found[kind].wrong, found[kind].words))
            cells.append(f"{rate}; {found[kind].empty} of {len(found[kind].words)} clips empty")
        rows.append(f"| {' | '.join(cells)} |")
        if found:
            factor = sum(one.spent for one in found.values()) / sum(one.sound for one in found.values())
            factors.append(f"{name} takes {factor:.2f} s for a second of sound")
    bars = ", ".join(f"{name} {bar} %" for name, bar in BARS.items())
    lines = [
        "# Recognition by the language model\n",
        f"Models {arguments.about}: the loss a token on held-out speech, in nats, and the words wrong in held-out",
        "recordings, with a 95 % interval. Words that are missing count as wrong, and above 100 % more were added.\n",
        f"| model | saying | hearing | {' | '.join(sets)} |\n|{'---|' * (3 + len(sets))}",
        *rows,
        "",
        *([f"On this machine {'; '.join(factors)}.\n"] if factors else []),
        f"The bars are {bars} of the words, and 0.2 s for a second of sound.\n",
        *(f"- {name}: {fact}" for name, fact in machine.describe().items()),
    ]
    write_text(RESULTS, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

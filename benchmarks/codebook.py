"""How many codes should a small codec have? Trains one per size, alike in all else, and measures what each loses.

    python benchmarks/codebook.py --sentences held-out.txt --steps 600

Needs the corpus and the recogniser of `recipes/tiny/run` in `runs/` (its first steps up to `llasa train semantic`).
Writes codebook.md into benchmarks/results; trainings stay in runs/codebook and go on where they were. All sizes see the
same crops in the same order. Beside the sound, two figures say how hard the codes are on a language model: their
perplexity, and how often the phone that a frame speaks (flite knows) is the one that its code mostly stands for.
"""

import argparse
import itertools
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, on_two_cores

ROOT = Path(__file__).parent.parent
SEED = 20_000_003  # of the shifted speakers: a training corpus draws its own from small seeds
SIZES = {1024: [4] * 5, 4096: [4] * 6, 8192: [8, 4, 4, 4, 4, 4], 16384: [4] * 7}


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains and measures codecs of several codebook sizes.")
    parser.add_argument("--sentences", type=Path, required=True, help="held-out sentences, one a line")
    parser.add_argument("--count", type=int, default=40, help="how many of them (default 40)")
    parser.add_argument("--steps", type=int, default=600, help="training steps of each codec (default 600)")
    parser.add_argument(
        "--sizes", type=lambda v: [int(s) for s in v.split(",")], default=[4096, 16384], help="by commas (4096,16384)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the recipe's runs (default runs)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder for the table")
    arguments = parser.parse_args()
    if unknown := [size for size in arguments.sizes if size not in SIZES]:
        parser.error(f"no levels are known for {unknown[0]} codes: choose from {', '.join(map(str, SIZES))}")
    on_two_cores()
    from llasa.errors import LlasaError

    try:
        run(arguments)
    except LlasaError as error:
        sys.exit(f"error: {error}")


def run(arguments: argparse.Namespace) -> None:
    from llasa.eval.report import write_text

    sentences = [line.strip() for line in arguments.sentences.read_text(encoding="utf-8").splitlines() if line.strip()]
    lines = [
        "# The size of the codebook\n",
        f"Written by `benchmarks/codebook.py`: {arguments.steps} steps from scratch each; 95 % intervals.\n",
        "| codes | STOI, teachers | PESQ-WB | mel distance | STOI, unseen shifted | word error rate of the copy, above "
        "the teacher | perplexity, of the codebook | phones named by the code |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size in arguments.sizes:
        train(arguments, size)
        lines.append(measure(arguments, size, sentences[: arguments.count]))
    facts = describe("pocketsphinx")
    lines.append("\n" + "; ".join(f"{key}: {value}" for key, value in facts.items()) + "\n")
    write_text(arguments.out / "codebook.md", "\n".join(lines))


def train(arguments: argparse.Namespace, size: int) -> None:
    """The codec stage of the recipe with other levels, into runs/codebook/SIZE."""
    from llasa.train.codec import Settings
    from llasa.train.codec_run import train as run_stage
    from llasa.train.loop import read_settings

    out = arguments.runs / "codebook" / str(size)
    recipe = ROOT / "recipes" / "tiny" / "codec.yaml"
    run_stage(read_settings(Settings, recipe, steps=arguments.steps, levels=SIZES[size], out=str(out)))


def measure(arguments: argparse.Namespace, size: int, sentences: list[str]) -> str:
    """A row of the table."""
    from llasa.codec import Codec
    from llasa.data.teachers.flite import TEACHERS, Speaker, speak, speakers
    from llasa.eval import listeners, metrics, statistics
    from llasa.eval.report import points, show
    from llasa.text import normalise

    codec = Codec.load(arguments.runs / "codebook" / str(size) / "model")
    rms = [speak(normalise(s), Speaker("rms", "rms"))[0] for s in sentences]
    others = [speak(normalise(s), Speaker(v, v))[0] for s in sentences[::3] for v in TEACHERS[1:]]
    drawn = speakers(len(sentences), SEED)[len(TEACHERS) :]
    shifted = [speak(normalise(s), speaker)[0] for s, speaker in zip(sentences, drawn, strict=False)]
    sounds = rms + others + shifted
    streams = [codec.encode(sound) for sound in sounds]
    copies = [codec.decode(stream) for stream in streams]
    figures = listeners.spread(metrics.compare, sounds, copies)
    teachers, unseen = figures[: len(rms) + len(others)], figures[len(rms) + len(others) :]

    heard = listeners.spread(listeners.pocketsphinx, [*rms, *copies[: len(rms)]])
    found = [metrics.word_errors(s, h) for s, h in zip([*sentences, *sentences], heard, strict=True)]
    words = [total for _, total in found[: len(rms)]]
    errors = [count for count, _ in found]
    above = statistics.error_rate_difference(errors[len(rms) :], errors[: len(rms)], words)

    def mean(items: list[dict[str, float]], key: str, digits: int = 3) -> str:
        return show(statistics.mean([i[key] for i in items if np.isfinite(i[key])]), digits)

    used = metrics.codebook_usage(streams, codec.codebook_size)
    cells = [
        f"{size:,}",
        mean(teachers, "stoi"),
        mean(teachers, "pesq_wb", 2),
        mean(teachers, "mel_distance", 2),
        mean(unseen, "stoi"),
        points(above),
        f"{used.perplexity:,.0f}, {used.perplexity / used.size:.2f}",
        f"{100 * phones_named(codec, arguments.runs / 'corpus' / 'val'):.1f} %",
    ]
    return "| " + " | ".join(cells) + " |"


def phones_named(codec: Any, corpus: Path, rows: int = 800) -> float:
    """Share of frames whose phone is the one that their code stood for most often in other utterances."""
    from llasa.data.shards import read_rows, row_audio, shard_files
    from llasa.train.semantic import frame_phones

    pairs = []
    for row in itertools.islice((row for file in shard_files(corpus) for row in read_rows(file)), rows):
        codes = codec.encode(row_audio(row))
        pairs.append((codes.tolist(), frame_phones(row["phones"], row["ends"], len(codes)).tolist()))
    counts: dict[int, Counter[int]] = defaultdict(Counter)
    for codes, phones in pairs[rows // 4 :]:
        for code, phone in zip(codes, phones, strict=True):
            counts[code][phone] += 1
    mostly = {code: found.most_common(1)[0][0] for code, found in counts.items()}
    right = total = 0
    for codes, phones in pairs[: rows // 4]:
        for code, phone in zip(codes, phones, strict=True):
            if phone >= 0:
                right, total = right + (mostly.get(code) == phone), total + 1
    return right / max(1, total)


if __name__ == "__main__":
    main()

"""Measures the speed of `llasa data encode` with the embedded codec, and the codec's share of the time.

    python benchmarks/encode.py [--minutes 20] [--repeats 3]

flite reads sentences in its four voices. They are saved as FLAC at 22,050 Hz, so that the command must decode and
resample. It runs as a user runs it, in a process of its own, on two cores. Writes benchmarks/results/encode.md.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import machine

machine.on_two_cores()

import soundfile  # noqa: E402

from llasa import audio  # noqa: E402
from llasa.data.synthesis import RATE  # noqa: E402
from llasa.data.teachers.flite import TEACHERS, Speaker, speak  # noqa: E402
from llasa.measure.tables import Row, table, write_text  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "encode.md"
SAVED = 22050
PASSAGE = (
    "the ferry left harbour a little before seven nobody on deck said much and gulls followed us as far as lighthouse "
    "by noon wind had turned so captain chose longer way around island we ate bread cold soup played two games of chess"
)
LINE = re.compile(r"hours encoded, ([\d.]+)x real time; (\d+) s, (\d+) % of it in the codec")
FASTEST, SHARE = 20, 80  # the bars, in times real time and in per cent


def make_corpus(folder: Path, minutes: float) -> float:
    """Fills a folder with speech of that length, in clips of 2 to 15 s with their texts; returns its seconds."""
    rng = random.Random(0)
    seconds, count = 0.0, 0
    while seconds < 60 * minutes:
        text = " ".join(rng.choices(PASSAGE.split(), k=rng.randint(6, 45)))
        voice = TEACHERS[count % len(TEACHERS)]
        samples, _, _ = speak(text, Speaker(voice, voice))
        place = folder / voice / f"{count:05d}.flac"
        place.parent.mkdir(exist_ok=True)
        soundfile.write(place, audio.resample(samples, RATE, SAVED), SAVED)
        place.with_suffix(".txt").write_text(text)
        seconds, count = seconds + len(samples) / RATE, count + 1
    return seconds


def run_once(corpus: Path, out: Path, seconds: float) -> tuple[float, float, float]:
    """Speeds of the whole command and of the job without Python's start, and the codec's share in per cent.

    Raises:
        RuntimeError: the command failed, or dropped a clip.
    """
    began = time.perf_counter()
    command = [sys.executable, "-m", "llasa", "data", "encode", str(corpus), str(out), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    wall = time.perf_counter() - began
    line = LINE.search(done.stderr)
    if done.returncode or not line or len(re.findall(r"^[a-z ]+ \d", done.stderr, re.M)) != 1:
        raise RuntimeError(done.stderr[-2000:])
    return seconds / wall, float(line[1]), float(line[3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        corpus = Path(name) / "corpus"
        corpus.mkdir()
        seconds = make_corpus(corpus, arguments.minutes)
        clips = len(list(corpus.rglob("*.flac")))
        runs = [run_once(corpus, Path(name) / f"out{i}", seconds) for i in range(arguments.repeats)]

    def row(what: str, column: int, unit: str, bar: int | None = None) -> Row:
        values = [run[column] for run in runs]
        figure = f"{median(values):.1f}{unit} ({min(values):.1f} to {max(values):.1f})"
        told = f"at least {bar}{unit}" if bar else ""
        return Row(what, figure, told, median(values) >= bar if bar else None)

    rows = [
        row("whole command, start included", 0, "x real time"),
        row("the job, codec's loading included", 1, "x real time", FASTEST),
        row("share of the job's wall time in `Codec.encode_batch`", 2, " %", SHARE),
    ]
    text = table(rows).replace("measured (95 % interval)", "median (least to most)")
    facts = "\n".join(f"- {key}: {value}" for key, value in machine.describe("soundfile", "soxr").items())
    threads = os.environ.get("OMP_NUM_THREADS", "as many as cores")
    about = (
        f"{clips} clips of flite, {seconds / 60:.1f} minutes, FLAC at {SAVED} Hz with texts; "
        f"{arguments.repeats} runs; torch threads: {threads}."
    )
    write_text(arguments.output, f"# llasa data encode, embedded codec\n\n{about}\n\n{text}\n{facts}\n")
    print(text)


if __name__ == "__main__":
    main()

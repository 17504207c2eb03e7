"""Measures a cold start: what `llasa --help` and `llasa say` take beside `import torch`.

    python benchmarks/start.py [--repeats 7]

Each is a new process, after a first round that is not counted, so files are in memory. They take turns. A text of a few
words is slower, because the recogniser checks how often it was said. Writes benchmarks/results/start.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import machine

from llasa.measure.tables import write_text

RESULTS = Path(__file__).parent / "results" / "start.md"
TEXTS = ("The door of the house was open.", "Hello.")


def seconds(command: list[str]) -> tuple[float, float]:
    """Processor time and time of a command, with one thread."""
    before, begin = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "python -c 'import torch'": [sys.executable, "-c", "import torch"],
            "llasa --help": [sys.executable, "-m", "llasa", "--help"],
        } | {
            f"llasa say '{text}'": [
                sys.executable, "-m", "llasa", "say", text, "--seed", "1", "-o", f"{folder}/out.wav"
            ] for text in TEXTS
        }  # fmt: skip
        rounds = [{name: seconds(command) for name, command in commands.items()} for _ in range(arguments.repeats + 1)]
    found = {name: [times[name] for times in rounds[1:]] for name in commands}
    first = [spent for spent, _ in next(iter(found.values()))]
    lines = [
        "# Cold start\n",
        f"Medians of {arguments.repeats} new processes in turns.\n",
        "| command | processor time | time | processor time over that of `import torch` |",
        "|---|---|---|---|",
    ]
    for name, times in found.items():
        spent, taken = (median(part) for part in zip(*times, strict=True))
        lines.append(f"| `{name}` | {spent:.2f} s | {taken:.2f} s | {spent / median(first):.2f} |")
    lines += ["", *(f"- {name}: {fact}" for name, fact in machine.describe().items())]
    write_text(arguments.output, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

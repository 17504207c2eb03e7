"""Fine-tunes a model to a reader and measures the result on clips of the reader that training never saw.

    python benchmarks/finetune.py --reader LJSpeech-1.1 [--sentences held-out.txt] [--full] [--work runs/finetune]

Every twelfth recording is held out, as by `llasa data recordings`. `llasa finetune` learns from the others, as a user
runs it; run this script again to continue after a stop. Then the base and the tuned model say the words of the held-out
clips (and the sentences), both after the reference that the fine-tuning chose, and
`bars/finetuning.py` measures them. Writes results/finetune.md, or finetune-full.md with `--full`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import machine

machine.on_two_cores()

from bars import finetuning  # noqa: E402

from llasa import audio  # noqa: E402
from llasa.data.real import ljspeech  # noqa: E402
from llasa.errors import LlasaError  # noqa: E402
from llasa.measure.metrics import words  # noqa: E402
from llasa.measure.tables import table, write_text  # noqa: E402
from llasa.models.folder import read_json  # noqa: E402
from llasa.tts import Llasa  # noqa: E402
from llasa.voice import Voice  # noqa: E402

NAME = "tuned"
HELD_OUT = 12  # one recording in this many


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tunes a model to a reader and measures the result.")
    parser.add_argument("--reader", type=Path, required=True, help="folder in LJSpeech's layout")
    parser.add_argument("--model", default="tiny", help="the base (default tiny)")
    parser.add_argument("--sentences", type=Path, help="held-out sentences to say as well, one a line")
    parser.add_argument("--count", type=int, default=72, help="number of sentences, from the first (default 72)")
    parser.add_argument("--full", action="store_true", help="train all weights instead of a LoRA")
    parser.add_argument("--work", type=Path, default=Path("runs/finetune"), help="folder for the tuned models")
    parser.add_argument("-o", "--output", type=Path, help="the table to write")
    parser.add_argument("--quick", action="store_true", help="a test run with 24 clips, 3 steps and 2 sentences")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except LlasaError as error:
        sys.exit(f"error: {error}")


def run(arguments: argparse.Namespace) -> None:
    kind = "full" if arguments.full else "lora"
    items = ljspeech(arguments.reader)[: 24 if arguments.quick else None]
    if len(items) < 2 * HELD_OUT:
        raise LlasaError(f"{arguments.reader} has {len(items)} recordings: give {2 * HELD_OUT} or more")
    held, rest = items[::HELD_OUT], [item for i, item in enumerate(items) if i % HELD_OUT]
    recordings = arguments.work / "recordings"
    recordings.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"id": path.stem, "audio": str(path.resolve()), "text": text}) for path, text in rest]
    write_text(recordings / "metadata.jsonl", "\n".join(rows) + "\n")
    out = arguments.work / kind
    seconds = tune(arguments, recordings, out)

    sentences = []
    if arguments.sentences:
        lines = arguments.sentences.read_text(encoding="utf-8").splitlines()
        sentences = [line.strip() for line in lines if words(line)][: 2 if arguments.quick else arguments.count]
    clips = [(audio.load(path), text) for path, text in held]
    before, after = Llasa.load(arguments.model, device="cpu"), Llasa.load(out, device="cpu")
    voice = Voice.load(out / "voices" / f"{NAME}.safetensors")
    part = finetuning.measure(before, after, voice, clips, sentences)

    result = read_json(out / "training" / "result.json")
    trained = sum(audio.load(path).size for path, _ in rest) / 16000 / 60
    about = [
        f"# Fine-tuning `{Path(arguments.model).name}` to a reader, {'all weights' if arguments.full else 'LoRA'}\n",
        f"Written by `benchmarks/finetune.py`. {len(rest)} clips, {trained:.1f} minutes, of `{arguments.reader.name}` "
        f"to learn from; judged on {len(held)} clips that were kept from the training and {len(sentences)} sentences. "
        f"The codec's copy of the reader's own clips is the best that a model of this codec can do.\n",
        f"The loss a speech token on clips that `llasa finetune` itself held out: {result['before']:.3f} before, "
        f"{result['after']:.3f} after {result['step']} steps, the best of {result['steps']}.\n",
    ]
    facts = machine.describe("peft", "faster-whisper", "pocketsphinx", "distillmos", "Resemblyzer")
    facts["torch threads"] = os.environ.get("OMP_NUM_THREADS", "as many as cores")
    facts["fine-tuning, this run of the command"] = f"{seconds:.0f} s"
    lines = [*about, table(part.rows), "; ".join(f"{key}: {value}" for key, value in facts.items()) + "\n"]
    name = "finetune-full" if arguments.full else "finetune"
    default = Path(__file__).parent / "results" / f"{name}{'-quick' if arguments.quick else ''}.md"
    write_text(arguments.output or default, "\n".join(lines))
    print(table(part.rows))


def tune(arguments: argparse.Namespace, recordings: Path, out: Path) -> float:
    """Runs `llasa finetune` and returns the seconds that it took."""
    command = [
        str(Path(sys.executable).with_name("llasa")), "finetune", "--data", str(recordings), "--model", arguments.model,
        "--out", str(out), "--name", NAME, "--device", "cpu", *(["--full"] if arguments.full else []),
        *(["--steps", "3"] if arguments.quick else []),
    ]  # fmt: skip
    began = time.perf_counter()
    if subprocess.run(command).returncode:
        raise LlasaError("`llasa finetune` failed or was stopped: run the same command again")
    if not (out / "training" / "result.json").exists():
        raise LlasaError("`llasa finetune` was stopped: run the same command again")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

"""Measures a model on held-out sentences by judges that had no part in its training; `llasa.eval.quality` says how.

    python benchmarks/quality.py --sentences held-out.txt --reader LJSpeech-1.1 --speakers LibriSpeech

Writes quality.md, quality.json (every sentence's figures, by its number) and quality.png into benchmarks/results. Parts
can be run one by one with `--only`: what was measured earlier on the same weights is kept, and figures of the weights
before stand beside those of new ones.

- wer      errors of words by PocketSphinx and the recipe's own recogniser, faulty lengths, DNSMOS; against the teachers
- codec    the codec alone: STOI, PESQ, use of the codebook
- cloning  Resemblyzer similarity of clones to their references
- real     real people: speakers through the codec and cloned (--speakers), the preset of a human reader (--reader)
- speed    real-time factor, first audio, cold start, on two cores
- size     of the folders of the language model and its codec

Of a folder of recordings, only what `llasa data recordings` holds out is used, every twelfth, and of that no speaker of
whom there is more in the folder; `--all-unseen` says that none of it was trained on.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import describe, on_two_cores

PARTS = ("wer", "codec", "cloning", "real", "speed", "size")


def main() -> None:
    arguments = parse()
    on_two_cores()
    from llasa.errors import LlasaError

    try:
        run(arguments)
    except LlasaError as error:
        sys.exit(f"error: {error}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures a model on held-out sentences.")
    parser.add_argument("--sentences", type=Path, required=True, help="held-out sentences, one a line")
    parser.add_argument("--count", type=int, default=100, help="how many of them, from the first (default 100)")
    parser.add_argument("--model", default="tiny", help="an embedded name, a folder or a hub id (default tiny)")
    parser.add_argument("--only", type=lambda value: value.split(","), help="parts, by commas (default: all)")
    parser.add_argument("--reader", type=Path, help="folder in LJSpeech's layout, of the person in the preset `reader`")
    parser.add_argument("--speakers", type=Path, help="folder of audio, file names up to a dash or _ naming speakers")
    parser.add_argument("--all-unseen", action="store_true", help="use every recording: training saw none of them")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="8 sentences, into quality-quick.*: does it run at all?")
    arguments = parser.parse_args()
    recorded = bool(arguments.reader or arguments.speakers)
    if arguments.only is None:
        arguments.only = [name for name in PARTS if name != "real" or recorded]
    if unknown := [name for name in arguments.only if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]}: choose from {', '.join(PARTS)}")
    if "real" in arguments.only and not recorded:
        parser.error("the part real needs --reader or --speakers, a folder of recordings, or both")
    arguments.name = "quality-quick" if arguments.quick else "quality"
    arguments.count = 8 if arguments.quick else arguments.count
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Measures the parts asked for and writes the results after each."""
    from llasa.eval.report import draw_spectrograms

    sentences = read_sentences(arguments.sentences, arguments.count)
    results = earlier_results(arguments)
    for name in arguments.only:
        print(f"measuring {name} ...", file=sys.stderr)
        began = time.perf_counter()
        part = measure(name, arguments, sentences)
        facts = describe("pocketsphinx", "Resemblyzer", "speechmos")
        facts["sentences"] = f"{len(sentences)} of {arguments.sentences.name}"
        facts["took"] = f"{time.perf_counter() - began:.0f} s"
        results["parts"][name] = {"facts": facts, "rows": [asdict(row) for row in part.rows], "items": part.items}
        if name == "wer":
            draw_spectrograms(arguments.out / f"{arguments.name}.png", part.pictures)
        write(arguments, results)


def measure(name: str, arguments: argparse.Namespace, sentences: list[str]) -> Any:
    """One part, whose model is loaded for it alone: a codec can be measured before there is a voice."""
    from llasa.codec import Codec
    from llasa.eval import quality
    from llasa.tts import Llasa

    if name == "size":
        return measure_size(arguments.model)
    if name == "codec":
        return quality.measure_codec(Codec.load(arguments.model), sentences)
    tts = Llasa.load(arguments.model, device="cpu")
    if name == "wer":
        return quality.measure_words(tts, sentences)
    if name == "cloning":
        return quality.measure_cloning(tts, sentences)
    if name == "real":
        return measure_real(tts, arguments, sentences)
    part = quality.measure_speed(tts, sentences[:40])
    cold = [cold_start(arguments.model, sentences[0]) for _ in range(1 if arguments.quick else 5)]
    middle = statistics.median(cold)
    part.items.append({"sentence": 0, "cold_starts": cold})
    what = f"`llasa say` from its start to the file, one sentence, median of {len(cold)} (and their range)"
    figure = f"{middle:.1f} s ({min(cold):.1f} to {max(cold):.1f})"
    part.rows.append(quality.Row(what, figure, "at most 8 s", middle <= 8))
    return part


def measure_size(model: str) -> Any:
    """All files of the language model's folder and of the codec's."""
    from llasa.eval.quality import Part
    from llasa.eval.report import Row
    from llasa.loading import find_codec, find_model

    folder = find_model(model)
    files = [path for part in (folder, find_codec(folder)) for path in part.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 2**20
    return Part([Row("both folders together", f"{size:.1f} MiB", "at most 64 MiB", size <= 64)], [{"mib": size}])


def measure_real(tts: Any, arguments: argparse.Namespace, sentences: list[str]) -> Any:
    """The speakers' folder, the reader's, or both."""
    from llasa import audio
    from llasa.data.real import ljspeech, plain
    from llasa.eval import quality_real as real
    from llasa.eval.quality import Part

    parts = []
    if arguments.speakers:
        clips = [audio.load(path) for path in unseen_speakers(plain(arguments.speakers), arguments.all_unseen)]
        parts += [real.measure_codec(tts.codec, clips), real.measure_cloning(tts, sentences, clips)]
    if arguments.reader:
        items = ljspeech(arguments.reader)[:: 1 if arguments.all_unseen else 12]
        parts.append(real.measure_reader(tts, sentences, [(audio.load(path), said) for path, said in items]))
    return Part([row for part in parts for row in part.rows], [item for part in parts for item in part.items])


def unseen_speakers(items: list[tuple[Path, str]], all_unseen: bool) -> list[Path]:
    """One recording each of the speakers of whom none is among those that training takes."""
    from llasa.errors import LlasaError

    by_speaker: dict[str, list[int]] = {}
    for index, (path, _) in enumerate(items):
        by_speaker.setdefault(path.stem.replace("_", "-").split("-")[0], []).append(index)
    held = [found[0] for found in by_speaker.values() if all_unseen or all(index % 12 == 0 for index in found)]
    if not held:
        raise LlasaError("the folder of --speakers holds no unseen speaker: give more recordings, or --all-unseen")
    return [items[index][0] for index in held]


def cold_start(model: str, sentence: str) -> float:
    """Seconds that the command takes in a process of its own, its files in the page cache."""
    from llasa.errors import LlasaError

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "said.wav")
        llasa = str(Path(sys.executable).with_name("llasa"))
        began = time.perf_counter()
        result = subprocess.run(
            [llasa, "say", sentence, "--model", model, "-o", str(output)], capture_output=True, text=True
        )
        seconds = time.perf_counter() - began
        if result.returncode or not output.exists():
            raise LlasaError(f"`llasa say` failed: {result.stderr.strip()[-200:]}")
    return seconds


def read_sentences(path: Path, count: int) -> list[str]:
    """The first `count` lines with words in them."""
    from llasa.errors import LlasaError
    from llasa.eval.metrics import words

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LlasaError(f"cannot read {path}: {error}") from error
    found = [line.strip() for line in lines if words(line)][:count]
    if len(found) < 4:
        raise LlasaError(f"{path} has {len(found)} sentences: give at least four, one a line")
    return found


def earlier_results(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was measured on the same weights before; of other weights the figures, as `before`."""
    from llasa.loading import find_codec, find_model, fingerprint

    folder = find_model(arguments.model)
    weights = {"language model": fingerprint(folder), "codec": fingerprint(find_codec(folder))}
    path = arguments.out / f"{arguments.name}.json"
    before: dict[str, str] = {}
    if path.exists():
        results = json.loads(path.read_text(encoding="utf-8"))
        if results["weights"] == weights:
            return results
        before = {row["what"]: row["figure"] for part in results["parts"].values() for row in part["rows"]}
    return {"model": Path(arguments.model).name, "weights": weights, "before": before, "parts": {}}


def write(arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """Writes the figures, and the page made of them."""
    from llasa.eval.report import Row, table, write_text

    write_text(arguments.out / f"{arguments.name}.json", json.dumps(rounded(results), indent=1) + "\n")
    weights = ", ".join(f"{name} `{value}`" for name, value in results["weights"].items())
    lines = [f"# Quality of `{results['model']}`\n", f"Written by `benchmarks/quality.py`. Weights: {weights}.\n"]
    for name in [name for name in PARTS if name in results["parts"]]:
        part = results["parts"][name]
        lines += [f"## {name}\n", table([Row(**row) for row in part["rows"]], results["before"])]
        if name == "wer":
            lines.append(f"![Spectrograms of the teacher and the voice, side by side]({arguments.name}.png)\n")
        lines.append("; ".join(f"{key}: {value}" for key, value in part["facts"].items()) + "\n")
    write_text(arguments.out / f"{arguments.name}.md", "\n".join(lines))


def rounded(value: Any) -> Any:
    """For JSON: floats to five digits, NaN as null."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


if __name__ == "__main__":
    main()

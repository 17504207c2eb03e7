"""Measures what a search costs and what it never does; `llasa study inference` measures what it buys.

    python benchmarks/search.py --sentences held-out.txt [--only overhead,runaways]
    python benchmarks/search.py --sentences held-out.txt --only bars --words STUDY \
        --likeness STUDY --both STUDY --alone STUDY

- overhead  seconds of a search with verifiers that do nothing, beside sampling as many tokens in one batch of 16 rows
- runaways  how often the best of 4 runs away, stops early or never ends, on 300 sentences in three voices
- bars      from finished studies of the same sentences, what their candidates were chosen for: words, likeness, or both

Writes search.md and search.json into benchmarks/results; a part that is not run keeps what was measured before. With
bars come the studies' summaries, search-*.csv, and the curves of those for words and likeness, search.png and
search-likeness.png. What bars said of an earlier voice stays as the part "before".
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
WORDS, LIKENESS, ENCODER = "pocketsphinx", "distance", "campplus"  # the studies' judges
DISTANCE = "distance from the reference's voice"
TEACHING, MOVED = "flite's voices", "shifted voices"
ROWS, TIMED, ROUNDS = 16, 6, 6
SHIFTED = {  # the embedded voices' speakers, among those of `llasa data synth`, as the card names them
    "alma": "awb-002",
    "bruno": "awb-134",
    "clara": "kal16-011",
    "dario": "kal16-143",
    "edith": "rms-012",
    "felix": "rms-128",
    "greta": "rms-236",
    "hugo": "slt-101",
}
VOICES, UTTERANCES = ("rms", "slt", "awb"), 300
HEADINGS = {
    "overhead": "What it costs beside sampling",
    "runaways": "What the best of 4 still gets wrong",
    "bars": "What it buys",
    "before": "What it bought an earlier voice",  # weights of before 6725259, which left more to gain
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=Path, required=True, help="held-out sentences, one a line")
    parser.add_argument("--only", type=lambda value: value.split(","), default=["overhead", "runaways"])
    parser.add_argument("--words", type=Path, help="a study with --verify content in voices of flite")
    parser.add_argument("--likeness", type=Path, help="a study with --verify speaker and beam:4x4 in several voices")
    parser.add_argument("--both", type=Path, help="with --verify content=1,speaker=5 and mixed:4x4@2s+16 in the same")
    parser.add_argument("--alone", type=Path, help="with --verify content in the same, the shifted ones that ship")
    arguments = parser.parse_args()
    on_two_cores()
    from llasa.eval.report import Row, table, write_text

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
    """Ratios of seconds a token, search over plain sampling, the two in turns on the same sentences and seeds."""
    from llasa.eval import statistics
    from llasa.eval.report import Row, show
    from llasa.search.account import Account
    from llasa.search.search import Task, Tools, search
    from llasa.search.strategy import parse
    from llasa.speaking import take_seed
    from llasa.text import chunks
    from llasa.tts import Llasa
    from llasa.verifiers.combine import Judge, Stage, Term

    class Nothing:
        """A verifier that has nothing to say about anything."""

        name, process, needs_text, needs_reference = "nothing", True, False, False

        def score(self, texts: Any, audios: Any, references: Any, ended: bool = True) -> np.ndarray:
            return np.zeros(len(audios))

    tts = Llasa.load()
    engine = tts.engine
    ratios: dict[str, list[float]] = {"best-of:16": [], "beam:4x4": []}
    speeds: list[float] = []
    for turn in range(ROUNDS + 1):
        for sentence in sentences[:TIMED]:
            piece = tts._planner.pieces(chunks(sentence)[:1], tts.voice())[0]
            began = time.perf_counter()
            seeds = [take_seed(turn, 0, i) for i in range(ROWS)]
            state = engine.start([piece.prompt], ROWS, seeds, tts.defaults, piece.limit, [piece.least])
            state = engine.extend(state, piece.limit)
            plain = (time.perf_counter() - began) / sum(map(len, state.tokens))
            for written, found in ratios.items():
                judge = Judge([Stage(None, [Term("nothing")])], {"nothing": Nothing()})
                tools = Tools(engine, tts.vocabulary, tts.codec, judge, ROWS, Account(written, ""))
                began = time.perf_counter()
                search(tools, Task(piece, 0, None, turn, tts.defaults), parse(written))
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
    """Faults of the best of 4 against the teachers' lengths, and of one sample for comparison."""
    from bars.voice import LONG, SHORT

    from llasa.data.synthesis import RATE
    from llasa.data.teachers.flite import Speaker, speak
    from llasa.eval import statistics
    from llasa.eval.report import Row, percent
    from llasa.text import normalise
    from llasa.tts import Llasa

    tts = Llasa.load()
    faults: dict[str, list[bool]] = {"one sample": [], "the best of 4": []}
    for index, sentence in enumerate(sentences[:UTTERANCES]):
        voice = VOICES[index % len(VOICES)]
        teacher = len(speak(normalise(sentence), Speaker(voice, voice))[0]) / RATE
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
    voices = ", ".join(VOICES)
    return rows, f"Beyond {LONG} or below {SHORT} of the teacher's length, or without an end; voices {voices} in turn."


def bars(arguments: argparse.Namespace, sentences: list[str]) -> tuple[list[Any], str]:
    """The bars on words, likeness and both, from the studies' results, and the codec's copy of the teacher."""
    rows: list[Any] = []
    made = []
    for name in ("words", "likeness", "both", "alone"):
        if study := getattr(arguments, name):
            if not (study / "summary.csv").exists():
                sys.exit(f"error: {study} holds no finished study: run `llasa study inference` on it to its end")
            shutil.copyfile(study / "summary.csv", RESULTS / f"search-{name}.csv")
            made.append(f"[{name}](search-{name}.csv): `{command(study)}`")
    if arguments.words:
        shutil.copyfile(arguments.words / "plot.png", RESULTS / "search.png")
        rows += word_rows(read(arguments.words), sentences, TEACHING) + trend_rows(arguments.words, TEACHING)
    if arguments.alone:
        rows += word_rows(read(arguments.alone), sentences, MOVED) + trend_rows(arguments.alone, MOVED)
    if arguments.likeness:
        shutil.copyfile(arguments.likeness / "plot.png", RESULTS / "search-likeness.png")
        rows += likeness_rows(read(arguments.likeness)) + trend_rows(arguments.likeness, MOVED)
    if arguments.both and arguments.alone and arguments.likeness:
        rows += both_rows(read(arguments.both), read(arguments.alone), read(arguments.likeness))
    return rows, "The studies: " + "; ".join(made) + "."


def likeness_rows(table: list[dict[str, str]]) -> list[Any]:
    """The beam against best-of-n at as many tokens, by another encoder than chose, and by pitch and spectrum."""
    from llasa.eval import statistics
    from llasa.eval.report import Row, show

    rows = []
    for key, label, sign in ((ENCODER, "similarity to the reference's voice, CAM++", 1), (LIKENESS, DISTANCE, -1)):
        one, _ = paired(table, key, ("best-of", 1), ("best-of", 16))
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
    """What made a study, as `study.json` remembers it."""
    begun = json.loads((study / "study.json").read_text())
    voices = sorted({row["voice"] for row in read(study)})
    parts = ["llasa study inference", f"--voices {','.join(voices)}", f"--verify {begun['verify']}"]
    parts.append(f"--strategies {','.join(['best-of', *begun['strategies']])} --most {begun['most']}")
    return " ".join([*parts, f"--judges {','.join(begun['judges'])} --seed {begun['seed']}"])


def word_rows(table: list[dict[str, str]], sentences: list[str], where: str) -> list[Any]:
    """How much of the excess of word errors over the codec's copies of the teachers the best of 16 takes away."""
    from llasa.codec import Codec
    from llasa.data.teachers.flite import speak, speakers
    from llasa.eval import listeners, metrics, statistics
    from llasa.eval.report import Row, percent, points
    from llasa.text import normalise

    one, many = paired(table, WORDS, ("best-of", 1), ("best-of", 16))
    voices = {int(row["sentence"]): row["voice"] for row in table}
    numbers = sorted(voices)
    codec = Codec.load("tiny")
    known = {speaker.name: speaker for speaker in speakers(240)}
    teachers = [speak(normalise(sentences[i]), known[SHIFTED.get(voices[i], voices[i])])[0] for i in numbers]
    copies = [codec.decode(codec.encode(teacher))[: len(teacher)] for teacher in teachers]
    heard = listeners.spread(listeners.pocketsphinx, copies)
    copy = np.array([metrics.word_errors(sentences[i], words)[0] for i, words in zip(numbers, heard, strict=True)])
    weights = one[:, 1]
    errors, fewer = one[:, 0] * weights, many[:, 0] * weights
    rates = [statistics.error_rate(column, weights) for column in (copy, errors, fewer)]
    excess = statistics.error_rate_difference(errors, copy, weights)
    share, halved = "there is none", None
    if excess.value > 0:
        left = (rates[2].value - rates[0].value) / excess.value
        share, halved = f"{100 * left:.0f} %" if left > 0 else "none", left <= 0.5
    gain = statistics.error_rate_difference(fewer, errors, weights)
    p = statistics.paired_p(many[:, 0] - one[:, 0], weights)
    return [
        Row(f"word error rate, the codec's copies of {where}, {len(numbers)} sentences", percent(rates[0])),
        Row(f"word error rate, one sample, {where}", percent(rates[1])),
        Row(f"word error rate, the best of 16 by `content`, {where}", percent(rates[2])),
        Row(f"one sample less the copies, paired, {where}", points(excess)),
        Row(f"the best of 16 less one sample, paired (p = {p:.4f}), {where}", points(gain), "p < 0.01", p < 0.01),
        Row(f"share of the excess over the copies that is left, {where}", share, "at most 50 %", halved),
    ]


def trend_rows(study: Path, where: str) -> list[Any]:
    """What each doubling of n adds to every judge's figure, up to 16 and after, and where one is worse than best."""
    from llasa.eval import folder
    from llasa.eval.inference_figures import collect, over_optimised, slope
    from llasa.eval.inference_study import BEST_OF, STORED, Settings
    from llasa.eval.report import Row, show

    begun = folder.read(study / folder.SETTINGS)
    settings = Settings(**{key: tuple(value) if isinstance(value, list) else value for key, value in begun.items()})
    items = [folder.read(path) for path in sorted((study / STORED).glob("*.json"))]
    kept = [item for item in items if "takes" in item]
    series = [one for one in collect(settings, kept) if one.strategy == BEST_OF]
    early, late = [one for one in series if one.n <= 16], [one for one in series if one.n >= 16]
    rows: list[Any] = []
    chosen = f"{where}, chosen by {settings.verify.removesuffix('=1')}"
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
    """The mixed search against each of the others at what that one is for."""
    from llasa.eval import statistics
    from llasa.eval.report import Row, show

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
    """A figure and its weight, words for a word error rate, by sentence; those without a figure are left out."""
    rows = [row for row in table if row["strategy"] == strategy and (n is None or int(row["n"]) == n)]
    weight = "words" if key == WORDS else None
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
    """Mean with its interval, and p of its being 0."""
    from llasa.eval import statistics

    return statistics.mean(values.tolist()), statistics.paired_p(values)


if __name__ == "__main__":
    main()

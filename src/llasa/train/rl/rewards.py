"""Turns verifiers' scores into rewards, and the rewards of a group into advantages.

GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1) compares the samples of one prompt with each other. As in Dr. GRPO
(arXiv 2503.20783, section 3.2), an advantage is by default not divided by the group's deviation, which would favour
sentences that are easy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llasa.audio import is_silent
from llasa.errors import LlasaError
from llasa.text.script import letters
from llasa.train.rl.data import Prompt
from llasa.train.rl.policy import Sample
from llasa.train.rl.settings import Rewards
from llasa.verifiers import RATE, Batch, Verifier
from llasa.verifiers.combine import Scorer, make_scorer
from llasa.verifiers.sanity import judge_sound

SPREAD = 1e-6  # rewards that differ by less are equal


@dataclass(frozen=True, eq=False)
class Judged:
    """The rewards of N samples.

    Attributes:
        rewards: (N,) float64.
        fit: (N,) bool, whether the sample is sound and above every floor; others earn nothing.
        scores: the verifiers' scores (N,) by name; 0 for samples that are not sound.
        failures: a line for each verifier that failed; then the rewards mean nothing.
    """

    rewards: np.ndarray
    fit: np.ndarray
    scores: dict[str, np.ndarray]
    failures: list[str]


class Judge:
    """Verifiers with weights and floors.

    Args:
        verify: as `verifiers.combine.parse` reads them.
        load: loads a verifier by its name.
        sound: whether samples with plain faults earn nothing.
        voices: whether there are voices to compare with.

    Raises:
        LlasaError: the description is wrong or a cascade, a verifier cannot be loaded, or one compares with a voice and
            there is none.
    """

    def __init__(self, verify: str, load: Callable[[str], Verifier], sound: bool, voices: bool) -> None:
        self.scorer, self.sound = make_scorer(verify, load), sound
        if len(self.scorer.stages) > 1:
            raise LlasaError(f"{verify} is a cascade, which leaves samples without a score: write it as a sum, a=1,b=1")
        self.terms = self.scorer.stages[0].terms
        self.scorer.check(voices)

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample], sounds: Sequence[np.ndarray]) -> Judged:
        """Scores N samples, each of its prompt, as the sounds (T_i,) at `RATE` that the codec made of them.

        What earns nothing gets 0, or the least of the others if that is below: weights may be negative.
        """
        fit = np.array([self._is_sound(*each) for each in zip(prompts, samples, sounds, strict=True)], bool)
        scores = {term.name: np.zeros(len(samples)) for term in self.terms}
        chosen = np.flatnonzero(fit)
        texts, references = [p.piece.text for p in prompts], [p.reference for p in prompts]
        batch = Batch(texts, sounds, references, RATE).pick(chosen.tolist())
        # A copy, since a scorer gives up a verifier that has failed; here it is asked again about the next group.
        scorer = Scorer(self.scorer.stages, dict(self.scorer.verifiers))
        rewards = np.zeros(len(samples))
        for i, verdict in zip(chosen, scorer.score(batch) if len(chosen) else [], strict=True):
            for term in self.terms:
                scores[term.name][i] = score = verdict.scores.get(term.name, 0.0)
                rewards[i] += term.weight * score
                fit[i] &= term.least is None or score >= term.least
        rewards[~fit] = min(0.0, rewards[fit].min(initial=0.0))
        return Judged(rewards, fit, scores, scorer.failures)

    def _is_sound(self, prompt: Prompt, sample: Sample, samples: np.ndarray) -> bool:
        """Whether a sample may earn anything: never if it is silent, whose transcript is empty."""
        piece = prompt.piece
        if not samples.size or is_silent(samples, RATE):
            return False
        if not self.sound:
            return True
        pace = piece.expected * len(samples) / max(1, len(sample.codes)) / RATE / letters(piece.text)
        plausible = piece.is_plausible(len(sample.codes), sample.finished)
        return plausible and judge_sound(piece.text, samples, pace, sample.finished) is None


def advantages(judged: Judged, lengths: Sequence[int], settings: Rewards) -> np.ndarray | None:
    """How much better each sample of a group is than the group, (N,); None if all are worth the same.

    With `ignore_length`, a line through reward and length, fitted to the samples that earn something, is taken out.
    The probability of a sample falls by about the same factor with each token, so without the line the reward does not
    pull the length either way, whatever the verifiers prefer.
    """
    found, fit = judged.rewards - judged.rewards.mean(), judged.fit
    if settings.ignore_length and fit.sum() > 2:
        along = np.asarray(lengths, float)[fit]
        along -= along.mean()
        if along @ along > SPREAD:
            found[fit] -= along * (along @ found[fit]) / (along @ along)
    if np.ptp(found) < SPREAD:
        return None
    return found / found.std() if settings.normalise else found

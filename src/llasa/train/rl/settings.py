"""Defines the settings in recipes of reinforcement learning, `recipes/*/rl.yaml`."""

from dataclasses import dataclass

from llasa.errors import LlasaError
from llasa.train.settings import Schedule, key, part


@dataclass
class Data:
    """What is said, and in which voices."""

    texts: str = key("", "a file of sentences, one a line", required=True)
    voices: list[str] = key([], "names of voices, which take turns; without them, all presets of the model")
    longest: int = key(160, "characters of the longest sentence; longer ones are left out", least=1)
    held_out: int = key(20, "sentences that are never trained on, for validation", least=1, most=100_000)


@dataclass
class Rollouts:
    """What is sampled in a step."""

    prompts: int = key(8, "sentences of a step, divided among the processes", least=1, most=100_000)
    group: int = key(16, "samples of each sentence, which are compared with each other", least=1, most=100_000)
    passes: int = key(1, "updates from the same samples; only with several does `rewards.clip` matter", least=1)


@dataclass
class Rewards:
    """What a sample is worth, and how much of it is learnt."""

    verify: str = key(
        "",
        "verifiers with weights and floors, as `llasa say --verify` has them: `content=1,speaker>=0.7=0.3`; a sample "
        "below a floor earns nothing. Without it: `content` with the model's own recogniser, else `whisper`",
    )
    sound: bool = key(
        True, "whether a sample that is silent, loops, has no end or does not fit its text's length earns nothing"
    )
    ignore_length: bool = key(
        True,
        "whether the part of a reward that follows from the sample's length is left out, so that nothing is gained by "
        "speaking faster or slower",
    )
    normalise: bool = key(
        False, "whether advantages are divided by their deviation in the group, which favours easy sentences"
    )
    clip: float = key(0.2, "how far the ratio to the sampling model may lie from 1", above=0)
    kl: float = key(0.0, "the weight of the divergence from the model at the start", least=0)


@dataclass
class Validation:
    """How the model is measured on held-out sentences, one sample each, always with the same seeds."""

    every: int = key(10, "steps between two validations", least=1)
    judge: str = key(
        "",
        "verifiers that take no part in the reward, with weights: the model that they prefer is kept. Without it, the "
        "newest is kept",
    )


@dataclass
class RLSettings:
    """A recipe of reinforcement learning."""

    out: str = key("", "the run's folder", required=True)
    model: str = key("tiny", "the model to start from: an embedded name, a folder or a hub id")
    lora: int = key(32, "the rank of a LoRA; 0: all weights learn", least=0, most=100_000)
    data: Data = part(Data, "what is said")
    rollouts: Rollouts = part(Rollouts, "what is sampled in a step")
    rewards: Rewards = part(Rewards, "what a sample is worth")
    validation: Validation = part(Validation, "how it is measured")
    schedule: Schedule = part(
        Schedule, "how long and how fast", steps=200, lr=1e-5, warmup=5, decay=0.0, ema=0.0, lr_floor=1.0
    )

    def check(self) -> None:
        """Refuses impossible settings, before anything is loaded.

        Raises:
            LlasaError: says what is impossible, and what to change.
        """
        if self.rollouts.group < 2:
            raise LlasaError(
                "`rollouts.group` is 1: a sample is compared with the others of its group, so set 2 or more, such as 16"
            )

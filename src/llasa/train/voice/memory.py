"""Plans a fine-tuning: derives steps, batches and learning rate from the model and the amount of speech.

The user sees the plan before the start. No weights are loaded.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig

from llasa.errors import LlasaError
from llasa.models.defaults import dtype_of
from llasa.models.sizes import llama_config
from llasa.train.lm import memory as plans
from llasa.train.lm.data import Reader
from llasa.train.lm.settings import Data, Embeddings, LMSettings, Memory
from llasa.train.settings import Schedule
from llasa.train.voice.data import Base, Clips

ROUNDS = 10  # the most rounds through the clips
STEPS_A_ROUND = 30  # more speech makes rows longer, up to ROW tokens, and then steps of up to ROWS rows
ROW, ROWS = 2048, 8
JOINED = 0.5  # how often a clip follows another, as speech follows a reference in use


@dataclass(frozen=True)
class FinetunePlan:
    """The plan of a run.

    Attributes:
        tokens, rows: a step has `rows` rows of `tokens` tokens.
        longest: the most tokens of a sample.
        steps: the most steps.
        every: steps between two validations.
        warmup: steps of the learning rate's warm-up.
        lr: the learning rate's peak.
        checkpointing: whether activations are computed twice, to fit into memory.
        joined: how often a clip follows another.
        text: the plan for people to read.
    """

    tokens: int
    rows: int
    longest: int
    steps: int
    every: int
    warmup: int
    lr: float
    checkpointing: bool
    joined: float = JOINED
    text: str = ""

    @property
    def step_tokens(self) -> int:
        return self.tokens * self.rows


def learning_rate(width: int, full: bool) -> float:
    """The peak: 5e-5 for all weights at a width of 2,000, less for wider models; ten times that for a LoRA.

    The formula is from Schulman et al., "LoRA Without Regret" (Thinking Machines Lab, 2025). The constants are from
    their tinker-cookbook (hyperparam_utils.py), fitted to Llamas of 1B and more on text. They are not tuned for speech.
    """
    return 5e-5 * (2000 / width) ** 0.781 * (1 if full else 10)


def make_plan(
    clips: Clips, reader: Reader, base: Base, full: bool, steps: int | None, device: torch.device, rank: int
) -> FinetunePlan:
    """Makes the plan for some clips and a model.

    Args:
        steps: the most steps, instead of ROUNDS through the clips.
        rank: the LoRA's rank.

    Raises:
        LlasaError: the training does not fit into the device's memory.
    """
    config: Any = llama_config(base.config)
    sizes = [_size(row, reader) for row in clips.trained]
    # Twice the longest clip, so that any clip can follow another.
    longest = min(base.context, 2 * max(sizes))
    total = sum(sizes)
    tokens = max(longest, min(ROW, total // STEPS_A_ROUND))
    rows = min(ROWS, max(1, round(total / STEPS_A_ROUND / tokens)))
    # Clips that precede another one count, too.
    round_steps = max(1, round(total / (1 - JOINED) / (tokens * rows)))
    count = steps or ROUNDS * round_steps
    lr, every = learning_rate(config.hidden_size, full), max(1, min(round_steps, count) // 2)
    trained, need, work, checkpointing = _needs(config, full, rank, tokens, rows, longest, device)
    speed = plans.matmul_speed(device, config, tokens) * plans.EFFICIENCY
    minutes = math.ceil(count * tokens * rows * work / speed / 60)
    spoken, after = (sum(len(row["codes"]) for row in some) / base.rate for some in (clips.trained, [clips.reference]))
    kind = "all weights" if full else f"a LoRA of rank {rank} on all layers"
    size, rounds = tokens * rows, count / round_steps
    lines = {
        "clips": f"{len(clips.trained)}, {spoken / 60:.1f} minutes; {len(clips.held_out)} more are held out",
        "voice": f"speaks after the clip {clips.reference['id']} ({after:.1f} s)",
        "trains": f"{kind}, {trained / 1e6:,.2f} M parameters, learning rate {lr:.2g}",
        "steps": f"at most {count} of {size:,} tokens ({rounds:.3g} rounds), validated every {every}",
        "needs": f"{_gb(need)} of {_gb(plans.room(device))} free; about {minutes} minutes at most",
    }
    text = "\n".join(f"{key:<8}{value}" for key, value in lines.items())
    return FinetunePlan(tokens, rows, longest, count, every, math.ceil(count / 20), lr, checkpointing, text=text)


def _needs(
    config: Any, full: bool, rank: int, tokens: int, rows: int, longest: int, device: torch.device
) -> tuple[int, float, float, bool]:
    """How many numbers are trained, the bytes and the FLOPs a token that this takes, and whether to use checkpointing.

    Raises:
        LlasaError: the training does not fit, even with gradient checkpointing.
    """
    free = plans.room(device)
    for checkpointing in (False, True):
        settings = LMSettings(
            data=Data(tokens=tokens, rows=rows, longest=longest),
            embeddings=Embeddings(factored=False),
            memory=Memory(gradient_checkpointing=checkpointing),
            schedule=Schedule(ema=0.0),
        )
        whole = plans.make_plan(settings, config, 1, device.type != "cpu")
        if full:
            trained, need, work = whole.parameters, whole.peak, whole.work
        else:
            # Frozen weights have neither gradients nor moments. The LoRA's weights are in float32 and have both.
            trained = _lora_size(config, rank)
            frozen = whole.parameters * dtype_of(None, device.type).itemsize
            need = frozen + 16 * trained + whole.memory["activations"] + whole.memory["logits"]
            work = whole.work * 2 / 3
        if need <= free:
            return trained, need, work, checkpointing
    advice = "leave out --full to need less" if full else "take a smaller model or a larger device"
    raise LlasaError(f"this training needs {_gb(need)} and {_gb(free)} are free: {advice}")


def _size(row: dict[str, Any], reader: Reader) -> int:
    """The number of tokens of a clip alone, with its prompt."""
    tokenizer = reader.vocabulary.tokenizer
    return len(reader.vocabulary.prompt("")) + len(tokenizer.encode(reader.text(row["text"]))) + len(row["codes"]) + 1


def _lora_size(config: LlamaConfig, rank: int) -> int:
    """How many numbers a LoRA on every matrix of the layers has."""
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        layers = LlamaForCausalLM(config).model.layers
    matrices = [module for module in layers.modules() if isinstance(module, torch.nn.Linear)]
    return sum(rank * (matrix.in_features + matrix.out_features) for matrix in matrices)


def _gb(size: float) -> str:
    return f"{size / plans.GB:.2f} GB"

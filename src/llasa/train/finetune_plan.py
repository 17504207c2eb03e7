"""How long and how hard to fine-tune: worked out from the model and the amount of speech, and said before the start.

Knows sizes and clips; loads no weights.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig

from llasa.defaults import dtype_of
from llasa.errors import LlasaError
from llasa.train import plan as plans
from llasa.train.finetune_data import Base, Clips
from llasa.train.lm import Settings
from llasa.train.lm_data import Reader

ROUNDS = 10  # through the clips, at most
STEPS_A_ROUND = 30  # of rows of ROW tokens; with much speech rows are added, up to ROWS of them
ROW, ROWS = 2048, 8
JOINED = 0.5  # how often a clip is said after another, which is what speaking after a reference is


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        tokens, rows: a step is so many rows of so many tokens.
        longest: tokens of a sample.
        steps: the most.
        every: steps between two validations.
        checkpointing: whether activations are computed twice, to fit into memory.
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
    """The peak: for all weights 5e-5 at a width of 2,000, less for wider models; for a LoRA ten times that.

    The form is that of Schulman et al., "LoRA Without Regret" (Thinking Machines Lab, 2025), the constants those of
    their tinker-cookbook (hyperparam_utils.py), fitted to Llamas of 1B and more on text. Not tuned for speech.
    """
    return 5e-5 * (2000 / width) ** 0.781 * (1 if full else 10)


def make_plan(
    clips: Clips, reader: Reader, base: Base, full: bool, steps: int | None, device: torch.device, rank: int
) -> Plan:
    """The plan for some clips and a model.

    Args:
        steps: at most so many, instead of ROUNDS through the clips.
        rank: of the LoRA.

    Raises:
        LlasaError: it does not fit into the device's memory.
    """
    config: Any = LlamaConfig.from_dict(base.config)
    sizes = [_size(row, reader) for row in clips.trained]
    # Room for two, so that any clip can be said after another.
    longest = min(base.context, 2 * max(sizes))
    total = sum(sizes)
    tokens = max(longest, min(ROW, total // STEPS_A_ROUND))
    rows = min(ROWS, max(1, round(total / STEPS_A_ROUND / tokens)))
    # A clip that others are said before comes with them.
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
    return Plan(tokens, rows, longest, count, every, math.ceil(count / 20), lr, checkpointing, text=text)


def _needs(
    config: Any, full: bool, rank: int, tokens: int, rows: int, longest: int, device: torch.device
) -> tuple[int, float, float, bool]:
    """Numbers that are trained, bytes and FLOPs a token that it takes, and whether activations are computed twice.

    Raises:
        LlasaError: it does not fit even so.
    """
    free = plans.room(device)
    for checkpointing in (False, True):
        settings = Settings(
            {}, "", "", "", tokens=tokens, rows=rows, longest=longest, gradient_checkpointing=checkpointing,
            factored=False, muon_lr=0, ema=0,
        )  # fmt: skip
        whole = plans.make_plan(settings, config, 1, device.type != "cpu")
        if full:
            trained, need, work = whole.parameters, whole.peak, whole.work
        else:
            # Weights that stay have neither gradient nor moments; the LoRA's own are in float32, with both.
            trained = _lora_size(config, rank)
            frozen = whole.parameters * dtype_of(None, device.type).itemsize
            need = frozen + 16 * trained + whole.memory["activations"] + whole.memory["logits"]
            work = whole.work * 2 / 3
        if need <= free:
            return trained, need, work, checkpointing
    advice = "leave out --full, which needs less" if full else "take a smaller model or a larger device"
    raise LlasaError(f"this training needs {_gb(need)} and there are {_gb(free)}: {advice}")


def _size(row: dict[str, Any], reader: Reader) -> int:
    """Tokens of a clip said alone, but for the prompt's few of its own."""
    tokenizer = reader.vocabulary.tokenizer
    return len(reader.vocabulary.prompt("")) + len(tokenizer.encode(reader.text(row["text"]))) + len(row["codes"]) + 1


def _lora_size(config: LlamaConfig, rank: int) -> int:
    """Numbers in a LoRA on every matrix of the layers."""
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        layers = LlamaForCausalLM(config).model.layers
    matrices = [module for module in layers.modules() if isinstance(module, torch.nn.Linear)]
    return sum(rank * (matrix.in_features + matrix.out_features) for matrix in matrices)


def _gb(size: float) -> str:
    return f"{size / plans.GB:.2f} GB"

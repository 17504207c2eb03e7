"""Estimates what training a language model takes, before anything is loaded: memory, FLOPs and hours.

The model is built on the meta device, which holds no numbers. The estimate is for this package's own loop: weights,
gradients and optimiser in float32, matrix products in bfloat16 by autocast, or in float32 on a CPU that computes them
faster (`is_half`).
"""

import math
import os
import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from llasa.errors import LlasaError, first_line
from llasa.models.defaults import dtype_of, is_half
from llasa.models.folder import codec_sizes
from llasa.models.hub import HUB_ID, fetch, find_model
from llasa.models.sizes import llama_config
from llasa.models.weights import read_llama_config
from llasa.text.lexicon import ALPHABET
from llasa.train.lm.embeddings import group_sizes
from llasa.train.lm.settings import LMSettings
from llasa.train.lm.stage import LOGITS
from llasa.train.schedule import make_optimisers
from llasa.train.settings import changed
from llasa.vocabulary import character_tokenizer, extend_tokenizer

# A whole step's speed as a share of one large matrix product's; measured shares were 0.3 to 0.5.
EFFICIENCY = 0.4
GB = 2**30


@dataclass(frozen=True)
class Plan:
    """The needs of one process.

    Attributes:
        parameters: how many numbers are trained; tied ones count once.
        memory: bytes by use.
        peak: the most bytes at any time; less than the sum of `memory`, since not all is needed at once.
        flops: FLOPs a token, forward and backward, as if every token had a loss and every sample were the longest.
        work: the same, including what gradient checkpointing computes twice.
        disk: bytes of the checkpoint and the model folder while both are being replaced.
    """

    parameters: int
    memory: dict[str, int]
    peak: int
    flops: float
    work: float
    disk: int


def read_config(settings: LMSettings) -> LlamaConfig:
    """The configuration of the model to train, including speech tokens. No weights are fetched.

    Raises:
        LlasaError: neither the recipe nor `init` describes the model's size.
    """
    try:
        if settings.init and settings.model:
            return llama_config(settings.model)
        codec = fetch(settings.codec, ["*.json"]) if _on_hub(settings.codec) else settings.codec
        size = math.prod(codec_sizes(codec)[0])
        if not settings.init:
            rows = len(character_tokenizer(ALPHABET, size, context=2048))
            return llama_config({"vocab_size": rows, "tie_word_embeddings": False} | settings.model)
        files = ["*.json", "*.jinja"]
        folder = fetch(settings.init, files) if _on_hub(settings.init) else find_model(settings.init)
        config = read_llama_config(folder)
        config.vocab_size = max(extend_tokenizer(AutoTokenizer.from_pretrained(folder), size), config.vocab_size)
        return config
    except (TypeError, ValueError) as error:
        raise LlasaError(f"the tokenizer of {settings.init} cannot be loaded ({first_line(error)})") from error


def _on_hub(name: str) -> bool:
    return bool(HUB_ID.fullmatch(name)) and not os.path.isdir(name)


def make_plan(settings: LMSettings, config: LlamaConfig, processes: int = 1, accelerator: bool = False) -> Plan:
    """What one of `processes` processes needs.

    Args:
        processes: with `memory.shard`, they divide what each would otherwise hold as a copy.
        accelerator: whether it has a GPU, where AdamW updates all parameters at once and needs memory for that.
    """
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    layers, width, rows = config.num_hidden_layers, config.hidden_size, config.vocab_size
    own = config.num_attention_heads
    size = config.head_dim or width // own
    heads, shared = size * own, size * (config.num_key_value_heads or own)
    tables = 1 if config.tie_word_embeddings else 2
    parameters = sum(parameter.numel() for parameter in model.parameters())
    levels = _levels(settings) if settings.embeddings.factored or settings.embeddings.output_groups else []
    groups = group_sizes(settings.embeddings.output_groups, levels) if settings.embeddings.output_groups else []
    logits_each = rows - math.prod(groups) + sum(groups) if groups else rows
    summed = [sum(levels) if settings.embeddings.factored else 0] * tables
    if groups:
        summed[-1] = sum(groups)  # replaces the digits; for both tables if they are tied
    digits = width * sum(summed)
    matrices = sum(p.numel() for name, p in model.named_parameters() if "layers." in name and p.ndim == 2)
    head = rows * width
    optimisers = make_optimisers(model, settings.schedule.lr, settings.schedule.muon_lr)
    sizes = [sum(p.numel() for group in o.param_groups for p in group["params"]) for o in optimisers]
    states = [2, 1]  # AdamW's two moments, Muon's one

    tokens, trained = settings.data.tokens, parameters + digits
    half = accelerator or is_half("cpu")
    # Bytes a token that autograd keeps for a layer: the residual stream and its norms in float32, inputs and outputs of
    # the matrix products in bfloat16 or float32.
    if half:
        layer = 26 * width + 6 * heads + 4 * shared + 4 * own + 8 * config.intermediate_size
    else:
        layer = 24 * width + 12 * heads + 8 * shared + 4 * own + 16 * config.intermediate_size
    if settings.memory.gradient_checkpointing:
        activations = tokens * (layers * 4 * width + layer)
        logits = min(tokens, LOGITS) * logits_each * 12
    else:
        activations = tokens * layers * layer
        logits = tokens * logits_each * 12
    optimiser = 4 * (sum(n * count for n, count in zip(states, sizes, strict=False)) + 2 * digits)
    # With FSDP2, gathered at once: the tables with their gradient, and a layer with its gradient and the next layer.
    share = processes if settings.memory.shard else 1
    gathered = 8 * tables * head + 12 * matrices // layers if share > 1 else 0
    memory = {
        "weights": 4 * trained // share,
        "gradients": 4 * trained // share,
        "optimiser": optimiser // share,
        "average": 4 * trained // share if settings.schedule.ema else 0,
        "gathered": gathered,
        "bfloat16 copies": 2 * (matrices + logits_each * width) if half else 0,
        # The tables computed from the digits, and their gradients.
        "factored tables": 8 * head * sum(count > 0 for count in summed),
        "activations": activations + tokens * (14 if half else 16) * width,
        "logits": logits,
    }
    in_use = sum(memory[name] for name in ("weights", "optimiser", "average", "gathered", "bfloat16 copies"))
    backward = memory["activations"] + memory["logits"] + memory["factored tables"]
    # One process with one row has no gradients yet when it holds all activations. Several processes always hold theirs.
    backward += memory["gradients"] if rows_each(settings, processes) > 1 or processes > 1 else 0
    update = memory["gradients"] + (memory["weights"] if accelerator else 0)
    flops = 6.0 * (matrices + logits_each * width + layers * heads * settings.data.longest)
    return Plan(
        parameters=trained,
        memory={name: size for name, size in memory.items() if size},
        peak=in_use + max(backward, update),
        flops=flops,
        work=flops * 4 / 3 if settings.memory.gradient_checkpointing else flops,
        disk=2 * (4 * trained + optimiser + (4 * trained if settings.schedule.ema else 0) + 4 * parameters),
    )


def rows_each(settings: LMSettings, processes: int) -> int:
    """How many rows of a step each process computes."""
    return math.ceil((settings.data.rows or processes) / processes)


def _levels(settings: LMSettings) -> list[int]:
    return codec_sizes(settings.codec)[0]


def room(device: torch.device, processes: int = 1) -> int:
    """Bytes that a process can use: the free memory of its GPU, or its share of the machine's."""
    import psutil

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available // processes


def on_this_machine(processes: int) -> int:
    """How many of the processes run on this machine, according to torchrun."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", processes))


def require_memory(settings: LMSettings, device: torch.device, processes: int) -> None:
    """Refuses a run that will not fit, before its model is loaded.

    Raises:
        LlasaError: the run needs more memory than there is; the message says what to change.
    """
    config = read_config(settings)
    here = on_this_machine(processes)
    free, gpu = room(device, here), device.type != "cpu"
    plan = make_plan(settings, config, processes, gpu)
    # A model is loaded into the machine's memory before it moves to a GPU or is split into parts.
    if gpu and (whole := 4 * plan.parameters) > (own := room(torch.device("cpu"), here)):
        raise LlasaError(
            f"each of {here} processes first loads the whole model, {_gb(whole)}, and each can use {_gb(own)} of this "
            "machine's memory: start fewer processes here"
        )
    if (need := plan.peak) > free:
        raise LlasaError(
            f"this training needs {_gb(need)} a process and {_gb(free)} are free: "
            + remedy(settings, config, processes, gpu, free)
        )


def remedy(settings: LMSettings, config: LlamaConfig, processes: int, accelerator: bool, free: int) -> str:
    """The settings that would make the run fit, as advice; those that cost the least time come first."""
    changes: dict[str, Any] = {}
    tokens, rows = settings.data.tokens, settings.data.rows or processes
    steps: list[dict[str, Any]] = [{"memory.gradient_checkpointing": True}]
    while tokens % 2 == 0 and tokens // 2 >= settings.data.longest:
        tokens, rows = tokens // 2, rows * 2
        steps.append({"data.tokens": tokens, "data.rows": rows})
    if processes > 1 and not settings.has_aids:
        steps.append({"memory.shard": True})
    least = make_plan(settings, config, processes, accelerator).peak
    for step in [*steps, {"schedule.ema": 0}]:
        changes |= step
        peak = make_plan(changed(settings, changes), config, processes, accelerator).peak
        if peak <= free:
            return "set " + ", ".join(f"{key}: {str(value).lower()}" for key, value in changes.items())
        least = min(least, peak)
    more = ", more processes" if settings.memory.shard else ""
    return f"no setting brings it below {_gb(least)}: take a smaller model{more} or a larger device"


def matmul_speed(device: torch.device, config: LlamaConfig, tokens: int, seconds: float = 0.5) -> float:
    """FLOP/s of a matrix product of the model's sizes in the precision of training, the best of several."""
    rows = min(tokens, 512 if device.type == "cpu" else 8192)  # a CPU needs no more to be busy
    width, inner, dtype = config.hidden_size, config.intermediate_size, dtype_of(None, device.type)
    a = torch.randn(rows, width, device=device, dtype=dtype)
    b = torch.randn(width, inner, device=device, dtype=dtype)
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end or not best:
        start = time.perf_counter()
        for _ in range(4):
            a @ b
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        best = max(best, 4 * 2.0 * rows * width * inner / (time.perf_counter() - start))
    return best


def report(settings: LMSettings) -> str:
    """The plan that `llasa train lm RECIPE --plan` prints.

    It is for one process on each GPU of this machine, or one on its CPU; under torchrun, for torchrun's processes.
    """
    config = read_config(settings)
    gpu = torch.accelerator.is_available()
    device = torch.accelerator.current_accelerator() if gpu else torch.device("cpu")
    assert device is not None
    processes = int(os.environ.get("WORLD_SIZE", torch.accelerator.device_count() if gpu else 1))
    plan, free = make_plan(settings, config, processes, gpu), room(device, on_this_machine(processes))
    rows = settings.data.rows or processes
    tokens, each = settings.data.tokens, rows_each(settings, processes)
    step = tokens * rows
    total = float(step) * settings.schedule.steps
    speed = matmul_speed(device, config, settings.data.tokens)
    hours = total * plan.work / (processes * speed * EFFICIENCY) / 3600
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    parts = ", ".join(f"{name} {_gb(size)}" for name, size in plan.memory.items())
    fits = "it fits" if plan.peak <= free else f"it does not fit: {remedy(settings, config, processes, gpu, free)}"
    lines = {
        "parameters": f"{plan.parameters:,}",
        "a step": f"{step:,} tokens ({rows} rows of {tokens:,}, {each} a process)",
        "memory": f"{_gb(plan.peak)} a process of {_gb(free)}: {fits}",
        "of it": parts,
        "disk": f"{_gb(plan.disk)} in {settings.out}",
        "FLOPs": f"{plan.flops:.3g} a token, {plan.flops * total:.3g} in all ({total:.3g} tokens)",
        "time": f"{_span(hours)}: {processes} x {name}, {speed / 1e12:.3g} TFLOP/s measured, {EFFICIENCY:.0%} of it",
    }
    return "\n".join(f"{key:<12}{value}" for key, value in lines.items())


def _gb(size: float) -> str:
    return f"{size / GB:.3g} GB" if size >= GB else f"{size / 2**20:.3g} MB"


def _span(hours: float) -> str:
    return (
        f"{hours / 24:.1f} days" if hours > 48 else f"{hours:.1f} hours" if hours > 1 else f"{hours * 60:.0f} minutes"
    )

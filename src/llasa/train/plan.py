"""What training a language model will take, said before anything is loaded: memory, FLOPs, hours.

Knows the sizes of a Llama and of its training; builds it on the meta device, which holds no numbers. The memory is that
of this package's own loop: weights, gradients and optimiser in float32, products in bfloat16 by autocast.
"""

import math
import os
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from llasa.errors import LlasaError
from llasa.lexicon import ALPHABET
from llasa.loading import HUB_ID, codec_sizes, fetch, find_model
from llasa.train import loop
from llasa.train.lm import LOGITS, Settings
from llasa.train.tables import group_sizes
from llasa.vocabulary import character_tokenizer, extend_tokenizer

# Of the speed of one large matrix product, what a whole step keeps: 0.3 to 0.5 of it where we have measured.
EFFICIENCY = 0.4
GB = 2**30


@dataclass(frozen=True)
class Plan:
    """The needs of one process.

    Attributes:
        parameters: numbers that are trained, tied ones once.
        memory: bytes by what they hold.
        peak: bytes when it holds the most; less than their sum where not all of it is there at once.
        flops: of a token, forward and backward, as if every token had a loss and every sample were the longest.
        work: the same with what gradient checkpointing computes twice.
        disk: bytes of the checkpoint and the model folder while both are being replaced.
    """

    parameters: int
    memory: dict[str, int]
    peak: int
    flops: float
    work: float
    disk: int


def read_config(settings: Settings) -> LlamaConfig:
    """The configuration that the run will have, speech tokens included; of weights nothing is fetched.

    Raises:
        LlasaError: neither the recipe nor `init` says how large the model is.
    """
    try:
        if settings.init and settings.model:
            return LlamaConfig(**settings.model)
        codec = fetch(settings.codec, ["*.json"]) if _on_hub(settings.codec) else settings.codec
        size = math.prod(codec_sizes(codec)[0])
        if not settings.init:
            rows = len(character_tokenizer(ALPHABET, size, context=2048))
            return LlamaConfig(vocab_size=rows, **({"tie_word_embeddings": False} | settings.model))
        files = ["*.json", "*.jinja"]
        folder = fetch(settings.init, files) if _on_hub(settings.init) else find_model(settings.init)
        config = AutoConfig.from_pretrained(folder)
        config.vocab_size = max(extend_tokenizer(AutoTokenizer.from_pretrained(folder), size), config.vocab_size)
        return config
    except (TypeError, ValueError) as error:
        raise LlasaError(f"`model` in the recipe is no Llama: {str(error).splitlines()[0]}") from error


def _on_hub(name: str) -> bool:
    return bool(HUB_ID.fullmatch(name)) and not os.path.isdir(name)


def make_plan(settings: Settings, config: LlamaConfig, processes: int = 1, accelerator: bool = False) -> Plan:
    """What one of so many processes needs.

    Args:
        processes: with `shard`, each has its part of what there else is a copy of.
        accelerator: whether it has a GPU, where AdamW works on all parameters at once and needs room for it.
    """
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    layers, width, rows = config.num_hidden_layers, config.hidden_size, config.vocab_size
    own = config.num_attention_heads
    size = config.head_dim or width // own
    heads, shared = size * own, size * (config.num_key_value_heads or own)
    tables = 1 if config.tie_word_embeddings else 2
    parameters = sum(parameter.numel() for parameter in model.parameters())
    levels = _levels(settings) if settings.factored or settings.output_groups else []
    groups = group_sizes(settings.output_groups, levels) if settings.output_groups else []
    logits_each = rows - math.prod(groups) + sum(groups) if groups else rows
    summed = [sum(levels) if settings.factored else 0] * tables
    if groups:
        summed[-1] = sum(groups)  # instead, and tied for both
    digits = width * sum(summed)
    matrices = sum(p.numel() for name, p in model.named_parameters() if "layers." in name and p.ndim == 2)
    head = rows * width
    optimisers = loop.optimisers(model, settings.lr, settings.muon_lr)
    sizes = [sum(p.numel() for group in o.param_groups for p in group["params"]) for o in optimisers]
    states = [2, 1]  # AdamW's two moments, Muon's one

    tokens, trained = settings.tokens, parameters + digits
    # What autograd keeps of a layer, in bytes a token: the residual stream and its norms in float32, what goes into and
    # out of the products in bfloat16.
    layer = 26 * width + 6 * heads + 4 * shared + 4 * own + 8 * config.intermediate_size
    if settings.gradient_checkpointing:
        activations = tokens * (layers * 4 * width + layer)
        logits = min(tokens, LOGITS) * logits_each * 12
    else:
        activations = tokens * layers * layer
        logits = tokens * logits_each * 12
    optimiser = 4 * (sum(n * count for n, count in zip(states, sizes, strict=False)) + 2 * digits)
    # In parts, what is gathered at once: the tables with their gradient, and a layer with its gradient and the next.
    share = processes if settings.shard else 1
    gathered = 8 * tables * head + 12 * matrices // layers if share > 1 else 0
    memory = {
        "weights": 4 * trained // share,
        "gradients": 4 * trained // share,
        "optimiser": optimiser // share,
        "average": 4 * trained // share if settings.ema else 0,
        "gathered": gathered,
        "bfloat16 copies": 2 * (matrices + logits_each * width),
        # The table that the digits make is computed, and has a gradient of its own.
        "factored tables": 8 * head * sum(count > 0 for count in summed),
        "activations": activations + tokens * 14 * width,
        "logits": logits,
    }
    in_use = sum(memory[name] for name in ("weights", "optimiser", "average", "gathered", "bfloat16 copies"))
    backward = memory["activations"] + memory["logits"] + memory["factored tables"]
    # One process with one row has no gradient yet when it has all activations; several keep theirs in what they send.
    backward += memory["gradients"] if rows_each(settings, processes) > 1 or processes > 1 else 0
    update = memory["gradients"] + (memory["weights"] if accelerator else 0)
    flops = 6.0 * (matrices + logits_each * width + layers * heads * settings.longest)
    return Plan(
        parameters=trained,
        memory={name: size for name, size in memory.items() if size},
        peak=in_use + max(backward, update),
        flops=flops,
        work=flops * 4 / 3 if settings.gradient_checkpointing else flops,
        disk=2 * (4 * trained + optimiser + (4 * trained if settings.ema else 0) + 4 * parameters),
    )


def rows_each(settings: Settings, processes: int) -> int:
    """The rows of a step that a process computes."""
    return math.ceil((settings.rows or processes) / processes)


def _levels(settings: Settings) -> list[int]:
    return codec_sizes(settings.codec)[0]


def room(device: torch.device, processes: int = 1) -> int:
    """Bytes that a process can have: the free memory of its GPU, or its share of the machine's."""
    import psutil

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available // processes


def on_this_machine(processes: int) -> int:
    """How many of the processes share this machine, as torchrun says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", processes))


def require_memory(settings: Settings, device: torch.device, processes: int) -> None:
    """Refuses a run that will not fit, before its model is loaded.

    Raises:
        LlasaError: it needs more memory than there is; the message says what to change.
    """
    config = read_config(settings)
    here = on_this_machine(processes)
    free, gpu = room(device, here), device.type != "cpu"
    plan = make_plan(settings, config, processes, gpu)
    # A model goes to its GPU, or into parts, by way of the machine's memory.
    if gpu and (whole := 4 * plan.parameters) > (own := room(torch.device("cpu"), here)):
        raise LlasaError(
            f"each of {here} processes loads the whole model first, {_gb(whole)}, and there are {_gb(own)} of this "
            "machine's memory for it: start fewer processes here"
        )
    if (need := plan.peak) > free:
        raise LlasaError(
            f"this training needs {_gb(need)} a process and there are {_gb(free)}: "
            + remedy(settings, config, processes, gpu, free)
        )


def remedy(settings: Settings, config: LlamaConfig, processes: int, accelerator: bool, free: int) -> str:
    """Which settings would make it fit, the cheapest first."""
    changes: dict[str, Any] = {}
    tokens, rows = settings.tokens, settings.rows or processes
    steps: list[dict[str, Any]] = [{"gradient_checkpointing": True}]
    while tokens % 2 == 0 and tokens // 2 >= settings.longest:
        tokens, rows = tokens // 2, rows * 2
        steps.append({"tokens": tokens, "rows": rows})
    if processes > 1 and not (
        settings.factored or settings.output_groups or settings.muon_lr or settings.pointing_heads
    ):
        steps.append({"shard": True})
    least = make_plan(settings, config, processes, accelerator).peak
    for step in [*steps, {"ema": 0}]:
        changes |= step
        peak = make_plan(replace(settings, **changes), config, processes, accelerator).peak
        if peak <= free:
            return "set " + ", ".join(f"{key}: {str(value).lower()}" for key, value in changes.items())
        least = min(least, peak)
    more = ", more processes" if settings.shard else ""
    return f"no setting brings it below {_gb(least)}: take a smaller model{more} or a larger device"


def matmul_speed(device: torch.device, config: LlamaConfig, tokens: int, seconds: float = 0.5) -> float:
    """FLOP/s of the model's own kind of product in bfloat16, the best of some."""
    rows, width, inner = min(tokens, 8192), config.hidden_size, config.intermediate_size
    a = torch.randn(rows, width, device=device, dtype=torch.bfloat16)
    b = torch.randn(width, inner, device=device, dtype=torch.bfloat16)
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end or not best:
        start = time.perf_counter()
        for _ in range(4):
            a @ b
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        best = max(best, 4 * 2.0 * rows * width * inner / (time.perf_counter() - start))
    return best


def report(settings: Settings) -> str:
    """What `llasa train lm RECIPE --plan` prints: for all GPUs of this machine, or for its processors as one; under
    torchrun, for its processes."""
    config = read_config(settings)
    gpu = torch.accelerator.is_available()
    device = torch.accelerator.current_accelerator() if gpu else torch.device("cpu")
    assert device is not None
    processes = int(os.environ.get("WORLD_SIZE", torch.accelerator.device_count() if gpu else 1))
    plan, free = make_plan(settings, config, processes, gpu), room(device, on_this_machine(processes))
    rows = settings.rows or processes
    step = settings.tokens * rows
    total = float(step) * settings.steps
    speed = matmul_speed(device, config, settings.tokens)
    hours = total * plan.work / (processes * speed * EFFICIENCY) / 3600
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    parts = ", ".join(f"{name} {_gb(size)}" for name, size in plan.memory.items())
    fits = "it fits" if plan.peak <= free else f"it does not fit: {remedy(settings, config, processes, gpu, free)}"
    lines = {
        "parameters": f"{plan.parameters:,}",
        "a step": f"{step:,} tokens ({rows} rows of {settings.tokens:,}, {rows_each(settings, processes)} a process)",
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

"""Measures the engine on a GPU: tokens per second of 1 to 256 streams, against memory bandwidth and transformers.

    python benchmarks/gpu.py [--models 1B tiny] [--streams 1 16 64 256] [--tokens 200]

Models are random, in bfloat16. `bandwidth` is the share of the bytes that a copy inside the GPU's memory moves in the
same time, counting each weight of a step once and the keys and values that it reads. Writes benchmarks/results/gpu.md.
`pytest -m gpu` runs the tests that need a GPU.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import machine
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llasa.engine import Sampling
from llasa.engine.torch_engine import Engine
from llasa.measure.tables import write_text

RESULTS = Path(__file__).parent / "results" / "gpu.md"
# Layers, hidden, intermediate, heads, key and value heads, text tokens, speech tokens.
SIZES = {"tiny": (8, 320, 960, 5, 5, 100, 16384), "1B": (16, 2048, 8192, 32, 8, 128264, 65536)}


def random_llama(size: str) -> tuple[LlamaForCausalLM, int, int]:
    """A random Llama in bfloat16 on the GPU; the number of text tokens, and of speech tokens."""
    layers, hidden, intermediate, heads, kv_heads, text, speech = SIZES[size]
    config = LlamaConfig(
        vocab_size=text + speech, num_hidden_layers=layers, hidden_size=hidden, intermediate_size=intermediate,
        num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=0, pad_token_id=1, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    return model, text, speech


def copied_per_second() -> float:
    """Bytes read and written per second by a copy of 4 GB."""
    source = torch.empty(2**32, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return median(2 * source.numel() / timed(lambda: target.copy_(source)) for _ in range(10))


def timed(run: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def measure(size: str, streams: list[int], tokens: int, repeats: int, bandwidth: float) -> list[str]:
    """A row of the table for every number of streams."""
    model, text, speech = random_llama(size)
    engine = Engine(model, text, speech, 5)
    layers, hidden, _, heads, kv_heads, *_ = SIZES[size]
    inner = sum(p.numel() for name, p in model.named_parameters() if "embed" not in name and "lm_head" not in name)
    weights = 2 * (inner + speech * hidden)
    rows = []
    for count in streams:
        prompts = torch.randint(text, (count, 100), generator=torch.Generator().manual_seed(0))

        def decode(prompts: torch.Tensor = prompts, count: int = count) -> None:
            state = engine.start(
                prompts.tolist(),
                seeds=range(count),
                sampling=Sampling(0.8),
                max_tokens=tokens,
                min_tokens=[tokens] * count,
            )
            engine.extend(state, tokens)

        def steps(prompts: torch.Tensor = prompts, count: int = count) -> float:
            """Seconds of a step, prefill and the capture of graphs excluded."""
            state = engine.start(
                prompts.tolist(),
                seeds=range(count),
                sampling=Sampling(0.8),
                max_tokens=tokens,
                min_tokens=[tokens] * count,
            )
            engine.extend(state, 8)
            left = min(tokens - 8, 140)  # one graph: 100 tokens of prompt and these fit in its columns
            return timed(lambda: engine.extend(state, left)) / left

        def generate(prompts: torch.Tensor = prompts) -> None:
            model.generate(
                prompts.cuda(), attention_mask=torch.ones_like(prompts).cuda(), do_sample=True, temperature=0.8,
                top_k=0, max_new_tokens=tokens,
            )  # fmt: skip

        decode()
        step = median(steps() for _ in range(repeats))
        whole = median(timed(decode) for _ in range(repeats))
        own = count * tokens / whole
        other = count * tokens / median(timed(generate) for _ in range(max(1, repeats // 2)))
        cached = 2 * 2 * layers * kv_heads * (hidden // heads) * 256 * count
        share = (weights + cached) / step / bandwidth
        rows.append(
            f"| {size} | {count} | {own:,.0f} | {count / step:,.0f} | {share:.0%} | {other:,.0f} | {own / other:.1f} |"
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["1B", "tiny"])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 16, 64, 256])
    parser.add_argument("--tokens", type=int, default=200, help="tokens to generate in each stream")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: there is no CUDA GPU here: run this where torch.cuda.is_available() is true")
    bandwidth = copied_per_second()
    lines = [
        "# The engine on a GPU\n",
        f"{torch.cuda.get_device_name()}; a copy inside its memory moves {bandwidth / 1e12:.2f} TB/s. Tokens a second",
        f"of all streams together, prompts of 100 tokens, {arguments.tokens} tokens generated in each, medians of",
        f"{arguments.repeats} runs. `steps` leaves out prefill and the capture of graphs.\n",
        "| random Llama | streams | engine | steps | bandwidth | transformers | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for size in arguments.models:
        lines += measure(size, arguments.streams, arguments.tokens, arguments.repeats, bandwidth)
    lines += ["", *(f"- {name}: {fact}" for name, fact in machine.describe().items())]
    write_text(arguments.output, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""Compares the speed of the engine and of transformers' `generate` on the same random Llamas.

    python benchmarks/engine.py [--models 7M 20M] [--streams 1 16] [--dtypes bfloat16 float32] [--tokens 200]

Both continue the same prompts by sampling at temperature 0.8, prefill included. They take turns, so that other load on
the machine affects both. Writes benchmarks/results/engine.md.
"""

import argparse
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

RESULTS = Path(__file__).parent / "results" / "engine.md"
# Layers, hidden, intermediate, heads.
SIZES = {
    "1M": (4, 128, 384, 2), "7M": (8, 256, 688, 4), "20M": (10, 384, 1024, 6), "60M": (12, 640, 1728, 10),
    "120M": (12, 896, 2432, 14), "250M": (16, 1152, 3072, 18),
}  # fmt: skip
TEXT_TOKENS, CODES = 60, 4096
END = 5


def random_llama(size: str, dtype: torch.dtype) -> LlamaForCausalLM:
    """A random Llama with a head size of 64, tied embeddings and a vocabulary of `TEXT_TOKENS` and `CODES`."""
    torch.manual_seed(0)
    layers, hidden, intermediate, heads = SIZES[size]
    config = LlamaConfig(
        vocab_size=TEXT_TOKENS + CODES, num_hidden_layers=layers, hidden_size=hidden, intermediate_size=intermediate,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=0, pad_token_id=1, eos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype).eval()


def contenders(
    model: LlamaForCausalLM, streams: int, prompt: int, tokens: int, threads: int | None = None
) -> dict[str, Callable[[], int]]:
    """Functions that each generate once and return how many tokens that gave. `threads`: how many the engine takes."""
    prompts = torch.randint(TEXT_TOKENS, (streams, prompt), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(prompts)
    engine = Engine(model, TEXT_TOKENS, CODES, END)
    engine.threads = threads or engine.threads

    def generate() -> int:
        ids = model.generate(
            prompts, attention_mask=mask, do_sample=True, temperature=0.8, top_k=0, max_new_tokens=tokens
        )
        return streams * (ids.shape[1] - prompt)

    def extend() -> int:
        state = engine.start(prompts.tolist(), seeds=range(streams), sampling=Sampling(0.8), max_tokens=tokens)
        return sum(map(len, engine.extend(state, tokens).tokens))

    return {"transformers": generate, "engine": extend}


def race(runs: dict[str, Callable[[], int]], repeats: int) -> dict[str, float]:
    """The median tokens per second of each contender. They take turns; the first round is a warm-up and not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            count = run()
            if turn:
                speeds[name].append(count / (time.perf_counter() - begin))
    return {name: median(values) for name, values in speeds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["7M", "20M"])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--dtypes", nargs="+", choices=["bfloat16", "float32"], default=["bfloat16", "float32"])
    parser.add_argument("--prompt", type=int, default=100, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=200, help="tokens to generate in each stream")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: what torch chooses")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    lines = [
        "# Decode engine against transformers' generate\n",
        f"Tokens per second of all streams together, prefill of {arguments.prompt} tokens a stream included,",
        f"{arguments.tokens} tokens generated in each; the median of {arguments.repeats} runs in turns.\n",
        "| random Llama | weights | streams | transformers | engine | ratio |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for size in arguments.models:
        for dtype in arguments.dtypes:
            model = random_llama(size, getattr(torch, dtype))
            for streams in arguments.streams:
                runs = contenders(model, streams, arguments.prompt, arguments.tokens)
                speed = race(runs, arguments.repeats)
                ratio = speed["engine"] / speed["transformers"]
                lines.append(
                    f"| {size} | {dtype} | {streams} | {speed['transformers']:.0f} | {speed['engine']:.0f} "
                    f"| {ratio:.1f} |"
                )
                print(lines[-1], flush=True)
    lines += ["", *(f"- {name}: {fact}" for name, fact in machine.describe().items())]
    write_text(arguments.output, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

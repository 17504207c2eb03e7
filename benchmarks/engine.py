"""Compares engines on the same models: torch's, llama.cpp's, llama.cpp without this package, and transformers.

    python benchmarks/engine.py [--models tiny 20M 1B] [--streams 1 16] [--tokens 200] [--repeats 3]

All continue one prompt by sampling at temperature 0.8. They take turns, so that other load on the machine affects all.
Needs the extra llamacpp, and for 1B some 16 GB of memory. Writes benchmarks/results/engine.md.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import machine
import torch
from transformers import LlamaConfig, LlamaForCausalLM, StoppingCriteriaList

from llasa.engine import Backend, Sampling
from llasa.engine.llama import weights_of
from llasa.engine.llamacpp_context import library, load
from llasa.engine.llamacpp_engine import KINDS, LlamaCpp
from llasa.engine.torch_engine import Engine
from llasa.measure.tables import write_text
from llasa.models.defaults import INT4, dtype_of
from llasa.models.folder import load_tokenizer
from llasa.models.gguf import write_speech
from llasa.models.hub import find_model
from llasa.vocabulary import read_vocabulary

RESULTS = Path(__file__).parent / "results" / "engine.md"
# Layers, hidden, intermediate, heads, heads of keys and values, tokens of text, codes.
SIZES = {
    "1M": (4, 128, 384, 2, 2, 60, 4096), "7M": (8, 256, 688, 4, 4, 60, 4096), "20M": (10, 384, 1024, 6, 6, 60, 4096),
    "60M": (12, 640, 1728, 10, 10, 60, 4096), "120M": (12, 896, 2432, 14, 14, 60, 4096),
    "250M": (16, 1152, 3072, 18, 18, 60, 4096), "1B": (16, 2048, 8192, 32, 8, 128264, 65536),
}  # fmt: skip
END = 5
PROMPT = 60  # tokens
SAMPLING = Sampling(temperature=0.8)
Turn = tuple[int, float]  # tokens generated, and the seconds that it took


@dataclass(frozen=True)
class Case:
    """A model, and which of its tokens are speech."""

    model: LlamaForCausalLM
    first: int
    size: int
    end: int


def random_llama(size: str, dtype: torch.dtype) -> LlamaForCausalLM:
    """A random Llama with a head size of 64 and tied embeddings."""
    layers, hidden, intermediate, heads, kv_heads, text, codes = SIZES[size]
    config = LlamaConfig(
        vocab_size=text + codes, num_hidden_layers=layers, hidden_size=hidden, intermediate_size=intermediate,
        num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=0, pad_token_id=1, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def open_case(name: str) -> Case:
    """The embedded model, or a random one of a size."""
    if name in SIZES:
        *_, text, codes = SIZES[name]
        return Case(random_llama(name, torch.bfloat16), text, codes, END)
    folder = find_model(name)
    vocabulary = read_vocabulary(load_tokenizer(folder))
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    return Case(model, vocabulary.first, vocabulary.size, vocabulary.end)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class Alone:
    """llama.cpp as its own programs use it: the whole output matrix, its own sampler, a stream of the cache a row."""

    def __init__(self, case: Case, path: Path, dtype: torch.dtype, rows: int) -> None:
        lib = self.lib = library()
        vocabulary = torch.arange(case.model.config.vocab_size)
        write_speech(weights_of(case.model), vocabulary, path, KINDS[dtype])
        self.model = load(path)
        parameters = lib.llama_context_default_params()
        parameters.n_seq_max, parameters.n_ctx = rows, rows * 512
        parameters.n_outputs_max = rows
        parameters.n_threads = parameters.n_threads_batch = torch.get_num_threads()
        self.context = lib.llama_init_from_model(self.model, parameters)
        self.batch = lib.llama_batch_init(512, 0, 1)
        self.samplers = []
        for seed in range(rows):
            chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_temp(SAMPLING.temperature))
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_dist(seed))
            self.samplers.append(chain)

    def generate(self, prompt: list[int], rows: int, tokens: int) -> Turn:
        lib, memory = self.lib, self.lib.llama_get_memory(self.context)
        lib.llama_memory_clear(memory, False)
        self._decode([(id, place, 0) for place, id in enumerate(prompt)], only_last=True)
        latest = [self._sample(row, -1) for row in range(rows)]
        for row in range(1, rows):
            lib.llama_memory_seq_cp(memory, 0, row, -1, -1)
        began = time.perf_counter()
        for place in range(len(prompt), len(prompt) + tokens):
            self._decode([(id, place, row) for row, id in enumerate(latest)])
            latest = [self._sample(row, row) for row in range(rows)]
        return rows * tokens, time.perf_counter() - began

    def _sample(self, row: int, output: int) -> int:
        return int(self.lib.llama_sampler_sample(self.samplers[row], self.context, output))

    def _decode(self, entries: list[tuple[int, int, int]], only_last: bool = False) -> None:
        batch = self.batch
        batch.n_tokens = len(entries)
        for i, (id, place, row) in enumerate(entries):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = id, place, 1, row
            batch.logits[i] = not only_last or i == len(entries) - 1
        if self.lib.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")

    def close(self) -> None:
        for chain in self.samplers:
            self.lib.llama_sampler_free(chain)
        self.lib.llama_batch_free(self.batch)
        self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)


def backends(case: Case, folder: Path) -> Iterator[tuple[str, Backend]]:
    """The engines of this package, by what the table calls them."""
    fast = dtype_of(None, "cpu")
    weights = weights_of(case.model.to(fast))
    weights = replace(weights, tensor=case.model.state_dict().__getitem__)  # no copy of the embedding for each engine
    for dtype in (fast, torch.int8, INT4):
        yield f"torch {name_of(dtype)}", Engine(replace(weights, dtype=dtype), case.first, case.size, case.end)
    legal = torch.tensor([*range(case.first, case.first + case.size), case.end])
    for dtype in (torch.float16, torch.int8, INT4):
        path = folder / f"{KINDS[dtype]}.gguf"
        write_speech(weights, legal, path, KINDS[dtype])
        yield f"llamacpp {name_of(dtype)}", LlamaCpp(path, weights, case.first, case.size, case.end, 2048, dtype)
        path.unlink()  # llama.cpp has it mapped


def with_backend(backend: Backend, prompt: list[int], rows: int, tokens: int) -> Turn:
    state = backend.start([prompt], rows, range(rows), SAMPLING, max_tokens=tokens, min_tokens=[tokens])
    began = time.perf_counter()
    return sum(map(len, backend.extend(state, tokens).tokens)), time.perf_counter() - began


def with_transformers(model: LlamaForCausalLM, prompt: list[int], rows: int, tokens: int) -> Turn:
    times: list[float] = []

    def note(*_: Any) -> torch.Tensor:
        times.append(time.perf_counter())
        return torch.zeros(rows, dtype=torch.bool)

    ids = torch.tensor([prompt] * rows)
    model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=SAMPLING.temperature, top_k=0,
        max_new_tokens=tokens + 1, min_new_tokens=tokens + 1, pad_token_id=1,
        stopping_criteria=StoppingCriteriaList([note]),
    )  # fmt: skip
    return rows * (len(times) - 1), times[-1] - times[0]


def race(runs: dict[str, Callable[[], Turn]], repeats: int) -> dict[str, float]:
    """The median tokens per second of each contender. They take turns; the first round is a warm-up and not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            count, seconds = run()
            if turn:
                speeds[name].append(count / seconds)
    return {name: median(values) for name, values in speeds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=["tiny", *SIZES], default=["tiny", "20M", "1B"])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--tokens", type=int, default=200, help="in each stream; a tenth of it for 1B (default 200)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    lines = [
        "# Engines compared\n",
        f"Tokens a second of all streams together, medians of {arguments.repeats} turns; sampling at temperature",
        f"{SAMPLING.temperature:g} after a prompt of {PROMPT} tokens, whose reading is not counted. `tiny` is the",
        "embedded model, the others are random. `torch` and `llamacpp` are this package's backends; `llama.cpp` is the",
        "library by itself, with its own sampler and the whole output matrix. Ratios are to the fastest of these.\n",
    ]
    print("\n".join(lines))
    for name in arguments.models:
        lines += table(name, arguments)
    lines += ["", *(f"- {name}: {fact}" for name, fact in machine.describe("llama-cpp-python").items())]
    write_text(arguments.output, "\n".join(lines) + "\n")


def table(name: str, arguments: argparse.Namespace) -> list[str]:
    """The lines about one model."""
    case, rows = open_case(name), max(arguments.streams)
    prompt = torch.randint(case.first, (PROMPT,), generator=torch.Generator().manual_seed(0)).tolist()
    tokens = arguments.tokens // (10 if name == "1B" else 1)
    speeds: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        engines: dict[str, Callable[[list[int], int, int], Turn]] = {}
        for label, backend in backends(case, Path(place)):
            engines[label] = partial(with_backend, backend)
        for dtype in (torch.float16, torch.int8, INT4):
            alone = Alone(case, Path(place) / "alone.gguf", dtype, rows)
            stack.callback(alone.close)
            engines[f"llama.cpp {KINDS[dtype]}"] = alone.generate
        engines[f"transformers {name_of(case.model.dtype)}"] = partial(with_transformers, case.model)
        for streams in arguments.streams:
            runs = {label: partial(run, prompt, streams, tokens) for label, run in engines.items()}
            speeds[streams] = race(runs, arguments.repeats)
            print(name, streams, speeds[streams], flush=True)
    heads = [f"{streams} stream{'s' * (streams > 1)} | ratio" for streams in speeds]
    lines = ["", f"| {name} | {' | '.join(heads)} |", f"|---{'|---|---' * len(speeds)}|"]
    for label in engines:
        cells = []
        for found in speeds.values():
            best = max(rate for other, rate in found.items() if other.startswith("llama.cpp"))
            cells += [
                f"{found[label]:,.1f}" if found[label] < 100 else f"{found[label]:,.0f}",
                f"{found[label] / best:.2f}",
            ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    del engines
    gc.collect()
    return lines


if __name__ == "__main__":
    main()

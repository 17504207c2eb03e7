"""Measures a model's memory, and its speed beside that of transformers, with random weights of Llasa-1B's shape.

    python benchmarks/memory.py [--folder FOLDER] [--layers 16] [--dtype bfloat16]

Writes the checkpoint (2.7 GB at 16 layers, in shards, with a codec of 65,536 codes) into FOLDER unless it is there
already, or into a temporary folder. Each figure of memory is of a process of its own. Writes
benchmarks/results/memory.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import machine

RESULTS = Path(__file__).parent / "results" / "memory.md"
SHARD = 1 << 30  # bytes
TEXT = "The quick brown fox jumps over the lazy dog."
TEXT_TOKENS, CODES = 128256, 65536
SHAPE = {
    "vocab_size": TEXT_TOKENS + 8 + CODES, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072, "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5, "bos_token_id": 128000, "eos_token_id": 128001, "codec": "codec",
    "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
}  # fmt: skip


def make_checkpoint(folder: Path, layers: int) -> None:
    """A random model folder of Llasa-1B's layout, a shard in memory at a time, and its codec in a folder inside it."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(num_hidden_layers=layers, **SHAPE)
    config.architectures = ["LlamaForCausalLM"]
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in LlamaForCausalLM(config).named_parameters()}
    shards: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        size += 2 * shape.numel()
        if size > SHARD and shards[-1]:
            shards, size = [*shards, []], 2 * shape.numel()
        shards[-1].append(name)
    generator = torch.Generator().manual_seed(0)
    where: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        where |= dict.fromkeys(names, file)
        weights = {
            name: torch.ones(shapes[name], dtype=torch.bfloat16)
            if "norm" in name
            else torch.empty(shapes[name], dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
            for name in names
        }
        save_file(weights, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    make_tokenizer(folder)
    make_codec(folder / "codec")
    config.save_pretrained(folder)  # last, because its presence marks the folder as complete


def make_tokenizer(folder: Path) -> None:
    """A tokenizer of bytes as large as Llama 3's, whose other 128,000 tokens never occur, with the speech tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from llasa.vocabulary import extend_tokenizer

    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"unused {i}" for i in range(TEXT_TOKENS - 256))]
    core = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    extend_tokenizer(tokenizer, CODES)
    tokenizer.save_pretrained(folder)


def make_codec(folder: Path) -> None:
    """A small random codec of 65,536 codes, since only the language model's memory is measured."""
    import torch
    from transformers import Wav2Vec2BertConfig, Xcodec2Config, Xcodec2Model

    torch.manual_seed(0)
    semantic = Wav2Vec2BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, output_hidden_size=32,
        feature_projection_input_dim=160, position_embeddings_type=None, conv_depthwise_kernel_size=7,
    )  # fmt: skip
    config = Xcodec2Config(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        head_dim=32, encoder_hidden_size=4, downsampling_ratios=[8, 5, 4, 2], semantic_model_config=semantic,
        quantization_dim=96, quantization_levels=[4] * 8,
    )  # fmt: skip
    Xcodec2Model(config).save_pretrained(folder)


def memory(field: str) -> int:
    """Bytes of this process: VmHWM, the peak of resident memory with file pages; RssAnon, its own memory now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


# --- Functions that run in processes of their own; each prints one line of JSON. ---


def measure_llasa(folder: Path, dtype: str) -> dict[str, float]:
    """Loads the model and speaks."""
    from llasa.codec import load_codec
    from llasa.tts import Llasa

    load_codec(folder / "codec")
    before = memory("VmHWM")
    began = time.process_time()
    llasa = Llasa.load(folder, device="cpu", dtype=dtype)
    seconds, loaded = time.process_time() - began, memory("VmHWM")
    speech = llasa.say(TEXT, seed=1, max_seconds=1)
    return {
        "before": before, "loaded": loaded, "spoken": memory("VmHWM"), "own": memory("RssAnon"), "load": seconds,
        "codes": len(speech.codes),
    }  # fmt: skip


def measure_transformers(folder: Path, dtype: str) -> dict[str, float]:
    """Loads the language model with transformers, and generates as many tokens."""
    import torch
    from transformers import LlamaForCausalLM

    began = time.process_time()
    model = LlamaForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    seconds, loaded = time.process_time() - began, memory("VmHWM")
    model.generate(torch.arange(100)[None], max_new_tokens=50, do_sample=True)
    return {"loaded": loaded, "spoken": memory("VmHWM"), "own": memory("RssAnon"), "load": seconds}


def measure_speed(folder: Path, dtype: str, prompt: int, tokens: int, repeats: int) -> dict[str, float]:
    """Tokens per second of both, in turns, on the same weights. The first round is a warm-up and not counted."""
    import torch
    from transformers import LlamaForCausalLM

    from llasa.engine import Sampling
    from llasa.tts import Llasa

    engine = Llasa.load(folder, device="cpu", dtype=dtype).backend
    model = LlamaForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    ids = torch.randint(TEXT_TOKENS, (1, prompt), generator=torch.Generator().manual_seed(0))

    def generate() -> None:
        # Without stopping at an end token, so that both take the same number of steps.
        model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=0.8, max_new_tokens=tokens,
            min_new_tokens=tokens,
        )  # fmt: skip

    def extend() -> None:
        state = engine.start(ids.tolist(), seeds=[1], sampling=Sampling(0.8), max_tokens=tokens, min_tokens=[tokens])
        engine.extend(state, tokens)

    speeds: dict[str, list[float]] = {"transformers": [], "engine": []}
    for turn in range(repeats + 1):
        for name, run in (("transformers", generate), ("engine", extend)):
            began = time.perf_counter()
            run()
            if turn:
                speeds[name].append(tokens / (time.perf_counter() - began))
    return {name: median(values) for name, values in speeds.items()} | {"threads": torch.get_num_threads()}


def in_process(what: str, *arguments: object) -> dict[str, float]:
    """Runs one of the functions above in a process of its own."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import json, memory; from pathlib import Path"
    )
    call = f"print(json.dumps(memory.{what}(Path({str(arguments[0])!r}), *{arguments[1:]!r})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{call}"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(folder: Path, dtype: str, prompt: int, tokens: int, repeats: int) -> Iterator[str]:
    """The lines of the table."""
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    ours, theirs = in_process("measure_llasa", folder, dtype), in_process("measure_transformers", folder, dtype)
    speed = in_process("measure_speed", folder, dtype, prompt, tokens, repeats)
    yield "# Memory and speed of a checkpoint of Llasa-1B's shape\n"
    yield f"Random weights: {config['num_hidden_layers']} layers of {config['hidden_size']}, a vocabulary of"
    yield f"{config['vocab_size']:,}, tied embeddings, bfloat16; {size / 1e9:.2f} GB in"
    yield f"{len(list(folder.glob('*.safetensors')))} files. Computed in {dtype}. Peaks are VmHWM of a process each:"
    yield "all that was ever resident at once, Python, libraries and the touched pages of mapped files included.\n"
    yield "| | GB | of the weights' bytes |"
    yield "|---|---|---|"
    for what, value in (
        ("peak of `Llasa.load`", ours["loaded"]),
        (f"peak after also speaking {ours['codes']:.0f} codes", ours["spoken"]),
        ("its own memory at the end (without mapped files)", ours["own"]),
        ("peak before the language model (Python, libraries, a small codec)", ours["before"]),
        ("peak of transformers' `from_pretrained`", theirs["loaded"]),
        ("peak after also generating 50 tokens", theirs["spoken"]),
    ):
        yield f"| {what} | {value / 1e9:.2f} | {value / size:.2f} |"
    yield "\n| one stream | CPU seconds to load | tokens per second |"
    yield "|---|---|---|"
    yield f"| transformers' `generate` | {theirs['load']:.1f} | {speed['transformers']:.1f} |"
    yield f"| engine | {ours['load']:.1f} | {speed['engine']:.1f} |"
    yield f"\nSpeed: a prompt of {prompt} tokens, prefill included, and {tokens} tokens at temperature 0.8; the median"
    yield f"of {repeats} runs in turns on {speed['threads']:.0f} threads. The engine's time to load includes the"
    yield "tokenizer and the codec; transformers' is `from_pretrained` alone, which maps the files and reads them when"
    yield "they are first used.\n"
    for name, fact in machine.describe().items():
        yield f"- {name}: {fact}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="folder of the checkpoint; default: a temporary folder")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--prompt", type=int, default=100, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=50, help="tokens to generate")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    from llasa.measure.tables import write_text

    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "model"
        if not (folder / "config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            make_checkpoint(folder, arguments.layers)
        lines = list(report(folder, arguments.dtype, arguments.prompt, arguments.tokens, arguments.repeats))
    write_text(arguments.output, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

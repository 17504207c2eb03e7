"""`llasa info`: prints versions, device, a model's sizes, and how fast this machine speaks with it."""

import math
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llasa.commands.common import Device, Model, waiting

if TYPE_CHECKING:
    from llasa.engine import Backend
    from llasa.tts import Llasa

SECONDS = 1.0  # that each backend generates, for each number of rows
ROWS = 16
PIECE = 10  # tokens
SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "She had your dark suit in greasy wash water all year.",
    "A large size in stockings is hard to sell.",
)


def info(
    model: Model = "tiny",
    benchmark: Annotated[bool, typer.Option("--benchmark", help="Measure how fast this machine speaks.")] = False,
    speed: Annotated[bool, typer.Option("--speed", help="Compare the backends' tokens a second.")] = False,
    device: Device = None,
) -> None:
    """Show versions, device and a model's sizes; with [bold]--benchmark[/] or [bold]--speed[/], how fast it is here."""
    import torch
    import transformers

    import llasa
    from llasa.models.defaults import check_device

    device = check_device(device)
    processor = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    _line("llasa", llasa.__version__)
    _line("python", platform.python_version())
    _line("torch, transformers", f"{torch.__version__}, {transformers.__version__}")
    _line("device", f"{device} ({processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads)")
    _show_model(model)
    if benchmark:
        _benchmark(model, device)
    if speed:
        _show_speed(model, device)


def _show_model(model: str) -> None:
    from llasa.models.folder import codec_sizes, context_length, find_base, find_codec
    from llasa.models.hub import find_model
    from llasa.models.weights import read_llama_config
    from llasa.voice import list_voices, user_folder

    folder = find_base(find_model(model))
    _line("model", str(folder))
    lm = read_llama_config(folder)
    layers = f"{lm.num_hidden_layers} layers of {lm.hidden_size}"
    _line("language model", f"{_parameters(folder)}, {layers}, context {context_length(lm.to_dict())} tokens")
    folder = find_codec(folder)
    _line("codec", str(folder))
    levels, rate = codec_sizes(folder)
    _line("", f"{_parameters(folder)}, {math.prod(levels)} codes, {rate:.0f} a second")
    found = list_voices(find_model(model))
    own = sum(path.parent == user_folder() for path in found.values())
    _line("voices", f"{len(found) - own} presets, {own} of your own")


def _benchmark(model: str, device: str) -> None:
    """Speaks a few sentences twice, to warm up and to measure."""
    with waiting("measuring"):
        began = time.perf_counter()
        from llasa.tts import Llasa

        llasa = Llasa.load(model, device=device)
        _line("load", f"{time.perf_counter() - began:.1f} s")
        llasa.say(SENTENCES[0], seed=0)
        speeches = [llasa.say(sentence, seed=1) for sentence in SENTENCES]
        firsts = [_first_audio(llasa, sentence) for sentence in SENTENCES]
        seconds = sum(speech.seconds for speech in speeches)
        codes = sum(len(speech.codes) for speech in speeches)
        spent = {key: sum(speech.timings[key] for speech in speeches) for key in ("generate", "decode", "total")}
        _line("one sentence at a time", f"real-time factor {spent['total'] / seconds:.2f}")
        _line("language model", f"{codes / spent['generate']:.0f} codes a second")
        _line("codec, decoding", f"real-time factor {spent['decode'] / seconds:.3f}")
        _line("first audio of a stream", f"{1000 * sorted(firsts)[1]:.0f} ms")
        began = time.perf_counter()
        llasa.codec.encode(speeches[0].samples)
        _line("codec, encoding", f"real-time factor {(time.perf_counter() - began) / speeches[0].seconds:.3f}")
        long = llasa.say("\n\n".join(SENTENCES * 4), seed=1)
        _line("a long text", f"real-time factor {long.rtf:.2f}")


def _show_speed(model: str, device: str) -> None:
    """The tokens a second that each installed backend generates, one row at a time and many at once."""

    from llasa.engine import BACKENDS, check_backend, open_backend
    from llasa.errors import LlasaError
    from llasa.models.defaults import dtype_of
    from llasa.models.folder import tokenizer_folder
    from llasa.models.hub import find_model
    from llasa.models.tokenizer import read_tokenizer
    from llasa.vocabulary import read_vocabulary

    folder = find_model(model)
    vocabulary = read_vocabulary(read_tokenizer(tokenizer_folder(folder)))
    prompt = vocabulary.prompt(SENTENCES[0])
    _line("backend, precision", f"tokens a second in one row, in {ROWS} rows")
    for name in BACKENDS:
        try:
            check_backend(name)
        except LlasaError as error:
            _line(name, str(error))
            continue
        place = "cpu" if name == "llamacpp" else device
        usual = "float16" if name == "llamacpp" else None
        dtypes = (usual, "int8", "int4") if place == "cpu" and name != "vllm" else (None,)
        for dtype in dtypes:
            precision = dtype_of(dtype, place, name)
            with waiting(f"measuring {name}"):
                try:
                    backend = open_backend(folder, name, place, precision, vocabulary=vocabulary)
                except LlasaError as error:  # not every backend takes every model
                    _line(name, str(error))
                    break
                rates = [_tokens_a_second(backend, prompt, rows) for rows in (1, ROWS)]
            _line(f"{name}, {str(precision).removeprefix('torch.')}", ", ".join(f"{rate:,.0f}" for rate in rates))
            del backend


def _tokens_a_second(backend: "Backend", prompt: list[int], rows: int) -> float:
    """Generates for some seconds, prompts included, after some tokens that are not counted."""
    most = backend.context - len(prompt)

    def begin() -> Any:
        return backend.start([prompt], rows, seeds=range(rows), min_tokens=[most])

    backend.extend(begin(), PIECE)
    count, began, state = 0, time.perf_counter(), begin()
    while time.perf_counter() - began < SECONDS:
        before = sum(map(len, state.tokens))
        state = backend.extend(state, PIECE)
        count += sum(map(len, state.tokens)) - before
        if all(state.stopped):
            state = begin()
    return count / (time.perf_counter() - began)


def _first_audio(llasa: "Llasa", text: str) -> float:
    """Seconds until the first audio of a stream."""
    began = time.perf_counter()
    next(iter(llasa.stream(text, seed=1)))
    return time.perf_counter() - began


def _parameters(folder: Path) -> str:
    """The number of weights in a folder, from the headers of its files."""
    import safetensors

    from llasa.errors import LlasaError
    from llasa.models.folder import check_weights

    check_weights(folder)
    total = 0
    for path in folder.glob("*.safetensors"):
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                total += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
        except (OSError, safetensors.SafetensorError) as error:
            raise LlasaError(f"{path} is damaged: copy the model folder again") from error
    return f"{total / 1e6:,.1f} million parameters"


def _line(name: str, value: str) -> None:
    print(f"{name:24}{value}", flush=True)

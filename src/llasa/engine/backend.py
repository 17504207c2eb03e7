"""Defines the interface of all backends: four verbs, and `open_backend`, which opens a model for them.

Code that speaks or searches uses only `Backend` and `State`. A backend handles tokens, never text or audio, and hides
how it computes them.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from llasa.engine.sampling import Sampling
from llasa.errors import LlasaError, need_extra
from llasa.models.defaults import check_device
from llasa.models.folder import context_length, find_base, read_config, tokenizer_folder
from llasa.models.lora import open_model
from llasa.models.tokenizer import read_tokenizer
from llasa.models.weights import Weights
from llasa.vocabulary import Vocabulary, read_vocabulary

BACKENDS = ("torch", "llamacpp", "vllm")
FEW = 6  # rows: llama.cpp generates 4 twice as fast as torch, and 16 no faster (benchmarks/results/engine.md)


class State(Protocol):
    """Rows that are being generated, one sequence each. The lists have one entry a row.

    Attributes:
        tokens: ids generated so far, without the end token.
        finished: whether the row has reached the end token.
        stopped: whether the row gets no more tokens: it is finished, or has reached its limit.
    """

    @property
    def tokens(self) -> list[list[int]]: ...
    @property
    def finished(self) -> list[bool]: ...
    @property
    def stopped(self) -> list[bool]: ...


class Backend(Protocol):
    """Continues prompts with some of the model's tokens, the legal ones: those of speech, or with `writing` others.

    What a row generates depends on its prompt, seed and sampling alone, not on the rows beside it. A state works only
    with the backend that made it, so parameters that take a state have the type `Any`.

    Attributes:
        context: the most tokens, prompt included, that a row can have.
        device: where it computes; verifiers compute there too if they can.
        dtype: precision of its matrices.
        attends: whether it can tell the model's attention.
    """

    @property
    def context(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def attends(self) -> bool: ...

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        samples: int = 1,
        seeds: Sequence[int] | None = None,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        min_tokens: Sequence[int] | None = None,
    ) -> State:
        """Prefills each prompt once and forks it into `samples` rows: rows 0 to samples - 1 are the first prompt's.

        Args:
            prompts: token ids, of any lengths; of a `llasa.engine.prompt.Prompt` the reference may be read only once.
            samples: rows a prompt.
            seeds: one a row; by default random.
            sampling: how tokens are picked; by default `Sampling()`.
            max_tokens: the most tokens that a row may generate; by default as many as the context has room for.
            min_tokens: one a prompt: the fewest tokens that its rows must have before they may end; by default 0.

        Raises:
            NoRoom: a prompt fills the context.
            LlasaError: a prompt is empty or holds ids outside the vocabulary; there is not one seed a row, or not one
                `min_tokens` a prompt; or `samples` or `max_tokens` is below 1.
        """
        ...

    def extend(self, state: Any, tokens: int = 50) -> State:
        """Samples up to `tokens` more tokens in every row that has not stopped. `state` itself may advance.

        Raises:
            LlasaError: the model's output is NaN.
        """
        ...

    def select(self, state: Any, rows: Sequence[int], seeds: Sequence[int] | None = None) -> State:
        """A new state of these rows, in this order. Rows left out are dropped, rows named twice are duplicated.

        The first of several copies keeps the row's random numbers, and the others get their own. With `seeds`, one a
        row, all continue with the random numbers of these; a row without tokens then generates what `start` with that
        seed would. `state` stays usable.

        Raises:
            LlasaError: there is no such row, or not one seed a row.
        """
        ...

    def merge(self, first: Any, second: Any) -> State:
        """A new state of the rows of both, in this order. Each row keeps its sampling, and both states stay usable."""
        ...

    def attention(self, ids: Sequence[int], layer: int, head: int) -> np.ndarray:
        """How much each token of a sequence attends to each of its tokens, in one head: (n, n) float32 probabilities.

        Raises:
            LlasaError: it does not tell: `attends` is false.
        """
        ...

    def writing(self, first: int, size: int, end: int) -> "Backend":
        """The same model with other legal tokens: `first` to `first + size - 1`, and `end`, which ends a row.

        Raises:
            LlasaError: these tokens are not in the model's vocabulary.
        """
        ...

    def likelihoods(self, prompt: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """How likely each of some legal tokens is after the prompt and the tokens before it: (n,) log-probabilities.

        Raises:
            NoRoom: they do not fit the context.
            LlasaError: the prompt is empty, or a token is not legal.
        """
        ...

    def rows_that_fit(self, width: int) -> int:
        """How many rows of `width` tokens, prompt included, fit the free memory, even while their state is copied."""
        ...


def check_backend(name: str, device: str | None = None, device_map: str | None = None) -> None:
    """Checks that there is a backend, that it is installed, and that it computes where the user wants it to.

    Raises:
        LlasaError: it is not so.
    """
    if name not in BACKENDS:
        raise LlasaError(f"unknown backend {name}: use {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}")
    if device_map not in (None, "auto"):
        raise LlasaError(f"unknown device map {device_map}: use auto")
    if name == "llamacpp":
        if device_map or device not in (None, "cpu"):
            wrong = f"--device-map {device_map}" if device_map else f"--device {device}"
            raise LlasaError(f"the backend llamacpp computes on the CPU: leave {wrong} out, or use --backend torch")
        need_extra("llamacpp", "llama_cpp", "gguf")
    if name == "vllm":
        need_extra("vllm", "vllm")


def fastest_backend(rows: int, device: str | None = None, device_map: str | None = None) -> str:
    """The backend that generates so many rows at once the fastest here.

    That is llama.cpp, if it is installed and loads, for a few rows on a CPU, and torch elsewhere. vLLM takes too long
    to start.

    Raises:
        LlasaError: there is no such device.
    """
    few = rows <= FEW and device_map is None and check_device(device) == "cpu"
    return "llamacpp" if few and _loads_llamacpp() else "torch"


def _loads_llamacpp() -> bool:
    if not all(map(find_spec, ("llama_cpp", "gguf"))):
        return False
    from llasa.engine.llamacpp_context import library

    try:
        library()
    except LlasaError:
        return False
    return True


def open_backend(
    folder: Path,
    name: str = "torch",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    device_map: str | None = None,
    vocabulary: Vocabulary | None = None,
) -> Backend:
    """Opens the language model in a folder, ready to generate.

    Args:
        folder: a model's folder, or a LoRA's, which is merged into its base.
        name: one of `BACKENDS`.
        device: a torch device.
        dtype: precision in which to compute.
        device_map: "auto" spreads the layers over all devices, as far as they have room, instead of using `device`.
        vocabulary: the folder's vocabulary, if it was read already; reading an official tokenizer takes over a second.

    Raises:
        LlasaError: no such backend, or it is not installed or does not compute on this device; or the folder is
            missing, damaged, or not a Llasa model's.
    """
    check_backend(name, device, device_map)
    tokens = vocabulary or read_vocabulary(read_tokenizer(tokenizer_folder(folder)))
    if name == "llamacpp":
        from llasa.engine.llamacpp_engine import open_llamacpp

        return open_llamacpp(folder, tokens.first, tokens.size, tokens.end, dtype)
    if name == "vllm":
        from llasa.engine.vllm_engine import open_vllm

        return open_vllm(folder, tokens.first, tokens.size, tokens.end, dtype, device, spread=device_map == "auto")
    from llasa.engine.torch_engine import Engine

    model = open_model(folder, device, dtype, spread=device_map == "auto")  # which checks the config
    context = context_length(read_config(find_base(folder)))
    return Engine(model, tokens.first, tokens.size, tokens.end, context)


def backend_of(weights: Weights, vocabulary: Vocabulary) -> Backend:
    """A backend in torch with weights that are in memory, such as those of a model in training. It copies them.

    Raises:
        LlasaError: the vocabulary is not this model's, or the kind of Llama is unsupported.
    """
    from llasa.engine.torch_engine import Engine

    return Engine(weights, vocabulary.first, vocabulary.size, vocabulary.end)

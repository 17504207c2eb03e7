"""The backend in vLLM, for GPUs and many rows: the four verbs over requests.

A row is its prompt and what it has said; to go on, it becomes a request again. vLLM keeps keys and values of what it
has read, in blocks, so what rows share is computed once, and a fork costs nothing. Tokens are drawn as in the other
backends (vllm_drawing.py), so a seed means the same.

vLLM's products may differ in their last bits between batch sizes, and a row may then draw another token if the draw
falls just between two.
"""

import gc
import itertools
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import psutil
import torch

from llasa.engine.row import Row, Rows, copies, new_rows, places_of
from llasa.engine.sampling import Sampling
from llasa.errors import LlasaError, first_line, need_extra, shown
from llasa.models.defaults import INT4
from llasa.models.folder import context_length, find_base, read_config

ROWS = 256  # that are computed at once; vLLM lets more wait
SHARE = 0.5  # of a GPU's memory; the codec and the verifiers need the rest
FULL = 64  # rows as long as the context that a CPU's cache has room for
BLOCK = 32  # tokens of a CPU's block: the fewest that vLLM's kernels take
_opened: "WeakSet[Any]" = WeakSet()  # the engine of vLLM in this process, of which there can be one


class State(Rows):
    """Rows, and the prompt of each."""

    def __init__(self, rows: list[Row], prompts: list[Sequence[int]]) -> None:
        self.rows, self.prompts = rows, prompts


class Vllm:
    """Generates tokens with a Llama: the `Backend` named vllm. `Backend` documents its verbs.

    Attributes:
        context: the most tokens, prompt included, that a row can have.
        device, dtype: where it computes, and in which precision.

    Args:
        model: vLLM's engine, from `open_vllm`.
        vocabulary: number of tokens.
        first: id of the first speech token.
        size: number of speech tokens.
        end: id of the token that ends speech.
        context, device, dtype: the attributes.

    Raises:
        LlasaError: these tokens are not in the model's vocabulary.
    """

    attends = False

    def __init__(
        self,
        model: Any,
        vocabulary: int,
        first: int,
        size: int,
        end: int,
        context: int,
        device: str,
        dtype: torch.dtype,
    ) -> None:
        if not (first >= 0 and size > 0 and first + size <= vocabulary and 0 <= end < vocabulary):
            raise LlasaError(
                f"tokens {first} to {first + size - 1} and end token {end} do not fit the model's vocabulary of "
                f"{vocabulary}: check that model and tokenizer belong together"
            )
        self._model, self._vocabulary = model, vocabulary
        self.first, self.size, self.end = first, size, end
        self.context, self.device, self.dtype = context, torch.device(device), dtype
        self._names = itertools.count()

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        samples: int = 1,
        seeds: Sequence[int] | None = None,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        min_tokens: Sequence[int] | None = None,
    ) -> State:
        """See `Backend.start`. vLLM reads the prompts when the rows first advance."""
        rows = new_rows(prompts, samples, seeds, sampling, max_tokens, min_tokens, self.context, self._vocabulary)
        return State(rows, [prompt for prompt in prompts for _ in range(samples)])

    def extend(self, state: State, tokens: int = 50) -> State:
        """See `Backend.extend`. `state` itself advances, all of its rows or, after an interrupt, none."""
        from llasa.engine.vllm_drawing import settings

        active = [i for i, row in enumerate(state.rows) if not row.stopped]
        asked = []
        for i in active:
            row = state.rows[i]
            count = min(tokens, row.limit - len(row.tokens))
            extra = settings(row, self.first, self.size, self.end)
            asked.append(([*state.prompts[i], *row.tokens], count, extra))
        for i, (said, _) in zip(active, self._ask(asked), strict=True):
            row = state.rows[i]
            row.finished = bool(said) and said[-1] == self.end
            row.tokens += said[:-1] if row.finished else said
        return state

    def select(self, state: State, rows: Sequence[int], seeds: Sequence[int] | None = None) -> State:
        """See `Backend.select`. Nothing is copied."""
        return State(copies(state.rows, rows, seeds), [state.prompts[i] for i in rows])

    def merge(self, first: State, second: State) -> State:
        """See `Backend.merge`. Nothing is copied."""
        rows = [*first.rows, *second.rows]
        return State(copies(rows, range(len(rows))), [*first.prompts, *second.prompts])

    def attention(self, ids: Sequence[int], layer: int, head: int) -> np.ndarray:
        """See `Backend.attention`."""
        raise LlasaError("vLLM does not tell a model's attention: use --backend torch")

    def writing(self, first: int, size: int, end: int) -> "Vllm":
        """See `Backend.writing`. Both share vLLM's engine."""
        other = Vllm(self._model, self._vocabulary, first, size, end, self.context, str(self.device), self.dtype)
        other._names = self._names
        return other

    def likelihoods(self, prompt: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """See `Backend.likelihoods`. The row says the tokens, one a step."""
        from llasa.engine.vllm_drawing import forced

        places_of(prompt, tokens, self.first, self.size, self.end, self.context)
        extra = forced(tokens, self.first, self.size, self.end)
        ((_, likely),) = self._ask([(list(prompt), len(tokens), extra)], ends=False)
        return np.array(likely, np.float32)

    def rows_that_fit(self, width: int) -> int:
        """See `Backend.rows_that_fit`. Of more rows, vLLM lets some wait."""
        cache = self._model.vllm_config.cache_config
        return max(1, min(ROWS, cache.num_gpu_blocks * cache.block_size // width))

    def _ask(
        self, asked: Sequence[tuple[list[int], int, dict[str, Any]]], ends: bool = True
    ) -> list[tuple[list[int], list[float]]]:
        """Has vLLM continue token ids by at most so many tokens each.

        Args:
            asked: ids, number of tokens, and settings of `vllm_drawing` a request.
            ends: whether the end token ends a request.

        Returns:
            The tokens of each request and their log-probabilities.

        Raises:
            LlasaError: the model's output is NaN, or vLLM fails.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine = self._model
        names, done = [f"llasa-{next(self._names)}" for _ in asked], {}
        try:
            for name, (ids, count, extra) in zip(names, asked, strict=True):
                how = SamplingParams(
                    temperature=0, max_tokens=count, stop_token_ids=[self.end] if ends else [], ignore_eos=True,
                    logprobs=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY, extra_args=extra,
                )  # fmt: skip
                engine.add_request(name, {"prompt_token_ids": ids}, how)
            while engine.has_unfinished_requests():
                for output in engine.step():
                    done[output.request_id] = output.outputs[0]
        except Exception as error:
            raise LlasaError(f"vLLM failed ({first_line(error)}): use --backend torch, and report it") from error
        finally:
            engine.abort_request([name for name in names if name not in done])
        found = []
        for name in names:
            said = list(done[name].token_ids)
            if any(token != self.end and not self.first <= token < self.first + self.size for token in said):
                raise LlasaError("the model's output is NaN: its weights are damaged, so fetch or copy it again")
            likely = [step[token].logprob for step, token in zip(done[name].logprobs or (), said, strict=True)]
            found.append((said, likely))
        return found


def open_vllm(
    folder: Path, first: int, size: int, end: int, dtype: torch.dtype, device: str, spread: bool = False
) -> Vllm:
    """Opens a model's folder in vLLM.

    Args:
        folder: the folder of a model; vLLM takes no LoRA.
        first, size, end, dtype, device: see `Vllm`.
        spread: whether to use all GPUs (tensor parallel).

    Raises:
        LlasaError: vLLM is not installed, was built for another device, or has a model in this process already; the
            folder is a LoRA's; the precision is one that vLLM lacks; or vLLM cannot load the model.
    """
    need_extra("vllm", "vllm")
    if dtype in (torch.int8, INT4):
        raise LlasaError("the backend vllm has no int8 and int4: use bfloat16, float16 or float32")
    if find_base(folder) != folder:
        raise LlasaError(f"vLLM takes no LoRA, such as {shown(folder)}: make a model of it with llasa merge")
    config = read_config(folder)
    context = context_length(config)
    quiet()
    try:
        # In a thread, since one of its imports keeps the frames that it was called from for ever, and what they hold.
        with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(1) as thread:
            thread.submit(import_module, "vllm.engine.arg_utils").result()
        from vllm import EngineArgs, LLMEngine
        from vllm.platforms import current_platform

        kind = "cpu" if current_platform.is_cpu() else "cuda"
        if torch.device(device).type != kind:
            raise LlasaError(f"this vLLM was built for {kind}: use --device {kind}, or --backend torch")
        gc.collect()
        if _opened:
            raise LlasaError(
                "vLLM holds one model in a process, and has one: delete that first, or use --backend torch"
            )
        wanted = EngineArgs(
            model=str(folder), skip_tokenizer_init=True, dtype=dtype, max_model_len=context, max_num_seqs=ROWS,
            enable_prefix_caching=True, async_scheduling=False, logprobs_mode="processed_logits",
            logits_processors=["llasa.engine.vllm_drawing:Drawing"], disable_log_stats=True, use_tqdm_on_load=False,
            tensor_parallel_size=torch.cuda.device_count() if spread else 1, **_memory(kind, config, context, dtype),
        )  # fmt: skip
        model = LLMEngine.from_engine_args(wanted)
    except LlasaError:
        raise
    except Exception as error:
        raise LlasaError(f"vLLM cannot load {shown(folder)} ({first_line(error)}): use --backend torch") from error
    _opened.add(model)
    return Vllm(model, int(config["vocab_size"]), first, size, end, context, device, dtype)


def quiet() -> None:
    """Has vLLM log errors alone, tell nobody that it is used, and leave the threads of this process alone.

    It computes in this process: another one would end at the first Ctrl-C.
    """
    for name, value in (
        ("VLLM_LOGGING_LEVEL", "ERROR"), ("VLLM_NO_USAGE_STATS", "1"), ("VLLM_ENABLE_V1_MULTIPROCESSING", "0"),
        ("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
    ):  # fmt: skip
        os.environ.setdefault(name, value)


def _memory(kind: str, config: dict[str, Any], context: int, dtype: torch.dtype) -> dict[str, Any]:
    """vLLM's settings of memory: a share of a GPU's; on a CPU enough for `FULL` rows, at most a share of what is free.

    A CPU has no kernels to compile or graphs to record.
    """
    if kind == "cuda":
        return {"gpu_memory_utilization": SHARE}
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    token = 2 * config["num_hidden_layers"] * heads * width * dtype.itemsize
    room = min(FULL * context * token, int(SHARE * psutil.virtual_memory().available))
    return {"kv_cache_memory_bytes": room, "block_size": BLOCK, "enforce_eager": True}

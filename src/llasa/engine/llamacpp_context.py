"""Holds a model in llama.cpp and the sequences it has read, whose keys and values share one cache.

This is all that knows llama.cpp's C functions. A sequence has a small number. Copies of a sequence share its cells of
the cache until they differ, so forking one costs nothing; a cell is free again once no sequence has it. The cache is
made small, and grows when something does not fit; what it holds is copied then, not computed again.
"""

import ctypes
import weakref
from collections import deque
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llasa.errors import LlasaError, first_line, need_extra, shown

BATCH = 512  # tokens that are read at once
CELLS = 2048  # of the cache at first, a token each; a power of two, as all later sizes are
SEQUENCES = 4  # at first
ERROR = 4  # a level of llama.cpp's log
Saved = ctypes.Array[ctypes.c_uint8]  # a sequence's keys and values
NO_SLOT = 1  # what llama_decode returns if the cache has no room


class Context:
    """A model and its sequences.

    Attributes:
        most: the most sequences that llama.cpp can hold.
        size: length of the vocabulary.

    Args:
        path: a GGUF file.
        hidden: width of the model.
        threads: how many it may use.
        exact: whether keys and values are float32 instead of float16.

    Raises:
        LlasaError: llama.cpp cannot load the file.
    """

    def __init__(self, path: Path, hidden: int, threads: int, exact: bool) -> None:
        self._lib = lib = library()
        self._model = load(path)
        self.size: int = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))
        self.most: int = lib.llama_max_parallel_sequences()
        self.threads, self._exact = threads, exact
        self._handles = [self._model]  # to be freed, the last first
        weakref.finalize(self, _free, lib, self._handles)
        self._cells, self._sequences = CELLS, SEQUENCES
        self._context = self._open()
        # llama.cpp reads the batch from these arrays.
        self._inputs = np.zeros((BATCH, hidden), np.float32)
        self._positions, self._names = np.zeros(BATCH, np.int32), np.zeros(BATCH, np.int32)
        self._ones, self._outputs = np.ones(BATCH, np.int32), np.zeros(BATCH, np.int8)
        name, start = ctypes.POINTER(ctypes.c_int32), self._names.ctypes.data
        self._pointers = (name * BATCH)(*(ctypes.cast(start + 4 * i, name) for i in range(BATCH)))
        self._batch = lib.llama_batch(
            0, None, _pointer(self._inputs, ctypes.c_float), _pointer(self._positions, ctypes.c_int32),
            _pointer(self._ones, ctypes.c_int32), self._pointers, _pointer(self._outputs, ctypes.c_int8),
        )  # fmt: skip

    def decode(self, inputs: Tensor, positions: Sequence[int], sequences: Sequence[int], wanted: bool) -> Tensor:
        """Reads tokens: either any number of one sequence, in order, or one of each of several.

        Args:
            inputs: the tokens' embeddings, (n, hidden) float32.
            positions: the place of each in its sequence: the number of tokens that the sequence has before it.
            sequences: the number of each token's sequence.
            wanted: whether to compute logits.

        Returns:
            The logits after each token, (n, vocabulary) float32, valid until the next call; without `wanted`, (0, ...).

        Raises:
            LlasaError: llama.cpp has no memory, or fails.
        """
        count = len(positions)
        self._inputs[:count] = inputs.numpy()
        self._positions[:count], self._names[:count] = positions, sequences
        self._outputs[:count] = wanted
        self._batch.n_tokens = count
        while (code := self._lib.llama_decode(self._context, self._batch)) == NO_SLOT:
            self._grow(2 * self._cells, self._sequences)
        if code:
            raise LlasaError(f"llama.cpp failed ({_reason()}): use --backend torch, and report it")
        if not wanted:
            return torch.empty(0, self.size)
        logits = self._lib.llama_get_logits(self._context)
        return torch.from_numpy(np.ctypeslib.as_array(logits, (count, self.size)))

    def reserve(self, sequences: int) -> None:
        """Makes room for sequences of the numbers 0 to `sequences` - 1, of which there are at most `most`."""
        if sequences > self._sequences:
            self._grow(self._cells, min(self.most, max(sequences, 4 * self._sequences)))

    def copy(self, source: int, target: int) -> None:
        """Makes a sequence, which must be empty, a copy of another."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def length(self, sequence: int) -> int:
        """The number of tokens in a sequence."""
        return int(self._lib.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def cut(self, sequence: int, length: int = 0) -> None:
        """Shortens a sequence to so many tokens."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, length, -1)

    def drop_front(self, sequence: int, length: int) -> None:
        """Drops so many tokens from the front of a sequence. The others keep their positions."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, 0, length)

    def save(self, sequence: int) -> Saved:
        """The keys and values of a sequence, for `restore`."""
        data = (ctypes.c_uint8 * self._lib.llama_state_seq_get_size(self._context, sequence))()
        self._lib.llama_state_seq_get_data(self._context, data, len(data), sequence)
        return data

    def restore(self, sequence: int, data: Saved, moved: int = 0) -> None:
        """Fills a sequence with what was saved, so many places further on. The keys are turned at the next `decode`.

        Raises:
            LlasaError: llama.cpp has no memory.
        """
        lib = self._lib
        if not lib.llama_state_seq_set_data(self._context, data, len(data), sequence):
            self._grow(2 * self._cells, self._sequences)
            if not lib.llama_state_seq_set_data(self._context, data, len(data), sequence):
                raise LlasaError(f"llama.cpp failed ({_reason()}): use --backend torch, and report it")
        if moved:
            lib.llama_memory_seq_add(self._memory, sequence, -1, -1, moved)

    @property
    def _memory(self) -> Any:
        return self._lib.llama_get_memory(self._context)

    def _open(self) -> Any:
        lib = self._lib
        parameters = lib.llama_context_default_params()
        parameters.n_ctx, parameters.n_seq_max = self._cells, self._sequences
        parameters.n_batch = parameters.n_ubatch = BATCH
        parameters.n_outputs_max = self._sequences
        parameters.n_threads = parameters.n_threads_batch = self.threads
        parameters.kv_unified = True
        if self._exact:
            parameters.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it rounds keys and values to float16
            parameters.type_k = parameters.type_v = lib.GGML_TYPE_F32
        else:
            parameters.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED  # it skips the cells of other sequences
            parameters.type_k = parameters.type_v = lib.GGML_TYPE_F16
        _said.clear()
        context = lib.llama_init_from_model(self._model, parameters)
        if not context:
            raise LlasaError(
                f"llama.cpp has no memory for {self._cells} tokens ({_reason()}): use fewer rows, or close programs"
            )
        self._handles.append(context)
        return context

    def _grow(self, cells: int, sequences: int) -> None:
        """Moves everything into a larger context."""
        lib, old, before = self._lib, self._context, (self._cells, self._sequences)
        data = (ctypes.c_uint8 * lib.llama_state_get_size(old))()
        size = lib.llama_state_get_data(old, data, len(data))
        self._cells, self._sequences = cells, sequences
        try:
            self._context = self._open()
        except LlasaError:
            self._cells, self._sequences = before
            raise
        lib.llama_state_set_data(self._context, data, size)
        self._handles.remove(old)
        lib.llama_free(old)


def load(path: Path) -> int:
    """A model in llama.cpp, which the caller frees.

    Raises:
        LlasaError: llama.cpp is not installed or cannot load the file.
    """
    lib = library()
    parameters = lib.llama_model_default_params()
    parameters.n_gpu_layers = 0
    # GCC drops most of the configuration of AMX's tiles, as llama.cpp has it, and the first product on them then ends
    # the process.
    parameters.use_extra_bufts = b"AMX_INT8 = 1" not in lib.llama_print_system_info()
    _said.clear()
    model = lib.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise LlasaError(f"llama.cpp cannot load {shown(path)} ({_reason()}): remove the file and try again")
    return int(model)


def _free(lib: Any, handles: list[int]) -> None:
    *contexts, model = reversed(handles)
    for context in contexts:
        lib.llama_free(context)
    lib.llama_model_free(model)


def _pointer(array: np.ndarray, kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))


_said: deque[str] = deque(maxlen=8)  # the last lines that llama.cpp logged
_kept: list[Any] = []  # callbacks that llama.cpp has, which must not be collected


def _reason() -> str:
    """The last line that llama.cpp logged, without the name of its function."""
    return next((line.partition(": ")[2] or line for line in reversed(_said)), "no reason given")[:160]


@cache
def library() -> Any:
    """The module of llama.cpp's C functions, which logs to `_said` instead of the terminal.

    Raises:
        LlasaError: it is not installed, or cannot be loaded.
    """
    need_extra("llamacpp", "llama_cpp")
    try:
        from llama_cpp import llama_cpp as lib
    except Exception as error:  # it raises RuntimeError for a library that does not load
        raise LlasaError(f"llama.cpp cannot be loaded ({first_line(error)}): install llama-cpp-python again") from error

    @lib.llama_log_callback
    def keep(level: int, text: bytes, _: Any) -> None:
        if level == ERROR and (line := text.decode("utf-8", "replace").strip()):
            _said.append(line)

    lib.llama_log_set(keep, ctypes.c_void_p(0))
    _kept.append(keep)
    lib.llama_backend_init()
    return lib

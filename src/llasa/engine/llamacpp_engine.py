"""The backend in llama.cpp: the four verbs over sequences in one cache.

llama.cpp reads a step of all unfinished rows at once; sampling is that of the torch engine, so a seed means the same.
Rows that do not differ share a sequence: a row gets its own just before it advances, and a sequence that no living
state names is dropped then. Its file holds the rows of the output matrix for the tokens that may come and no others;
embeddings are looked up in the model's own weights, which stay on the disk.

On a CPU, llama.cpp's products may differ in their last bits between batch sizes, and a row may then draw another token
if the draw falls just between two.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.nn import functional as F

from llasa.engine.drawing import Drawing
from llasa.engine.llamacpp_context import BATCH, Context, Saved
from llasa.engine.prompt import Prompt, References
from llasa.engine.row import Row, Rows, copies, new_rows, places_of
from llasa.engine.sampling import Sampling
from llasa.engine.torch_engine import SMALL, parameters_read
from llasa.errors import LlasaError, need_extra, reason, shown
from llasa.files import absolute, exists, read_bytes
from llasa.models.defaults import INT4
from llasa.models.folder import context_length, find_base, fingerprint, read_config
from llasa.models.gguf import write_speech
from llasa.models.lora import open_model
from llasa.models.weights import EMBEDDING, Weights

KINDS = {
    torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16", torch.int8: "q8_0", INT4: "q4_0",
}  # fmt: skip
FORMAT = 1  # of the files in the cache; a change of what `write_speech` writes needs another number
SHARE = 0.5  # share of the free memory for the cache
NONE = -1  # instead of a sequence's number: a row that has stopped needs none


class State(Rows):
    """Rows, and the sequence of each."""

    def __init__(self, rows: list[Row], sequences: list[int], states: "WeakSet[State]") -> None:
        self.rows, self.sequences = rows, sequences
        states.add(self)


class LlamaCpp:
    """Generates tokens with a Llama: the `Backend` named llamacpp. `Backend` documents its verbs.

    Attributes:
        context: the most tokens, prompt included, that a row can have.
        device, dtype: the CPU, and the precision of the matrices; int8 and int4 are llama.cpp's q8_0 and q4_0.

    Args:
        path: what `write_speech` wrote of these weights, for the tokens `first` to `first + size - 1` and `end`.
        weights: the model's, of which only the embedding is read.
        first: id of the first speech token.
        size: number of speech tokens.
        end: id of the token that ends speech.
        folder: the model's, for `writing`.

    Raises:
        LlasaError: llama.cpp is not installed or cannot load the file, or the file is of another vocabulary.
    """

    def __init__(
        self,
        path: Path,
        weights: Weights,
        first: int,
        size: int,
        end: int,
        context: int,
        dtype: torch.dtype,
        folder: Path | None = None,
    ) -> None:
        self.folder = folder
        config, exact = weights.config, dtype == torch.float32
        self.context, self.dtype, self.device = min(context, config.max_position_embeddings), dtype, torch.device("cpu")
        self.first, self.size, self.end = first, size, end
        self._embedding = weights.tensor(EMBEDDING)
        numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        self._bytes = numbers * (4 if exact else 2)  # of keys and values of a token
        small = parameters_read(config, size) <= SMALL  # llama.cpp's threads spin, too, and wait for one another
        self._model = Context(path, config.hidden_size, 1 if small else torch.get_num_threads(), exact)
        if self._model.size != size + 1:
            raise LlasaError(f"{path} is of a vocabulary of {self._model.size}, not {size + 1}: remove the file")
        self._states: WeakSet[State] = WeakSet()
        self._filled: set[int] = set()  # sequences that are not empty
        self._references = References(self._read_reference)

    @torch.inference_mode()
    def start(
        self,
        prompts: Sequence[Sequence[int]],
        samples: int = 1,
        seeds: Sequence[int] | None = None,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        min_tokens: Sequence[int] | None = None,
    ) -> State:
        """See `Backend.start`."""
        vocabulary = self._embedding.shape[0]
        rows = new_rows(prompts, samples, seeds, sampling, max_tokens, min_tokens, self.context, vocabulary)
        state = State(rows, [NONE] * len(rows), self._states)
        for i, prompt in enumerate(prompts):
            (sequence,) = self._empty(1)
            state.sequences[i * samples : (i + 1) * samples] = [sequence] * samples
            self._prefill(prompt, sequence)
        return state

    @torch.inference_mode()
    def extend(self, state: State, tokens: int = 50) -> State:
        """See `Backend.extend`. `state` itself advances. Rows that stop are not computed any further."""
        self._own(state)
        while tokens > 0 and (active := [i for i, row in enumerate(state.rows) if not row.stopped]):
            tokens -= self._run(state, active, tokens)
        for i, row in enumerate(state.rows):
            if row.stopped:
                state.sequences[i] = NONE
        return state

    def select(self, state: State, rows: Sequence[int], seeds: Sequence[int] | None = None) -> State:
        """See `Backend.select`. Nothing is copied until the rows advance."""
        return State(copies(state.rows, rows, seeds), [state.sequences[i] for i in rows], self._states)

    def merge(self, first: State, second: State) -> State:
        """See `Backend.merge`. Nothing is copied until the rows advance."""
        rows = [*first.rows, *second.rows]
        return State(copies(rows, range(len(rows))), [*first.sequences, *second.sequences], self._states)

    attends = False

    def attention(self, ids: Sequence[int], layer: int, head: int) -> np.ndarray:
        """See `Backend.attention`."""
        raise LlasaError("llama.cpp does not tell a model's attention: use --backend torch")

    def writing(self, first: int, size: int, end: int) -> "LlamaCpp":
        """See `Backend.writing`. It has a file and memory of its own."""
        if self.folder is None:
            raise LlasaError("this model has no folder to read other tokens from: open one with `open_backend`")
        return open_llamacpp(self.folder, first, size, end, self.dtype)

    @torch.inference_mode()
    def likelihoods(self, prompt: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """See `Backend.likelihoods`."""
        places = places_of(prompt, tokens, self.first, self.size, self.end, self.context)
        (sequence,) = self._empty(1)
        self._read(prompt[:-1], 0, sequence)
        found = []
        for at, (last, place) in enumerate(zip([prompt[-1], *tokens], places, strict=False), len(prompt) - 1):
            logits = self._model.decode(self._embed(torch.tensor([last])), [at], [sequence], wanted=True)
            found.append(float(logits[0].log_softmax(-1)[place]))
        return np.array(found, np.float32)

    def _prefill(self, prompt: Sequence[int], sequence: int) -> None:
        """Reads a prompt without its last token into an empty sequence."""
        if not isinstance(prompt, Prompt):
            self._read(prompt[:-1], 0, sequence)
            return
        before, codes = self._references.of(prompt)
        begin, (first, last) = prompt.shared, prompt.reused
        # The codes come into a sequence of their own, since llama.cpp reads on only at a sequence's end.
        (aside,) = self._empty(1)
        self._model.restore(sequence, before)
        self._model.cut(sequence, begin)
        self._model.restore(aside, codes, prompt.moved)
        self._read(prompt[begin:first], begin, sequence)
        self._model.copy(aside, sequence)
        self._read(prompt[last:-1], last, sequence)

    def _read_reference(self, prompt: Prompt) -> tuple[Saved, Saved]:
        """A prompt without its text: what comes before the reused codes, and these."""
        first, last = (place - prompt.moved for place in prompt.reused)
        before, codes = self._empty(2)
        self._read(prompt.alone[:last], 0, before)
        self._model.copy(before, codes)
        self._model.cut(before, first)
        self._model.drop_front(codes, first)
        return self._model.save(before), self._model.save(codes)

    def _read(self, ids: Sequence[int], begin: int, sequence: int) -> None:
        """Adds tokens to a sequence that has `begin` tokens."""
        for start in range(0, len(ids), BATCH):
            some = torch.tensor(ids[start : start + BATCH])
            places = range(begin + start, begin + start + len(some))
            self._model.decode(self._embed(some), places, [sequence] * len(some), wanted=False)

    def rows_that_fit(self, width: int) -> int:
        """See `Backend.rows_that_fit`. llama.cpp holds some hundred sequences, whatever the memory."""
        free = int(SHARE * psutil.virtual_memory().available) // (self._bytes * width)
        return min(free, self._model.most // 2)

    def _embed(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self._embedding).float()

    def _empty(self, count: int) -> list[int]:
        """So many empty sequences, after dropping those that no living state names."""
        taken = {sequence for state in self._states for sequence in state.sequences}
        for sequence in self._filled - taken:
            self._model.cut(sequence)
        self._filled &= taken
        free = [number for number in range(self._model.most) if number not in taken][:count]
        if len(free) < count:
            raise LlasaError(f"llama.cpp holds at most {self._model.most} rows at once: use fewer, or --backend torch")
        if free:
            self._model.reserve(max(free) + 1)
        self._filled.update(free)
        return free

    def _own(self, state: State) -> None:
        """Gives every row that can advance a sequence that no other row has."""
        taken = {sequence for other in self._states if other is not state for sequence in other.sequences}
        shared = []
        for i, row in enumerate(state.rows):
            if row.stopped:
                state.sequences[i] = NONE
            elif state.sequences[i] in taken:
                shared.append(i)
            taken.add(state.sequences[i])
        for i, sequence in zip(shared, self._empty(len(shared)), strict=True):
            self._model.copy(state.sequences[i], sequence)
            state.sequences[i] = sequence
        for i, row in enumerate(state.rows):
            if not row.stopped and self._model.length(state.sequences[i]) > row.cached:
                self._model.cut(state.sequences[i], row.cached)  # Ctrl-C came between reading a token and keeping it

    def _run(self, state: State, active: list[int], tokens: int) -> int:
        """Takes up to `tokens` steps with the rows `active`, and returns after the step in which a row ends.

        Returns:
            The number of steps taken.
        """
        rows = [state.rows[i] for i in active]
        sequences = [state.sequences[i] for i in active]
        steps = min(tokens, *(row.limit - len(row.tokens) for row in rows))
        drawing = Drawing(rows, steps, self.first, self.size, self.device)
        ids = torch.tensor([row.pending for row in rows])
        for step in range(steps):
            logits = self._model.decode(self._embed(ids), [row.cached for row in rows], sequences, wanted=True)
            drawn = drawing.draw(step, logits)
            if drawn is None:
                return step + 1
            ids = drawn
        return steps


def open_llamacpp(folder: Path, first: int, size: int, end: int, dtype: torch.dtype) -> LlamaCpp:
    """Opens a model's folder in llama.cpp, by way of a file in the user's cache that is written on first use.

    Args:
        folder: the folder of a model or of a LoRA.
        first, size, end, dtype: see `LlamaCpp`.

    Raises:
        LlasaError: llama.cpp is not installed; the weights are missing or damaged, or llama.cpp has no such Llama; or
            the file cannot be written.
    """
    need_extra("llamacpp", "llama_cpp", "gguf")
    legal = torch.tensor([*range(first, first + size), end])
    weights = open_model(folder, "cpu", torch.float32)
    if not (first >= 0 and first + size <= weights.config.vocab_size and end < weights.config.vocab_size):
        raise LlasaError(f"the tokens of {folder} do not fit its model: check that model and tokenizer belong together")
    path = _cached(folder, legal, KINDS[dtype])
    if not exists(path):
        write_speech(weights, legal, path, KINDS[dtype])
        for old in path.parent.glob(f"{path.name.rpartition('-')[0]}-*.gguf"):  # of what the folder held before
            if old != path:
                with suppress(OSError):
                    old.unlink()
    return LlamaCpp(path, weights, first, size, end, context_length(read_config(find_base(folder))), dtype, folder)


def _cached(folder: Path, legal: Tensor, kind: str) -> Path:
    """The place of a model's file in the user's cache, by the folder, the kind, and what the folder holds."""
    base = find_base(folder)
    digest = hashlib.sha256(f"{FORMAT} {fingerprint(base)} {legal.tolist()}".encode())
    digest.update(read_bytes(base / "config.json"))
    if base != folder:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            with (folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    # By the first legal token too: the files for speech and for text do not replace one another.
    place = hashlib.sha256(f"{absolute(folder)} {int(legal[0])}".encode()).hexdigest()[:8]
    return cache_folder() / f"{absolute(folder).name}-{place}-{kind}-{digest.hexdigest()[:16]}.gguf"


def cache_folder() -> Path:
    """The folder of converted models: `$LLASA_HOME/cache`, by default ~/.cache/llasa.

    Raises:
        LlasaError: it cannot be made.
    """
    home = os.environ.get("LLASA_HOME")
    folder = Path(home) / "cache" if home else Path.home() / ".cache" / "llasa"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LlasaError(f"cannot make the folder {shown(folder)}: {reason(error)}: set LLASA_HOME") from error
    return folder

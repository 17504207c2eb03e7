"""The seam: a second backend, which has no model at all, speaks, streams and searches; and opening the first."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llasa.codec import load_codec
from llasa.engine import Backend, Sampling, fastest_backend, llamacpp_context, open_backend
from llasa.errors import LlasaError, NoSound
from llasa.models.folder import load_tokenizer
from llasa.tts import Llasa
from llasa.verifiers import Batch
from llasa.vocabulary import Vocabulary, read_vocabulary

TEXT = "Hello there. It is late now, and nobody in the house has said a word."
GREEDY = Sampling(temperature=0)


@dataclass
class Row:
    last: int
    limit: int
    least: int
    seed: int
    tokens: list[int] = field(default_factory=list)
    finished: bool = False

    @property
    def stopped(self) -> bool:
        return self.finished or len(self.tokens) >= self.limit


@dataclass
class Rows:
    rows: list[Row]

    @property
    def tokens(self) -> list[list[int]]:
        return [row.tokens for row in self.rows]

    @property
    def finished(self) -> list[bool]:
        return [row.finished for row in self.rows]

    @property
    def stopped(self) -> list[bool]:
        return [row.stopped for row in self.rows]


class Table:
    """A backend that looks the next token up. After a prompt comes a code by the seed, after the last code the end."""

    device, dtype, context = torch.device("cpu"), torch.float32, 512

    def __init__(self, vocabulary: Vocabulary) -> None:
        codes = [vocabulary.first + int(code) for code in np.random.default_rng(0).permutation(vocabulary.size)]
        self.firsts, self.end = codes[: vocabulary.size // 2], vocabulary.end
        self.following = dict(zip(codes, [*codes[1:], vocabulary.end], strict=True))
        self.prompts: list[Sequence[int]] = []

    def next(self, row: Row) -> int:
        found = self.following[row.last] if row.tokens else self.firsts[row.seed % len(self.firsts)]
        return self.firsts[0] if found == self.end and len(row.tokens) < row.least else found

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        samples: int = 1,
        seeds: Sequence[int] | None = None,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        min_tokens: Sequence[int] | None = None,
    ) -> Rows:
        self.prompts += prompts
        rows = []
        for i, seed in enumerate(seeds or range(len(prompts) * samples)):
            prompt, least = prompts[i // samples], (min_tokens or [0] * len(prompts))[i // samples]
            rows.append(Row(prompt[-1], min(self.context - len(prompt), max_tokens or self.context), least, seed))
        return Rows(rows)

    def extend(self, state: Rows, tokens: int = 50) -> Rows:
        """A new state: the old one does not advance."""
        state = self.select(state, range(len(state.rows)))
        for row in state.rows:
            for _ in range(tokens):
                if row.stopped:
                    break
                token = self.next(row)
                if token == self.end:
                    row.finished = True
                else:
                    row.tokens.append(token)
                    row.last = token
        return state

    def select(self, state: Rows, rows: Sequence[int], seeds: Sequence[int] | None = None) -> Rows:
        chosen = [replace(state.rows[i], tokens=list(state.rows[i].tokens)) for i in rows]
        for row, seed in zip(chosen, seeds or (), strict=False):
            row.seed = seed
        return Rows(chosen)

    def merge(self, first: Rows, second: Rows) -> Rows:
        return Rows([*first.rows, *second.rows])

    attends = False

    def attention(self, ids: Sequence[int], layer: int, head: int) -> np.ndarray:
        raise LlasaError("a table does not attend")

    def writing(self, first: int, size: int, end: int) -> "Table":
        raise LlasaError("a table does not write")

    def likelihoods(self, prompt: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        raise LlasaError("a table has no probabilities")

    def rows_that_fit(self, width: int) -> int:
        return 8


@pytest.fixture
def table(lm_folder: Path) -> Table:
    return Table(read_vocabulary(load_tokenizer(lm_folder)))


@pytest.fixture
def llasa(lm_folder: Path, codec_folder: Path, table: Table) -> Llasa:
    return Llasa(lm_folder, read_vocabulary(load_tokenizer(lm_folder)), load_codec(codec_folder), table)


def walks(llasa: Llasa, table: Table, codes: np.ndarray) -> bool:
    """Whether codes are a walk through the table from a first one to the end."""
    tokens = llasa.vocabulary.tokens(codes)
    steps = zip(tokens, [*tokens[1:], table.end], strict=True)
    return tokens[0] in table.firsts and all(table.following[one] == other for one, other in steps)


def test_a_table_speaks(llasa: Llasa, table: Table) -> None:
    speech = llasa.say(TEXT, seed=1)
    assert len(speech.utterances) > 1
    assert all(u.finished and walks(llasa, table, u.codes) for u in speech.utterances)
    assert llasa.say(TEXT, seed=1).codes.tolist() == speech.codes.tolist() != llasa.say(TEXT, seed=2).codes.tolist()


def test_a_table_streams_what_it_speaks(llasa: Llasa) -> None:
    pieces = list(llasa.stream(TEXT, seed=1))
    assert len(pieces) > 2
    assert sum(map(len, pieces)) == len(llasa.say(TEXT, seed=1).samples)


@pytest.mark.parametrize("search", ["best-of:5", "beam:2x2/10", "beam:2x2/10^5", "mixed:2x2@0.2s+4"])
def test_a_table_is_searched(llasa: Llasa, table: Table, search: str) -> None:
    class Longest:
        name, process, needs_text, needs_reference = "longest", True, False, False

        def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
            return np.array([len(audio) / batch.rate for audio in batch.audios])

    speech = llasa.say("Hello there.", seed=1, search=search, verify=Longest())
    account = speech.search
    assert account is not None
    assert walks(llasa, table, speech.codes)
    sound = [len(candidate.codes) for candidate in account.candidates if candidate.sound]
    assert len(speech.codes) == max(sound)
    assert len(table.prompts) == 1


def test_the_backend_of_a_folder(lm_folder: Path) -> None:
    own: Backend = open_backend(lm_folder)
    whole = Llasa.load(lm_folder, device="cpu", dtype="float32")
    assert (own.context, own.device.type, own.dtype) == (512, "cpu", torch.float32)
    prompt = whole.vocabulary.prompt("Hello.")
    found, wanted = (b.extend(b.start([prompt], sampling=GREEDY), 20).tokens for b in (own, whole.backend))
    assert found == wanted
    with pytest.raises(LlasaError, match=r"unknown backend abacus: use torch, llamacpp or vllm"):
        open_backend(lm_folder, "abacus")


@pytest.mark.parametrize(("backend", "module"), [("llamacpp", "llama_cpp"), ("vllm", "vllm")])
def test_a_backend_that_is_not_installed(
    backend: str, module: str, lm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LlasaError, match=rf"{module} is not installed, .*: pip install 'llasa\[{backend}\]'"):
        Llasa.load(lm_folder, backend=backend)


def test_llama_cpp_is_the_fastest_for_a_few_rows_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llasa.engine.backend.find_spec", lambda name: None if name == "llama_cpp" else object())
    assert fastest_backend(1, "cpu") == "torch"  # it is not installed
    monkeypatch.setattr("llasa.engine.backend.find_spec", lambda name: object())
    monkeypatch.setattr("llasa.engine.llamacpp_context.library", lambda: None)
    assert [fastest_backend(rows, "cpu") for rows in (1, 4, 16)] == ["llamacpp", "llamacpp", "torch"]
    assert fastest_backend(1, "cpu", device_map="auto") == "torch"
    with pytest.raises(LlasaError, match="cannot use the device abacus"):
        fastest_backend(1, "abacus")


def test_a_llama_cpp_that_does_not_load_leaves_the_work_to_torch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("llama_cpp", "gguf"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('libllama.so is for another processor')")
    monkeypatch.syspath_prepend(tmp_path)
    # Not the cached one, which may have found another llama.cpp before.
    monkeypatch.setattr("llasa.engine.llamacpp_context.library", llamacpp_context.library.__wrapped__)
    assert fastest_backend(1, "cpu") == "torch"


def test_where_a_backend_does_not_compute(lm_folder: Path) -> None:
    for wrong in ({"device": "cuda"}, {"device_map": "auto"}):
        with pytest.raises(LlasaError, match=r"llamacpp computes on the CPU: leave --device(-map)? \w+ out"):
            Llasa.load(lm_folder, backend="llamacpp", **wrong)


def test_a_table_that_ends_at_once_makes_no_sound(llasa: Llasa, table: Table) -> None:
    table.firsts = [table.end]
    for speak in (
        lambda: llasa.say("Hi.", seed=1),
        lambda: llasa.say("Hi.", seed=1, best_of=2, verify=lambda batch: [0.0] * len(batch)),
        lambda: list(llasa.stream("Hi.", seed=1)),
    ):
        with pytest.raises(NoSound, match="without a sound"):
            speak()

"""The backend in vLLM against the torch engine, on the CPU build of vLLM."""

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from official import make_official_folder, make_official_lora
from small_models import make_lm_folder

from llasa.engine import Sampling, open_backend
from llasa.engine.torch_engine import Engine
from llasa.errors import LlasaError, NoRoom

pytest.importorskip("vllm", reason="vLLM is not installed: run make test-vllm")

from vllm import LLMEngine

from llasa.engine.vllm_engine import BLOCK, FULL, Vllm, _memory

WARM, GREEDY = Sampling(temperature=1.0), Sampling(temperature=0)
PROMPTS = [[3, 4, 5, 6, 60, 61, 7], [9], list(range(45, 85)), [8, 8, 8, 60, 61, 62, 63]]


@pytest.fixture(scope="module")
def folder(codec_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose heads are as wide as vLLM wants them."""
    return make_lm_folder(tmp_path_factory.mktemp("lm") / "lm", codec_folder, num_attention_heads=2)


@pytest.fixture(scope="module")
def backends(folder: Path) -> tuple[Vllm, Engine]:
    ours, theirs = (open_backend(folder, name) for name in ("vllm", "torch"))
    assert isinstance(ours, Vllm)
    assert isinstance(theirs, Engine)
    return ours, theirs


def test_the_likeliest_tokens_are_those_of_torch(backends: tuple[Vllm, Engine]) -> None:
    found, wanted = (e.extend(e.start(PROMPTS, sampling=GREEDY), 60) for e in backends)
    assert found.tokens == wanted.tokens
    assert found.finished == wanted.finished
    assert max(map(len, found.tokens)) == 60


def test_a_seed_gives_what_it_gives_in_torch(backends: tuple[Vllm, Engine]) -> None:
    sampling = Sampling(temperature=0.9, top_p=0.95, top_k=40, min_p=0.01, repetition_penalty=1.1)
    both: list[list[list[int]]] = []
    for e in backends:
        state = e.merge(
            e.start(PROMPTS, 2, seeds=range(8), sampling=WARM, max_tokens=40, min_tokens=[0, 10, 0, 20]),
            e.start([PROMPTS[0]], 3, seeds=[7, 8, 9], sampling=sampling, min_tokens=[100]),
        )
        both.append(e.extend(e.extend(state, 13), 130).tokens)
    assert both[0] == both[1]
    assert max(map(len, both[0])) > 64  # so that the oldest tokens are no longer penalised


def test_rows_are_forked_dropped_and_joined_as_in_torch(backends: tuple[Vllm, Engine]) -> None:
    """And the states that they come from stay as they were."""

    def run(e: Any) -> list[list[list[int]]]:
        first = e.extend(e.start(PROMPTS, sampling=WARM, seeds=range(4), min_tokens=[50] * 4), 10)
        forked = e.select(first, [2, 0, 2, 2])
        anew = e.select(first, [3, 3], seeds=[11, 12])
        joined = e.merge(forked, anew)
        before = [list(tokens) for tokens in first.tokens]
        ends = [e.extend(state, 15).tokens for state in (joined, forked, first, anew)]
        assert [tokens[:10] for tokens in first.tokens] == before
        return ends

    joined, forked, first, anew = run(backends[0])
    assert [joined, forked, first, anew] == run(backends[1])
    assert joined == forked + anew
    assert forked[0] == first[2] != forked[2] != forked[3]


def test_a_prompt_is_read_once(backends: tuple[Vllm, Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """What its samples share, and what a row has said before, comes out of vLLM's cache."""
    ours, _ = backends
    step = LLMEngine.step
    cached: list[int] = []

    def note(engine: Any) -> Any:
        outputs = step(engine)
        cached.extend(output.num_cached_tokens for output in outputs)
        return outputs

    monkeypatch.setattr(LLMEngine, "step", note)
    long = list(range(90)) * 3
    ours.extend(ours.extend(ours.start([long], 4, sampling=WARM, min_tokens=[99]), 40), 5)
    assert len(cached) == 8
    assert min(cached[1:4]) >= len(long) - BLOCK
    assert min(cached[4:]) >= len(long) + 40 - 2 * BLOCK


def test_an_interrupted_call_changes_nothing(backends: tuple[Vllm, Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = backends
    state = ours.extend(ours.start(PROMPTS, seeds=range(4), sampling=WARM, min_tokens=[50] * 4), 5)
    step = LLMEngine.step
    calls: list[None] = []

    def stop(engine: Any) -> Any:
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(engine)

    with monkeypatch.context() as patch:
        patch.setattr(LLMEngine, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            ours.extend(state, 5)
    wanted = theirs.start(PROMPTS, seeds=range(4), sampling=WARM, min_tokens=[50] * 4)
    assert ours.extend(state, 15).tokens == theirs.extend(wanted, 20).tokens


def test_likelihoods_and_other_tokens_are_those_of_torch(backends: tuple[Vllm, Engine]) -> None:
    prompt, end = PROMPTS[2], backends[1].end
    for ours, theirs in (backends, [e.writing(5, 30, 41) for e in backends]):
        tokens = [theirs.first + 3, theirs.first, theirs.first + 7, theirs.end]
        found, wanted = (e.likelihoods(prompt, tokens) for e in (ours, theirs))
        assert found.dtype == np.float32
        assert np.allclose(found, wanted, atol=1e-3)
        said = [e.extend(e.start([prompt], 3, range(3), WARM), 20).tokens for e in (ours, theirs)]
        assert said[0] == said[1]
    with pytest.raises(LlasaError, match="none of those that may follow here"):
        backends[0].likelihoods(prompt, [0 if end else 1])
    with pytest.raises(NoRoom):
        backends[0].likelihoods([3] * 500, [backends[0].first] * 20)


def test_what_vllm_cannot_do_is_one_line(
    backends: tuple[Vllm, Engine], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = backends
    assert (ours.dtype, ours.device.type, ours.context, ours.attends) == (torch.float32, "cpu", 512, False)
    assert 1 <= ours.rows_that_fit(500) <= FULL + 2
    with pytest.raises(LlasaError, match="does not tell a model's attention"):
        ours.attention([1, 2], 0, 0)
    with pytest.raises(LlasaError, match="do not fit the model's vocabulary"):
        ours.writing(90, 10**6, 3)
    with pytest.raises(LlasaError, match="vLLM holds one model in a process, and has one: delete that first"):
        open_backend(folder, "vllm")
    with pytest.raises(LlasaError, match="no int8 and int4: use bfloat16"):
        open_backend(folder, "vllm", dtype=torch.int8)
    with pytest.raises(LlasaError, match="this vLLM was built for cpu: use --device cpu"):
        open_backend(folder, "vllm", device="cuda")
    base = make_official_folder(tmp_path / "base")
    with pytest.raises(LlasaError, match=r"takes no LoRA, .*: make a model of it with llasa merge"):
        open_backend(make_official_lora(tmp_path / "lora", str(base)), "vllm")
    free = psutil.virtual_memory()._replace(available=2 * 7 * 10**6)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    config = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
    assert _memory("cpu", config, 10**6, torch.float32)["kv_cache_memory_bytes"] == 7 * 10**6

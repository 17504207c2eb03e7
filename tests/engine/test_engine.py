"""The verbs: prefilling, forking, seeds, stopping, selecting."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import make_lm
from torch import Tensor

from llasa.engine import Sampling, llama, torch_engine
from llasa.engine.state import State
from llasa.engine.torch_engine import Engine
from llasa.errors import LlasaError
from llasa.models.defaults import INT4

VOCABULARY, FIRST, SIZE, END = 150, 50, 90, 40
WARM = Sampling(temperature=1.0)
PROMPTS = [[3, 4, 5, 6, 60, 61, 7], [9], list(range(45, 85)), [8, 8, 8, 60, 61, 62, 63]]


@pytest.fixture(scope="module")
def tiny() -> Engine:
    return Engine(make_lm(VOCABULARY), FIRST, SIZE, END)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of each forward pass from here on."""
    counts: list[int] = []
    forward = llama.forward

    def count(model: llama.Llama, ids: Tensor, positions: Tensor, attend: Callable) -> Tensor:
        counts.append(len(ids))
        return forward(model, ids, positions, attend)

    monkeypatch.setattr(torch_engine, "forward", count)
    return counts


def test_prompts_are_prefilled_once_however_many_samples(tiny: Engine, counted: list[int]) -> None:
    state = tiny.start(PROMPTS, samples=5, sampling=WARM)
    # All but the last token, which is each row's first step.
    assert counted == [len(prompt) - 1 for prompt in PROMPTS if len(prompt) > 1]
    assert len(state.tokens) == 20
    tiny.extend(state, 1)
    assert counted[-1] == 20


def test_sampled_tokens_follow_the_softmax_of_the_legal_logits() -> None:
    model = make_lm(VOCABULARY, initializer_range=0.1)
    tiny = Engine(model, FIRST, SIZE, END)
    with torch.no_grad():
        logits = model(torch.tensor([PROMPTS[0]])).logits[0, -1]
    rows = 20000
    state = tiny.start([PROMPTS[0]], rows, seeds=range(rows), sampling=Sampling(temperature=0.7), max_tokens=1)
    tiny.extend(state, 1)
    drawn = [row[0] if row else END for row in state.tokens]
    counts = np.bincount(drawn, minlength=VOCABULARY)
    legal = [*range(FIRST, FIRST + SIZE), END]
    wanted = (logits[legal] / 0.7).double().softmax(-1).numpy() * rows
    assert counts.sum() == counts[legal].sum()
    assert wanted.min() > 5
    statistic = ((counts[legal] - wanted) ** 2 / wanted).sum()
    assert statistic < 124.1  # chi-square's 99 % quantile for 90 degrees of freedom


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, INT4])
def test_a_row_is_the_same_whatever_else_is_in_the_batch(dtype: torch.dtype) -> None:
    """Bit for bit, down to the KV cache, where the weights are packed."""
    model = make_lm(VOCABULARY, hidden_size=128, head_dim=32).to(dtype if dtype.is_floating_point else torch.float32)
    tiny = Engine(replace(llama.weights_of(model), dtype=dtype), FIRST, SIZE, END)
    # The second batch adds rows, the third also other settings.
    many = PROMPTS * 4
    batches = [
        tiny.start(PROMPTS, seeds=range(4), sampling=WARM),
        tiny.start(many, seeds=range(16), sampling=WARM),
        tiny.merge(
            tiny.start(PROMPTS, seeds=range(4), sampling=WARM),
            tiny.start([[7] * 100], 7, sampling=Sampling(temperature=0.5, top_p=0.8, repetition_penalty=1.2)),
        ),
    ]
    for state in batches:
        tiny.extend(state, 50)
    for row, prompt in enumerate(PROMPTS):
        alone = tiny.extend(tiny.start([prompt], seeds=[row], sampling=WARM), 50)
        for state in batches:
            assert state.tokens[row] == alone.tokens[0]
            length = state.rows[row].cached
            found, wanted = state.cache[0][:, :, row, :, :length], alone.cache[0][:, :, 0, :, :length]
            if dtype in (torch.int8, INT4) or llama._packs(model.lm_head.weight):
                assert torch.equal(found, wanted)
            else:
                assert torch.allclose(found, wanted, atol=1e-3)
    assert any(len(tokens) > 30 for tokens in batches[0].tokens)


def test_a_row_does_not_depend_on_the_thread_that_its_place_in_the_batch_falls_to(tiny: Engine) -> None:
    def run(seeds: list[int]) -> State:
        state = tiny.start([list(range(100)) * 3], len(seeds), seeds, WARM, max_tokens=3)
        return tiny.extend(state, 3)

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        alone, batch = run([5]), run([1, 2, 3, 4, 5])
    finally:
        torch.set_num_threads(threads)
    assert alone.tokens[0] == batch.tokens[4]
    if llama._packs(tiny.llama.embedding):
        assert torch.equal(alone.cache[0][:, :, 0, :, :302], batch.cache[0][:, :, 4, :, :302])


def test_seeds_make_rows_differ_and_repeat(tiny: Engine) -> None:
    def run(seeds: list[int] | None) -> list[list[int]]:
        return tiny.extend(tiny.start([PROMPTS[0]], 3, seeds, WARM), 20).tokens

    first, second, third = run([5, 6, 5])
    assert first == third != second
    assert run([6, 2**64 - 1, -1])[0] == second
    assert run(None) != run(None)


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_small_steps_are_one_large_step(tiny: Engine, chunks: list[int]) -> None:
    sampling = Sampling(temperature=1.0, repetition_penalty=1.3, top_p=0.95)
    whole = tiny.extend(tiny.start(PROMPTS, seeds=range(4), sampling=sampling), sum(chunks))
    state = tiny.start(PROMPTS, seeds=range(4), sampling=sampling)
    for chunk in chunks:
        state = tiny.extend(state, chunk)
    assert state.tokens == whole.tokens
    assert state.finished == whole.finished


def test_finished_rows_are_not_computed(tiny: Engine, counted: list[int]) -> None:
    state = tiny.start([PROMPTS[0]], 12, range(12), WARM, max_tokens=150)
    counted.clear()
    tiny.extend(state, 100000)
    assert all(state.stopped)
    assert sum(state.finished) > 3
    assert not all(state.finished)
    # One forward pass a token, and one more for the end token.
    assert sum(counted) == sum(len(row.tokens) + row.finished for row in state.rows)
    assert all(FIRST <= token < FIRST + SIZE for tokens in state.tokens for token in tokens)
    before = sum(counted)
    tiny.extend(state)
    assert sum(counted) == before


def test_rows_stop_where_the_context_ends() -> None:
    model = make_lm(VOCABULARY)
    model.lm_head.weight.data[END] = 0  # greedy then never ends by itself
    tiny = Engine(model, FIRST, SIZE, END, context=48)
    state = tiny.extend(tiny.start(PROMPTS, sampling=Sampling(temperature=0)), 1000)
    assert [len(tokens) for tokens in state.tokens] == [48 - len(prompt) for prompt in PROMPTS]
    assert state.stopped == [True] * 4
    assert state.finished == [False] * 4
    capped = tiny.extend(tiny.start(PROMPTS, sampling=Sampling(temperature=0), max_tokens=10), 1000)
    assert capped.tokens == [tokens[:10] for tokens in state.tokens]
    assert Engine(model, FIRST, SIZE, END, context=10**6).context == 512


def test_selected_rows_go_on_as_if_nothing_had_happened(tiny: Engine) -> None:
    whole = tiny.extend(tiny.start(PROMPTS, 2, range(8), WARM), 60)
    state = tiny.extend(tiny.start(PROMPTS, 2, range(8), WARM), 10)
    early = [list(tokens) for tokens in state.tokens]
    chosen = tiny.select(state, [7, 0, 5])
    assert chosen.tokens == [early[7], early[0], early[5]]
    tiny.extend(chosen, 50)
    assert chosen.tokens == [whole.tokens[7], whole.tokens[0], whole.tokens[5]]
    assert state.tokens == early
    assert tiny.extend(state, 50).tokens == whole.tokens


def test_duplicated_rows_part_ways_and_do_so_again_next_time(tiny: Engine) -> None:
    def run() -> State:
        state = tiny.extend(tiny.start([PROMPTS[0]], 2, [2, 3], WARM), 10)
        twins = tiny.select(state, [0, 0, 1, 0])
        again = tiny.select(tiny.extend(twins, 5), [1, 1, 3])
        return tiny.extend(again, 10)

    whole = tiny.extend(tiny.start([PROMPTS[0]], 2, [2, 3], WARM), 30)
    assert not any(whole.finished)
    twins = tiny.select(tiny.extend(tiny.start([PROMPTS[0]], 2, [2, 3], WARM), 10), [0, 0, 1, 0])
    tiny.extend(twins, 20)
    assert twins.tokens[0] == whole.tokens[0]
    assert twins.tokens[2] == whole.tokens[1]
    assert all(tokens[:10] == whole.tokens[0][:10] for tokens in (twins.tokens[1], twins.tokens[3]))
    assert len({tuple(tokens) for tokens in twins.tokens}) == 4
    assert run().tokens == run().tokens
    assert len({tuple(tokens) for tokens in run().tokens}) == 3


def test_duplicates_have_the_original_past() -> None:
    """Their greedy future, which is a function of the past alone, is the original's."""
    tiny = Engine(make_lm(VOCABULARY), FIRST, SIZE, END)
    state = tiny.extend(tiny.start(PROMPTS, sampling=Sampling(temperature=0)), 10)
    copies = tiny.extend(tiny.select(state, [2, 2, 0, 2]), 30)
    tiny.extend(state, 30)
    assert copies.tokens == [state.tokens[i] for i in (2, 2, 0, 2)]


def test_states_of_nothing(tiny: Engine) -> None:
    state = tiny.extend(tiny.start([PROMPTS[0]]), 5)
    assert tiny.extend(tiny.select(state, []), 5).tokens == []
    assert tiny.extend(tiny.start([]), 5).tokens == []
    assert tiny.extend(state, 0).tokens == state.tokens


def test_states_share_a_store_until_they_differ(tiny: Engine) -> None:
    def alone(i: int, tokens: int) -> list[int]:
        return tiny.extend(tiny.start([PROMPTS[i]], seeds=[i], sampling=WARM), tokens).tokens[0]

    def start(*rows: int) -> State:
        return tiny.start([PROMPTS[i] for i in rows], seeds=rows, sampling=WARM)

    both = tiny.extend(tiny.merge(start(0), start(1)), 10)
    fewer = tiny.select(both, [1])
    assert fewer.cache[0].data_ptr() == both.cache[0].data_ptr()
    joined = tiny.merge(fewer, start(2))
    assert joined.cache[0].data_ptr() == both.cache[0].data_ptr()
    assert set(joined.places).isdisjoint([both.places[0]])  # whose row still lives
    tiny.extend(joined, 20)
    assert joined.cache[0].data_ptr() != both.cache[0].data_ptr()
    assert joined.tokens == [alone(1, 30), alone(2, 20)]
    tiny.extend(both, 20)
    assert both.tokens == [alone(0, 30), alone(1, 30)]
    place = joined.places[0]
    joined = tiny.select(joined, [1])
    joined = tiny.merge(tiny.merge(joined, start(3)), start(0))
    assert place in joined.places  # the place of a row that nobody has any more
    pointer = joined.cache[0].data_ptr()
    assert tiny.extend(joined, 10).tokens == [alone(2, 30), alone(3, 10), alone(0, 10)]
    assert joined.cache[0].data_ptr() == pointer


def test_merged_states_go_on_as_each_alone(tiny: Engine) -> None:
    cold = Sampling(temperature=0.3, repetition_penalty=1.5)

    def parts() -> tuple[State, State]:
        return (
            tiny.extend(tiny.start(PROMPTS[:2], 2, range(4), WARM), 7),
            tiny.extend(tiny.start(PROMPTS[2:], seeds=[8, 9], sampling=cold, max_tokens=25), 20),
        )

    merged = tiny.extend(tiny.merge(*parts()), 40)
    assert merged.tokens == [tokens for part in parts() for tokens in tiny.extend(part, 40).tokens]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda e: e.start([[]]), "prompt is empty"),
        (lambda e: e.start([[1] * 512]), "leaves no room in a context of 512"),
        (lambda e: e.start([[1, VOCABULARY]]), "outside the model's vocabulary"),
        (lambda e: e.start([[1, -1]]), "outside the model's vocabulary"),
        (lambda e: e.start([[1]], samples=0), "samples is 0 .* both must be 1 or more"),
        (lambda e: e.start([[1]], max_tokens=0), "max_tokens is 0: both must be 1 or more"),
        (lambda e: e.start([[1]], samples=2, seeds=[1]), "1 seeds for 2 rows"),
        (lambda e: e.select(e.start([[1]], samples=2), [0, 2]), "row 2 .* rows 0 to 1"),
        (lambda e: e.select(e.start([[1]]), [-1]), "row -1"),
        (lambda e: Engine(make_lm(VOCABULARY), 100, 51, END), "do not fit the model's vocabulary of 150"),
        (lambda e: Engine(make_lm(VOCABULARY), FIRST, SIZE, 50), "end token 50 is one of the tokens 50 to"),
    ],
)
def test_wrong_calls_are_reported_in_one_line(tiny: Engine, call: Callable, words: str) -> None:
    with pytest.raises(LlasaError, match=words):
        call(tiny)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_damaged_weights_are_told(temperature: float) -> None:
    model = make_lm(VOCABULARY)
    model.model.layers[1].mlp.down_proj.weight.data[3, 3] = torch.nan
    tiny = Engine(model, FIRST, SIZE, END)
    with pytest.raises(LlasaError, match="weights are damaged"):
        tiny.extend(tiny.start([PROMPTS[0]], sampling=Sampling(temperature=temperature)))


def test_a_row_does_not_end_before_its_least(tiny: Engine) -> None:
    def run(least: list[int] | None) -> list[list[int]]:
        start = tiny.start(PROMPTS[:1], 60, range(60), Sampling(temperature=2.0), 30, least)
        return tiny.extend(start, 30).tokens

    free, held = run(None), run([12])
    assert min(map(len, free)) < 12
    assert min(map(len, held)) >= 12
    with pytest.raises(LlasaError, match="one a prompt"):
        tiny.start(PROMPTS[:1], min_tokens=[1, 2])


@pytest.mark.parametrize("free", [0, 2**20, 2**30])
def test_as_many_rows_fit_as_twice_their_caches_are_free(
    tiny: Engine, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()._replace(available=free)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    state = tiny.start([[3, 4, 5]], seeds=[1], max_tokens=100)
    row = sum(part.numel() * part.element_size() for part in state.cache)
    assert tiny.rows_that_fit(103) == free // (2 * row)

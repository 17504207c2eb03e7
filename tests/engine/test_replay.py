"""The loop that a GPU replays, compared with the engine's own: on a CPU without a graph, on a GPU with it."""

import pytest
import torch
from small_models import make_lm

from llasa.engine import Sampling
from llasa.engine.replay import BUCKET, READ, Loop
from llasa.engine.state import State
from llasa.engine.torch_engine import Engine

VOCABULARY, FIRST, SIZE, END = 150, 50, 90, 40
PROMPTS = [[3, 4, 5, 6, 60, 61, 7], [9], list(range(45, 85)), [8, 8, 8, 60, 61, 62, 63]]
SETTINGS = [Sampling(1.0), Sampling(0.0), Sampling(0.9, top_p=0.8), Sampling(1.0, repetition_penalty=1.3)]


def states(engine: Engine, limit: int | None = 300) -> list[State]:
    """For each setting a state of prompts of various lengths, and one in which the settings are mixed."""
    made = [
        engine.start(PROMPTS, seeds=range(4), sampling=s, max_tokens=limit, min_tokens=[0, 20, 0, 9]) for s in SETTINGS
    ]
    return [*made, engine.merge(made[2], made[3])]


def advance(engine: Engine, state: State, *steps: int) -> State:
    with torch.inference_mode():
        loop = Loop(engine.llama, state, FIRST, SIZE)
        for count in steps:
            loop.run(count)
    return state


@pytest.mark.parametrize("spread", [0.02, 0.3])
def test_the_loop_says_what_the_engine_says(spread: float) -> None:
    engine = Engine(make_lm(VOCABULARY, initializer_range=spread), FIRST, SIZE, END)
    for own, other in zip(states(engine), states(engine), strict=True):
        engine.extend(own, 400)
        advance(engine, other, 3, READ + 1, 400)
        assert other.tokens == own.tokens
        assert other.finished == own.finished
    assert max(row.cached for row in own.rows) > BUCKET  # some have passed from one graph to the next


def test_rows_that_have_stopped_leave_the_others_alone() -> None:
    engine = Engine(make_lm(VOCABULARY), FIRST, SIZE, END)
    state = engine.merge(
        engine.start([PROMPTS[0]], seeds=[1], sampling=SETTINGS[0], max_tokens=5, min_tokens=[6]),
        engine.start([PROMPTS[2]], seeds=[2], sampling=SETTINGS[0], max_tokens=90, min_tokens=[91]),
    )
    alone = engine.extend(
        engine.start([PROMPTS[2]], seeds=[2], sampling=SETTINGS[0], max_tokens=90, min_tokens=[91]), 90
    )
    advance(engine, state, 90)
    assert [len(tokens) for tokens in state.tokens] == [5, 90]
    assert state.tokens[1] == alone.tokens[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_says_what_a_cpu_says() -> None:
    model = make_lm(VOCABULARY, initializer_range=0.3)
    cpu, gpu = Engine(model, FIRST, SIZE, END), Engine(model.to("cuda"), FIRST, SIZE, END)
    for own, other in zip(states(cpu), states(gpu), strict=True):
        cpu.extend(own, 400)
        for count in (3, READ + 1, 400):
            gpu.extend(other, count)
        assert other.loop.graphs
        assert other.tokens == own.tokens
        assert other.finished == own.finished


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_states_of_a_gpu_are_selected_and_merged_under_way() -> None:
    model = make_lm(VOCABULARY, initializer_range=0.3)
    said = []
    for engine in (Engine(model, FIRST, SIZE, END), Engine(model.to("cuda"), FIRST, SIZE, END)):
        state = engine.extend(engine.start(PROMPTS, 2, range(8), SETTINGS[0], 200), 20)
        state = engine.merge(
            engine.select(state, [5, 0, 0]), engine.start([PROMPTS[1]], seeds=[9], sampling=SETTINGS[0])
        )
        said.append(engine.extend(state, 300).tokens)
    assert said[0] == said[1]

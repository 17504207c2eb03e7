"""The drawn distribution against transformers' own filters, and the streams of random numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llasa.engine.sampling import UNIFORM_LIMIT, Sampler, Sampling, best, uniforms
from llasa.errors import LlasaError

DRAWS = 4000


def drawn(logits: Tensor, sampling: Sampling, seen: Tensor | None = None) -> Tensor:
    """How often each token of (v,) comes up over evenly spaced uniform numbers: its probability to within 1 / DRAWS."""
    sampler = Sampler([sampling] * DRAWS, torch.device("cpu"))
    even = (torch.arange(DRAWS)[:, None] + 0.5) / DRAWS
    choice = sampler.choose(logits.expand(DRAWS, -1), even, None if seen is None else seen.expand(DRAWS, -1))
    return choice.bincount(minlength=logits.shape[0]) / DRAWS


def random_logits(size: int = 300, seed: int = 0) -> Tensor:
    return 3 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("sampling", "warpers"),
    [
        (Sampling(temperature=1.0), []),
        (Sampling(temperature=0.7), [TemperatureLogitsWarper(0.7)]),
        (Sampling(temperature=1.0, top_k=5), [TopKLogitsWarper(5)]),
        (Sampling(temperature=1.0, top_k=1000), []),
        (Sampling(temperature=1.0, top_p=0.6), [TopPLogitsWarper(0.6)]),
        (Sampling(temperature=1.0, top_p=1e-6), [TopPLogitsWarper(1e-6)]),
        (Sampling(temperature=1.0, min_p=0.1), [MinPLogitsWarper(0.1)]),
        (
            Sampling(temperature=1.5, top_k=40, top_p=0.9, min_p=0.02),
            [TemperatureLogitsWarper(1.5), TopKLogitsWarper(40), TopPLogitsWarper(0.9), MinPLogitsWarper(0.02)],
        ),
    ],
)
def test_filters_draw_what_transformers_filters_leave(sampling: Sampling, warpers: list) -> None:
    for seed in range(3):
        logits = random_logits(seed=seed)
        scores = logits[None]
        for warper in warpers:
            scores = warper(torch.zeros(1, 0, dtype=torch.long), scores)
        wanted = scores[0].softmax(-1)
        found = drawn(logits, sampling)
        assert (found - wanted).abs().max() < 1.5 / DRAWS
        assert found[wanted == 0].sum() == 0


def test_repetition_penalty_is_transformers() -> None:
    logits, generated = random_logits(), [3, 17, 17, 200]
    seen = torch.zeros(300, dtype=torch.bool)
    seen[generated] = True
    wanted = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([generated]), logits[None])[0].softmax(-1)
    found = drawn(logits, Sampling(temperature=1.0, repetition_penalty=1.7), seen)
    assert (found - wanted).abs().max() < 1.5 / DRAWS


def test_penalty_acts_on_greedy_rows_too() -> None:
    logits = torch.tensor([[4.0, 3.0, -1.0]])
    sampler = Sampler([Sampling(temperature=0, repetition_penalty=2.0)], torch.device("cpu"))
    assert sampler.choose(logits, torch.zeros(1, 1), torch.tensor([[True, False, False]])).tolist() == [1]


def test_rows_with_different_settings_do_not_disturb_one_another() -> None:
    settings = [
        Sampling(),
        Sampling(temperature=0),
        Sampling(temperature=1.0, top_k=3),
        Sampling(top_p=0.5),
        Sampling(min_p=0.3, repetition_penalty=2.0),
    ]
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        logits = 3 * torch.randn(len(settings), 100, generator=generator)
        uniform = torch.rand(len(settings), 1, generator=generator) * UNIFORM_LIMIT
        seen = torch.rand(len(settings), 100, generator=generator) < 0.3
        together = Sampler(settings, torch.device("cpu")).choose(logits, uniform, seen)
        alone = [
            Sampler([s], torch.device("cpu")).choose(logits[i : i + 1], uniform[i : i + 1], seen[i : i + 1])
            for i, s in enumerate(settings)
        ]
        assert together.tolist() == torch.cat(alone).tolist()


def test_the_largest_uniform_number_draws_a_legal_token() -> None:
    """The last tokens have probability 0: rounding must not push a draw onto or behind them."""
    for seed in range(20):
        logits = random_logits(4097, seed)
        logits[-5:] = -1e9
        sampler = Sampler([Sampling(temperature=1.0)], torch.device("cpu"))
        drawn = sampler.choose(logits[None], torch.full((1, 1), UNIFORM_LIMIT))
        assert int(drawn) < 4092


def test_not_a_number_is_told_by_an_index_out_of_range() -> None:
    logits = torch.tensor([[0.0, torch.nan, 2.0], [0.0, 1.0, 2.0]])
    assert best(logits).tolist() == [3, 2]
    sampler = Sampler([Sampling(temperature=1.0)] * 2, torch.device("cpu"))
    assert sampler.choose(logits, torch.full((2, 1), 0.99)).tolist() == [3, 2]


@given(st.integers(0, 2**64 - 1), st.integers(0, 300), st.integers(1, 60))
def test_any_stretch_of_a_stream_can_be_had_alone(seed: int, position: int, count: int) -> None:
    whole = uniforms((seed,), 0, 400)
    assert np.array_equal(uniforms((seed,), position, count), whole[position : position + count])
    assert whole.min() >= 0
    assert whole.max() < UNIFORM_LIMIT


def test_keys_have_streams_of_their_own() -> None:
    streams = [uniforms(key, 0, 50) for key in [(1,), (2,), (1, 5, 1), (1, 5, 2), (1, 6, 1), (2**40 + 1,)]]
    assert len({stream.tobytes() for stream in streams}) == len(streams)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(LlasaError, match=next(iter(wrong))):
        Sampling(**wrong)


@pytest.mark.parametrize("setting", [
    {"temperature": 10**400}, {"temperature": "hot"}, {"temperature": True}, {"temperature": float("nan")},
    {"top_k": 2.5}, {"top_k": 10**20}, {"top_k": -1}, {"top_p": None}, {"min_p": []},
    {"repetition_penalty": float("inf")},
])  # fmt: skip
def test_a_setting_of_another_kind_or_size_is_one_line(setting: dict) -> None:
    with pytest.raises(LlasaError, match=f"^{next(iter(setting))} is .*: it must be"):
        Sampling(**setting)

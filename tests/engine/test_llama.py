"""The second implementation of the Llama against transformers' own."""

import re
from dataclasses import replace

import pytest
import torch
from small_models import make_lm
from torch import Tensor
from transformers import LlamaForCausalLM, RepetitionPenaltyLogitsProcessor

from llasa.engine import Sampling, llama
from llasa.engine.sampling import PENALISED, Sampler
from llasa.engine.torch_engine import Engine
from llasa.errors import LlasaError
from llasa.models.defaults import INT4

VOCABULARY, FIRST, SIZE, END = 150, 50, 90, 40
LEGAL = [*range(FIRST, FIRST + SIZE), END]
PROMPT = [3, 4, 5, 6, 60, 61, 7]
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip

KINDS: dict[str, dict] = {
    "grouped queries": {},
    "one key a query": {"num_key_value_heads": 4},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "head size": {"head_dim": 24},
    "llama3 rope": {"rope_parameters": LLAMA3},
}


def make(**changes: object) -> LlamaForCausalLM:
    """A random Llama whose biases and norms are not at their neutral values either."""
    model = make_lm(VOCABULARY, **changes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return model


def reference(model: LlamaForCausalLM, prompt: list[int], tokens: int, penalty: float = 1.0) -> list[int]:
    """What transformers generates greedily from legal tokens, without the end token."""
    plain = RepetitionPenaltyLogitsProcessor(penalty)

    def processor(ids: Tensor, scores: Tensor) -> Tensor:
        newest = ids[:, len(prompt) :][:, -PENALISED:]
        return plain(newest, scores) if newest.numel() else scores

    illegal = [token for token in range(VOCABULARY) if token not in LEGAL]
    ids = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
        max_new_tokens=tokens, eos_token_id=END, pad_token_id=1, suppress_tokens=illegal, logits_processor=[processor],
    )  # fmt: skip
    new = ids[0, len(prompt) :].tolist()
    return new[: new.index(END)] if END in new else new


def logits_of(engine: Engine, monkeypatch: pytest.MonkeyPatch, tokens: int) -> tuple[list[int], Tensor]:
    """Greedy tokens and the logits (tokens, legal) they were picked from."""
    seen: list[Tensor] = []
    choose = Sampler.choose

    def record(self: Sampler, logits: Tensor, *rest: Tensor) -> Tensor:
        seen.append(logits[0])
        return choose(self, logits, *rest)

    monkeypatch.setattr(Sampler, "choose", record)
    state = engine.extend(engine.start([PROMPT], sampling=Sampling(temperature=0)), tokens)
    return state.tokens[0], torch.stack(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_transformers_generate_token_for_token(kind: str) -> None:
    model = make(**KINDS[kind])
    engine = Engine(model, FIRST, SIZE, END)
    prompts = [PROMPT, [9], list(range(45, 85))]
    state = engine.extend(engine.start(prompts, sampling=Sampling(temperature=0)), 120)
    wanted = [reference(model, prompt, 120) for prompt in prompts]
    assert state.tokens == wanted
    assert max(map(len, wanted)) >= 40


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_transformers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(**KINDS[kind])
    tokens, found = logits_of(Engine(model, FIRST, SIZE, END), monkeypatch, 30)
    with torch.no_grad():
        wanted = model(torch.tensor([PROMPT + tokens])).logits[0, len(PROMPT) - 1 :, LEGAL]
    assert (found - wanted[: len(found)]).abs().max() < 1e-4 * wanted.abs().max()


def test_bfloat16_weights_give_the_logits_of_the_same_weights_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make().to(torch.bfloat16)
    tokens, found = logits_of(Engine(model, FIRST, SIZE, END), monkeypatch, 30)
    with torch.no_grad():
        wanted = model.float()(torch.tensor([PROMPT + tokens])).logits[0, len(PROMPT) - 1 :, LEGAL]
    assert (found - wanted[: len(found)]).abs().mean() < 0.02 * wanted.std()


@pytest.mark.parametrize(("able", "most"), [({"avx512_vnni": True}, 0.015), ({}, 0.02)])
def test_int8_sums_are_those_of_whole_numbers(able: dict, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    if able and not any(torch.cpu.get_capabilities().get(name) for name in ("avx512_vnni", "avx_vnni")):
        pytest.skip("this CPU has no instructions for 8 bits")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(200, 300, generator=generator), torch.randn(200, generator=generator)
    x = torch.randn(9, 300, generator=generator) * torch.logspace(-6, 6, 9)[:, None]
    x[4] = 0
    found, wanted = llama._int8(weight, bias)(x) - bias, x @ weight.T
    top, sizes = 127 if able else 63, x.abs().amax(1, keepdim=True).double() / 127
    scales = weight.abs().amax(1) / top
    whole = (weight / scales[:, None]).round().double()
    exact = ((x / sizes.float().clamp_min(1e-30)).round().double() @ whole.T) * scales.double() * sizes
    heard = exact.abs().amax(1) > 1e-3  # beside the bias, smaller rows are lost
    assert torch.allclose(found[heard].double(), exact[heard], rtol=1e-4, atol=1e-5)
    assert torch.equal(found[4], torch.zeros(200))
    assert (found[5:] - wanted[5:]).norm() < most * wanted[5:].norm()


@pytest.mark.skipif(not torch.cpu.get_capabilities().get("avx2"), reason="oneDNN has fast loops for AVX2 and later")
@pytest.mark.parametrize("rows", [1, 9])
def test_int8_is_not_multiplied_in_plain_loops(rows: int, capfd: pytest.CaptureFixture[str]) -> None:
    linear = llama._int8(torch.randn(96, 64), None)
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        linear(torch.randn(rows, 64))
    used = re.findall("exec,cpu,matmul,([^,]*)", capfd.readouterr().out)
    assert used
    assert not any("ref" in name for name in used)


def test_int4_sums_are_those_of_sixteen_steps_a_group() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(64, 96, generator=generator), torch.randn(64, generator=generator)
    weight[3] = 0.25  # a group without a span
    x = torch.randn(9, 96, generator=generator)
    found = llama._int4(weight, bias)(x) - bias
    groups = weight.unflatten(1, (-1, llama.GROUP))
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = ((high - low) / 15).clamp_min(1e-30)
    exact = x.bfloat16().float() @ (((groups - low) / step).round() * step + low).flatten(1).T
    assert (found - exact).abs().max() < 0.02 * exact.abs().max()
    assert (found - x @ weight.T).norm() < 0.1 * (x @ weight.T).norm()


def test_int4_refuses_matrices_that_its_kernel_cannot_take() -> None:
    for size in ((40, 96), (64, 100)):
        with pytest.raises(LlasaError, match=f"int4 does not take a matrix of {size[0]} x {size[1]}: use --dtype int8"):
            llama._int4(torch.randn(size), None)


@pytest.mark.parametrize("dtype", [torch.int8, INT4])
def test_whole_numbers_are_refused_elsewhere_than_on_a_cpu(dtype: torch.dtype) -> None:
    weights = replace(llama.weights_of(make()), dtype=dtype, devices=(torch.device("meta"),) * 2)
    with pytest.raises(LlasaError, match="int8 and int4 are computed on a CPU with oneDNN"):
        Engine(weights, FIRST, SIZE, END)


def test_without_packed_weights_the_tokens_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(attention_bias=True)
    monkeypatch.setattr(llama, "_packs", lambda weight: False)
    engine = Engine(model, FIRST, SIZE, END)
    state = engine.extend(engine.start([PROMPT], sampling=Sampling(temperature=0)), 100)
    assert state.tokens[0] == reference(model, PROMPT, 100)


def test_repetition_penalty_counts_the_newest_of_what_was_generated_and_not_the_prompt() -> None:
    model = make()
    prompt = list(range(FIRST, FIRST + 40))
    sampling = Sampling(temperature=0, repetition_penalty=1.4)
    engine = Engine(model, FIRST, SIZE, END)
    state = engine.start([prompt], sampling=sampling)
    for _ in range(10):
        engine.extend(state, 15)
    assert state.tokens[0] == reference(model, prompt, 150, penalty=1.4)
    assert state.tokens[0] != reference(model, prompt, 150)
    assert len(state.tokens[0]) > 2 * PENALISED


def test_the_engine_keeps_its_own_weights() -> None:
    model = make()
    engine = Engine(model, FIRST, SIZE, END)
    before = engine.extend(engine.start([PROMPT], seeds=[1])).tokens
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert engine.extend(engine.start([PROMPT], seeds=[1])).tokens == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "gelu"}, "activation is gelu"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}}, "rope type is dynamic"),
    ],
)
def test_llamas_of_another_kind_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(LlasaError, match=words):
        Engine(make(**changes), FIRST, SIZE, END)


@pytest.mark.parametrize("kind", ["grouped queries", "head size", "llama3 rope", "biases"])
def test_attention_is_that_of_transformers(kind: str) -> None:
    model = make(**KINDS[kind])
    model.set_attn_implementation("eager")
    ids = [*PROMPT, 60, 70, 80]
    with torch.no_grad():
        wanted = model(torch.tensor([ids]), output_attentions=True).attentions
    ours = Engine(model, FIRST, SIZE, END)
    for layer, head in ((0, 0), (0, 3), (1, 1), (1, 2)):
        torch.testing.assert_close(torch.from_numpy(ours.attention(ids, layer, head)), wanted[layer][0, head])

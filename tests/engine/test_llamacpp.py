"""The backend in llama.cpp: what it computes, and its sequences."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from official import ROPE, make_official_folder, make_official_lora
from safetensors.torch import load_file, save_file
from small_models import make_lm, make_lm_folder

from llasa.engine import Sampling, open_backend
from llasa.engine.llama import weights_of
from llasa.engine.prompt import Prompt
from llasa.engine.torch_engine import Engine
from llasa.errors import LlasaError
from llasa.models.folder import load_tokenizer
from llasa.models.gguf import write_model, write_speech
from llasa.tts import Llasa
from llasa.verifiers import Batch
from llasa.vocabulary import read_vocabulary

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: run make test-llamacpp")

from llasa.engine import llamacpp_context
from llasa.engine.llamacpp_context import library
from llasa.engine.llamacpp_engine import KINDS, LlamaCpp

VOCABULARY, FIRST, SIZE, END = 150, 50, 90, 40
LEGAL = torch.tensor([*range(FIRST, FIRST + SIZE), END])
WARM, GREEDY = Sampling(temperature=1.0), Sampling(temperature=0)
PROMPTS = [[3, 4, 5, 6, 60, 61, 7], [9], list(range(45, 85)), [8, 8, 8, 60, 61, 62, 63]]


def engine(model: Any, folder: Path, dtype: torch.dtype = torch.float32) -> LlamaCpp:
    weights = weights_of(model)
    write_speech(weights, LEGAL, folder / "lm.gguf", KINDS[dtype])
    return LlamaCpp(folder / "lm.gguf", weights, FIRST, SIZE, END, 512, dtype)


@pytest.fixture(scope="module")
def model() -> Any:
    return make_lm(VOCABULARY)


@pytest.fixture(scope="module")
def torch_engine(model: Any) -> Engine:
    return Engine(model, FIRST, SIZE, END)


@pytest.fixture(scope="module")
def tiny(model: Any, tmp_path_factory: pytest.TempPathFactory) -> LlamaCpp:
    return engine(model, tmp_path_factory.mktemp("lm"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True, "rope_parameters": ROPE, "num_key_value_heads": 1},
        {"attention_bias": True, "mlp_bias": True, "head_dim": 32},
        {"hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": 3, "rms_norm_eps": 1e-3},
    ],
)
def test_the_likeliest_tokens_are_those_of_torch(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = make_lm(VOCABULARY, **changes)
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "norm.weight")):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    ours, theirs = engine(model, tmp_path), Engine(model, FIRST, SIZE, END)
    found, wanted = (e.extend(e.start(PROMPTS, sampling=GREEDY), 60) for e in (ours, theirs))
    assert found.tokens == wanted.tokens
    assert found.finished == wanted.finished
    assert max(map(len, found.tokens)) == 60


def test_a_seed_gives_what_it_gives_in_torch(tiny: LlamaCpp, torch_engine: Engine) -> None:
    sampling = Sampling(temperature=0.9, top_p=0.95, top_k=40, min_p=0.01, repetition_penalty=1.1)
    both: list[list[list[int]]] = []
    for e in (tiny, torch_engine):
        state = e.merge(
            e.start(PROMPTS, 2, seeds=range(8), sampling=WARM, max_tokens=40, min_tokens=[0, 10, 0, 20]),
            e.start([PROMPTS[0]], 3, seeds=[7, 8, 9], sampling=sampling),
        )
        both.append(e.extend(e.extend(state, 13), 30).tokens)
    assert both[0] == both[1]


def test_rows_are_forked_dropped_and_joined_as_in_torch(tiny: LlamaCpp, torch_engine: Engine) -> None:
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

    joined, forked, first, anew = run(tiny)
    assert [joined, forked, first, anew] == run(torch_engine)
    assert joined == forked + anew
    assert forked[0] == first[2] != forked[2] != forked[3]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of each call of llama.cpp from here on."""
    counts: list[int] = []
    decode: Callable = llamacpp_context.Context.decode

    def count(self: Any, inputs: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        counts.append(len(inputs))
        return decode(self, inputs, *rest, **more)

    monkeypatch.setattr(llamacpp_context.Context, "decode", count)
    return counts


def test_nothing_is_computed_twice(tiny: LlamaCpp, read: list[int]) -> None:
    state = tiny.extend(tiny.start([PROMPTS[2]], 3, sampling=WARM, min_tokens=[9]), 4)
    forked = tiny.merge(tiny.select(state, [0, 0, 1]), state)
    tiny.extend(forked, 2)
    assert read == [len(PROMPTS[2]) - 1, 3, 3, 3, 3, 6, 6]


def test_all_that_is_in_the_cache_moves_when_it_grows(model: Any, torch_engine: Engine, tmp_path: Path) -> None:
    tiny = engine(model, tmp_path)
    long, rows = list(range(100)) * 4, 40
    both = []
    for e in (tiny, torch_engine):
        state = e.extend(e.start([long, PROMPTS[0]], sampling=WARM, seeds=[1, 2], min_tokens=[99, 99]), 20)
        state = e.merge(state, e.extend(e.start([PROMPTS[0]], rows, range(rows), WARM, min_tokens=[99]), 80))
        both.append(e.extend(state, 30).tokens)
    assert both[0] == both[1]
    assert tiny._model._cells > llamacpp_context.CELLS
    assert tiny._model._sequences > rows


def test_sequences_without_a_state_are_free_again(tiny: LlamaCpp) -> None:
    for _ in range(5):
        tiny.extend(tiny.start([PROMPTS[0]], 100, sampling=WARM), 2)
        gc.collect()
    kept = tiny.start([PROMPTS[0]], 200, sampling=WARM, min_tokens=[9])
    tiny.extend(kept, 1)
    more = tiny.start([PROMPTS[0]], 100, sampling=WARM, min_tokens=[9])
    with pytest.raises(LlasaError, match=r"at most 256 rows at once: use fewer, or --backend torch"):
        tiny.extend(more, 1)
    tiny.extend(tiny.select(kept, [0, 199]), 1)
    del kept
    assert len(tiny.extend(more, 1).tokens) == 100


def test_an_interrupted_step_is_taken_again(
    tiny: LlamaCpp, torch_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tiny.extend(tiny.start(PROMPTS, seeds=range(4), sampling=WARM, min_tokens=[50] * 4), 5)
    decode = llamacpp_context.Context.decode

    def stop(*arguments: Any, **more: Any) -> None:
        decode(*arguments, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(llamacpp_context.Context, "decode", stop)
        with pytest.raises(KeyboardInterrupt):
            tiny.extend(state, 5)
    wanted = torch_engine.start(PROMPTS, seeds=range(4), sampling=WARM, min_tokens=[50] * 4)
    assert tiny.extend(state, 15).tokens == torch_engine.extend(wanted, 20).tokens


def test_rows_fit_the_memory_and_llama_cpp(tiny: LlamaCpp, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiny.rows_that_fit(100) == 128
    row = 2 * 2 * 2 * 16 * 4 * 100  # keys and values, layers, heads, their size, bytes, tokens
    memory = psutil.virtual_memory()._replace(available=2 * 7 * row)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert tiny.rows_that_fit(100) == 7


@pytest.mark.parametrize("dtype", KINDS)
def test_every_precision_generates(model: Any, torch_engine: Engine, tmp_path: Path, dtype: torch.dtype) -> None:
    tiny = engine(model, tmp_path, dtype)
    assert (tiny.dtype, tiny.device.type, tiny.context) == (dtype, "cpu", 512)
    found, wanted = (
        e.extend(e.start([p for p in PROMPTS for _ in range(16)], sampling=WARM, seeds=range(64)), 1).tokens
        for e in (tiny, torch_engine)
    )
    same = np.mean([one == other for one, other in zip(found, wanted, strict=True)])
    assert same > (0.4 if KINDS[dtype] == "q4_0" else 0.9)


def test_weights_that_are_no_numbers(model: Any, tmp_path: Path) -> None:
    broken = make_lm(VOCABULARY)
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    tiny = engine(broken, tmp_path)
    with pytest.raises(LlasaError, match="the model's output is NaN"):
        tiny.extend(tiny.start(PROMPTS, sampling=WARM), 3)


def test_a_folder_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLASA_HOME", str(tmp_path / "home"))
    folder = make_lm_folder(tmp_path / "lm", "codec")

    def speak(dtype: torch.dtype = torch.float32) -> list[list[int]]:
        backend = open_backend(folder, "llamacpp", dtype=dtype)
        return backend.extend(backend.start([PROMPTS[0]], sampling=GREEDY), 20).tokens

    first = speak()
    (file,) = (tmp_path / "home" / "cache").iterdir()
    assert file.name.startswith("lm-")
    made = file.stat().st_mtime_ns
    theirs = open_backend(folder)
    assert speak() == first == theirs.extend(theirs.start([PROMPTS[0]], sampling=GREEDY), 20).tokens
    assert file.stat().st_mtime_ns == made
    speak(torch.int8)
    assert len(list((tmp_path / "home" / "cache").iterdir())) == 2
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor.roll(1, -1) for name, tensor in weights.items()}, folder / "model.safetensors")
    assert speak() != first
    assert not file.exists()
    assert len(list((tmp_path / "home" / "cache").iterdir())) == 2
    (file,) = (tmp_path / "home" / "cache").glob("*-f32-*")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(LlasaError, match=rf"llama.cpp cannot load {file}.*: remove the file and try again"):
        speak()


def test_a_lora_is_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLASA_HOME", str(tmp_path / "home"))
    base = make_official_folder(tmp_path / "base")
    lora = make_official_lora(tmp_path / "lora", str(base))
    prompt = list(range(300, 320))
    alone, found, wanted = (
        e.extend(e.start([prompt], sampling=GREEDY), 30).tokens
        for e in (open_backend(base, "llamacpp"), open_backend(lora, "llamacpp"), open_backend(lora))
    )
    assert found == wanted != alone


def test_a_cache_that_cannot_be_written(lm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("LLASA_HOME", str(tmp_path / "home"))
    with pytest.raises(LlasaError, match=r"cannot make the folder .*/home/cache: .*: set LLASA_HOME"):
        open_backend(lm_folder, "llamacpp")


class Whole:
    """A whole file in llama.cpp, its tokenizer included."""

    def __init__(self, path: Path) -> None:
        self.lib = library()
        self.model = self.lib.llama_model_load_from_file(str(path).encode(), self.lib.llama_model_default_params())
        self.vocabulary = self.lib.llama_model_get_vocab(self.model)

    def tokens(self, text: str) -> list[int]:
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        count = self.lib.llama_tokenize(self.vocabulary, data, len(data), ids, len(ids), True, True)
        return ids[:count]

    def logits(self, ids: list[int]) -> np.ndarray:
        lib, parameters, numbers = self.lib, self.lib.llama_context_default_params(), (ctypes.c_int32 * len(ids))(*ids)
        parameters.flash_attn_type, parameters.type_k, parameters.type_v = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED, 0, 0
        context = lib.llama_init_from_model(self.model, parameters)
        assert not lib.llama_decode(context, lib.llama_batch_get_one(numbers, len(ids)))
        size = lib.llama_vocab_n_tokens(self.vocabulary)
        return np.ctypeslib.as_array(lib.llama_get_logits_ith(context, -1), (size,)).copy()


TEXTS = (
    "Speaker kore puck, 1234 people; it's Ünïcode… and\n\nnew lines!  Two spaces.",
    "<|TEXT_UNDERSTANDING_START|>hello there<|TEXT_UNDERSTANDING_END|><|SPEECH_GENERATION_START|><|s_12|><|s_3|>",
)


@pytest.mark.parametrize("make", [make_official_folder, lambda path: make_lm_folder(path, "codec")])
def test_llama_cpp_reads_an_exported_model(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    from transformers import AutoModelForCausalLM

    folder = make(tmp_path / "lm")
    write_model(folder, tmp_path / "lm.gguf", "f32")
    whole, tokenizer = Whole(tmp_path / "lm.gguf"), load_tokenizer(folder)
    vocabulary = read_vocabulary(tokenizer)
    chat = [{"role": "user", "content": TEXTS[0] + TEXTS[1]}, {"role": "assistant", "content": TEXTS[1]}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, continue_final_message=True)
    prompt = tokenizer(text, add_special_tokens=False).input_ids
    assert whole.tokens(text) == prompt
    assert len(prompt) > 60
    assert whole.lib.llama_vocab_eos(whole.vocabulary) == vocabulary.end
    assert whole.lib.llama_vocab_is_eog(whole.vocabulary, vocabulary.end)
    piece = ctypes.create_string_buffer(32)
    count = whole.lib.llama_token_to_piece(whole.vocabulary, vocabulary.first + 12, piece, 32, 0, False)
    assert piece.raw[:count] == b"<|s_12|>"
    with torch.no_grad():
        wanted = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([prompt])).logits[0, -1].numpy()
    assert np.allclose(whole.logits(prompt), wanted, atol=1e-3)


def test_the_embedded_models_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLASA_HOME", str(tmp_path / "home"))
    ours, theirs = (Llasa.load("tiny", "cpu", "float32", backend=name) for name in ("llamacpp", "torch"))
    prompt = ours.vocabulary.prompt("həlˈoʊ ðˈɛɹ, jˌuː.")
    found, wanted = (e.extend(e.start([prompt], sampling=GREEDY), 25).tokens for e in (ours.backend, theirs.backend))
    assert found == wanted


class Longest:
    name, process, needs_text, needs_reference = "longest", True, False, False

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        return np.array([len(audio) / batch.rate for audio in batch.audios])


def test_speaking_streaming_and_searching(lm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLASA_HOME", str(tmp_path / "home"))
    text = "Hello there. It is late now, and nobody in the house has said a word."
    ours, theirs = (Llasa.load(lm_folder, "cpu", "float32", backend=name) for name in ("llamacpp", "torch"))
    wanted = theirs.say(text, seed=3)
    assert ours.say(text, seed=3).codes.tolist() == wanted.codes.tolist()
    assert sum(map(len, ours.stream(text, seed=3))) == sum(map(len, theirs.stream(text, seed=3)))
    for search in ("best-of:5", "beam:2x2/10", "mixed:2x2@0.2s+4"):
        found, wanted = (llasa.say("Hello there.", seed=1, search=search, verify=Longest()) for llasa in (ours, theirs))
        assert found.codes.tolist() == wanted.codes.tolist()


def test_precisions_are_named(lm_folder: Path) -> None:
    with pytest.raises(LlasaError, match="unknown dtype float12: use float32, bfloat16, float16, int8, int4"):
        Llasa.load(lm_folder, backend="llamacpp", dtype="float12")


def test_references_are_reused_as_in_torch(tmp_path: Path):
    model = make_lm(VOCABULARY, initializer_range=0.3)
    ours, theirs = engine(model, tmp_path), Engine(model, FIRST, SIZE, END)
    # More tokens in all than the cache has room for at first, so that it grows while references are moved.
    prompts = [
        Prompt([3, 4, place, *[9] * (3 * place), 7, *codes], [3, 4, place, 7, *codes], len(codes))
        for place in range(30)
        for codes in [[FIRST + (place + number) % SIZE for number in range(50)]]
    ]
    wanted = [theirs.extend(theirs.start([prompt], 1, [5], WARM, 12), 12).tokens[0] for prompt in prompts]
    plain = [theirs.extend(theirs.start([list(prompt)], 1, [5], WARM, 12), 12).tokens[0] for prompt in prompts]
    assert sum(a != b for a, b in zip(wanted, plain, strict=True)) > 5  # it is not what the model computes in full
    together = ours.extend(ours.start(prompts, 1, [5] * len(prompts), WARM, 12), 12)
    assert together.tokens == wanted
    assert [ours.extend(ours.start([prompt], 1, [5], WARM, 12), 12).tokens[0] for prompt in prompts[::7]] == wanted[::7]

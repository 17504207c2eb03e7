"""Other legal tokens than those of speech: what a model writes with them, and how likely it finds a text."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import make_lm

from llasa.engine import Backend, Sampling, open_backend
from llasa.engine.torch_engine import Engine
from llasa.errors import LlasaError, NoRoom

FIRST, SIZE, END = 50, 90, 140  # of speech
TEXT, TEXT_END = 40, 45  # tokens 0 to 39, and the one that ends them
MODEL = make_lm(150, tie_word_embeddings=False)
PROMPT = [3, 60, 70, 141]


@pytest.fixture(scope="module")
def speaking() -> Engine:
    return Engine(MODEL, FIRST, SIZE, END)


def logits_after(ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return MODEL(torch.tensor([ids])).logits[0]


def test_it_writes_the_likeliest_text_and_still_speaks_as_before(speaking: Engine) -> None:
    before = speaking.extend(speaking.start([PROMPT], seeds=[1]), 5).tokens
    writing = speaking.writing(0, TEXT, TEXT_END)
    state = writing.extend(writing.start([PROMPT], sampling=Sampling(temperature=0), max_tokens=6), 6)
    ids, legal = list(PROMPT), [*range(TEXT), TEXT_END]
    for token in state.tokens[0]:
        assert legal[int(logits_after(ids)[-1, legal].argmax())] == token
        ids.append(token)
    assert state.tokens[0]
    assert speaking.extend(speaking.start([PROMPT], seeds=[1]), 5).tokens == before


def test_likelihoods_are_those_of_the_model_among_the_legal_tokens(speaking: Engine) -> None:
    writing, tokens = speaking.writing(0, TEXT, TEXT_END), [5, 39, 0, TEXT_END]
    legal = [*range(TEXT), TEXT_END]
    logs = logits_after([*PROMPT, *tokens[:-1]])[len(PROMPT) - 1 :, legal].log_softmax(-1)
    wanted = [float(logs[i, legal.index(token)]) for i, token in enumerate(tokens)]
    np.testing.assert_allclose(writing.likelihoods(PROMPT, tokens), wanted, atol=1e-4)


def test_tokens_that_are_not_legal_are_refused(speaking: Engine) -> None:
    writing = speaking.writing(0, TEXT, TEXT_END)
    with pytest.raises(LlasaError, match="none of those that may follow"):
        writing.likelihoods(PROMPT, [60])
    with pytest.raises(LlasaError, match="empty"):
        writing.likelihoods(PROMPT, [])
    with pytest.raises(NoRoom, match="do not fit a context of 512"):
        writing.likelihoods(PROMPT, [5] * 512)
    with pytest.raises(LlasaError, match="do not fit the model's vocabulary of 150"):
        speaking.writing(0, 40, 150)


def test_llamacpp_writes_the_same(lm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    monkeypatch.setenv("LLASA_HOME", str(tmp_path))
    found = []
    for name in ("torch", "llamacpp"):
        speaking: Backend = open_backend(lm_folder, name)
        writing = speaking.writing(2, 30, 40)
        state = writing.extend(writing.start([PROMPT], sampling=Sampling(temperature=0), max_tokens=5), 5)
        found.append((state.tokens, writing.likelihoods(PROMPT, [4, 5, 40]), speaking.start([PROMPT]).tokens))
    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-3)
    assert len(list((tmp_path / "cache").glob("*.gguf"))) == 2  # the file for speech is still there

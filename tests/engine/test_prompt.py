"""References that are read once for all texts: what is kept of them, and what comes of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import make_lm

from llasa.engine import Sampling
from llasa.engine.prompt import FRESH, KEPT, Prompt, References
from llasa.engine.torch_engine import Engine
from llasa.tts import Llasa
from llasa.voice import Voice

VOCABULARY, FIRST, SIZE, END = 150, 50, 90, 40
BEFORE, AFTER = [3, 4, 5, 6], [7, 8]
CODES = [FIRST + (7 * place * place) % SIZE for place in range(FRESH + 20)]
TEXT = [9, 10, 11, 12, 13, 14]


def prompt(text: list[int] = TEXT, codes: list[int] = CODES) -> Prompt:
    return Prompt([*BEFORE, *text, *AFTER, *codes], [*BEFORE, *AFTER, *codes], len(codes))


@pytest.fixture
def engine() -> Engine:
    return Engine(make_lm(VOCABULARY, initializer_range=0.3), FIRST, SIZE, END)


def cache(engine: Engine, asked: list[int]) -> torch.Tensor:
    """Keys and values of a prompt, (layers, 2, heads, tokens, size)."""
    state = engine.start([asked], 2, [1, 2])
    both = torch.stack([layer[..., : len(asked) - 1, :] for layer in state.layers])
    torch.testing.assert_close(both[:, :, 0], both[:, :, 1], rtol=0, atol=0)  # all rows of a prompt have the same
    return both[:, :, 0]


def test_a_prompt_tells_what_belongs_to_the_voice():
    one = prompt()
    assert one[: one.shared] == BEFORE
    assert one.moved == len(TEXT)
    assert one[slice(*one.reused)] == CODES[:-FRESH]
    assert [prompt([])[place] for place in range(*prompt([]).reused)] == CODES[:-FRESH]
    assert (prompt([]).shared, prompt([]).moved) == (len(BEFORE + AFTER), 0)
    # A text may begin as what follows the text does.
    assert prompt([AFTER[0], 30]).shared == len(BEFORE) + 1


def test_without_a_text_nothing_is_approximate(engine: Engine):
    torch.testing.assert_close(cache(engine, prompt([])), cache(engine, list(prompt([]))))


def test_only_the_codes_of_the_reference_are_approximate(engine: Engine):
    one = prompt()
    found, exact, alone = (cache(engine, ids) for ids in (one, list(one), list(one.alone)))
    first, last = one.reused
    torch.testing.assert_close(found[..., :first, :], exact[..., :first, :])
    # In the first layer a key depends on the token and its place alone, so the turn shows.
    torch.testing.assert_close(found[0], exact[0])
    torch.testing.assert_close(found[:, 1, :, first:last], alone[:, 1, :, first - one.moved : last - one.moved])
    assert not torch.allclose(found[1:, :, :, first:last], exact[1:, :, :, first:last])
    far, near = ((found - exact)[1:, :, :, place].norm() / exact[1:, :, :, place].norm() for place in (last - 1, -1))
    assert near < far


def test_what_comes_after_does_not_depend_on_what_was_read_before(engine: Engine):
    texts, sampling = [TEXT, [20, 21], [], [30] * 40], Sampling(temperature=1.0)
    together = engine.extend(engine.start([prompt(text) for text in texts], 2, range(8), sampling, 20), 20).tokens
    for place, text in reversed(list(enumerate(texts))):
        other = Engine(make_lm(VOCABULARY, initializer_range=0.3), FIRST, SIZE, END)
        for _ in range(2):
            seeds = [2 * place, 2 * place + 1]
            alone = other.extend(other.start([prompt(text)], 2, seeds, sampling, 20), 20).tokens
            assert alone == together[2 * place : 2 * place + 2]


def test_a_reused_voice_says_the_same_whatever_was_read_before(lm_folder: Path):
    first, again = (Llasa.load(lm_folder, device="cpu", dtype="float32") for _ in range(2))
    plain = Voice("anna", "This is what the reference says.", np.arange(50, dtype=np.uint16), first.codec_id)
    voice = replace(plain, reused=True)
    texts = ["It was late.", "Nobody in the old house by the river spoke."]
    said = [first.say(text, voice, seed=5) for text in texts]
    for text, speech in reversed(list(zip(texts, said, strict=True))):
        np.testing.assert_array_equal(again.say(text, voice, seed=5).codes, speech.codes)
        assert np.concatenate([*again.stream(text, voice, seed=5)]).shape == speech.samples.shape
        assert not np.array_equal(again.say(text, plain, seed=5).codes, speech.codes)


def test_the_references_used_last_are_kept():
    read: list[int] = []

    def note(one: Prompt) -> int:
        read.append(one.alone[0])
        return one.alone[0]

    kept = References(note)
    many = [Prompt([place, 1], [place], 0) for place in range(KEPT + 1)]
    for one in [*many[:KEPT], many[0], many[KEPT], many[0], many[1]]:
        assert kept.of(one) == one.alone[0]
    assert read == [*range(KEPT + 1), 1]

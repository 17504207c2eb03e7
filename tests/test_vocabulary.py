import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import ALPHABET
from transformers import PreTrainedTokenizerFast

from llasa.errors import LlasaError
from llasa.vocabulary import SPECIAL_TOKENS, character_tokenizer, extend_tokenizer, read_vocabulary

VOCABULARY = read_vocabulary(character_tokenizer(ALPHABET, 64, context=512))


def test_special_tokens_come_in_upstream_order_and_speech_tokens_follow() -> None:
    table = VOCABULARY.tokenizer.get_vocab()
    ids = [table[token] for token in SPECIAL_TOKENS]
    assert ids == list(range(ids[0], ids[0] + 8))
    assert VOCABULARY.first == ids[-1] + 1
    assert VOCABULARY.size == 64


def test_extending_twice_changes_nothing() -> None:
    tokenizer = character_tokenizer(ALPHABET, 64, context=512)
    assert extend_tokenizer(tokenizer, 64) == len(VOCABULARY.tokenizer)


def test_prompt_reads_as_the_layout_says() -> None:
    tokens = VOCABULARY.tokenizer.convert_ids_to_tokens(VOCABULARY.prompt("go on", "well", [1, 63]))
    assert tokens[:3] == ["<|begin_of_text|>", "Convert the text to speech:", "<|TEXT_UNDERSTANDING_START|>"]
    assert "".join(tokens[3:13]) == "well go on"
    assert tokens[13:] == ["<|TEXT_UNDERSTANDING_END|>", "<|SPEECH_GENERATION_START|>", "<|s_1|>", "<|s_63|>"]


def test_a_speaker_name_goes_before_the_start_token() -> None:
    ids = VOCABULARY.prompt("hi", speaker="kore")
    assert VOCABULARY.tokenizer.decode(ids[-13:-1]).replace(" ", "").endswith("peakerkore")
    assert ids[-1] == VOCABULARY.start


@given(st.lists(st.integers(0, 63)))
def test_codes_and_tokens_are_inverse(codes: list[int]) -> None:
    assert VOCABULARY.codes(VOCABULARY.tokens(codes)).tolist() == codes


@pytest.mark.parametrize("codes", [[64], [-1], np.array([3, 99])])
def test_codes_out_of_range_are_refused(codes: list[int]) -> None:
    with pytest.raises(LlasaError, match="codebook of 64"):
        VOCABULARY.tokens(codes)


def test_characters_outside_the_alphabet_are_dropped() -> None:
    assert VOCABULARY.prompt("a🙂b") == VOCABULARY.prompt("ab")


def test_a_tokenizer_without_speech_tokens_is_refused() -> None:
    from tokenizers import Tokenizer, models

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={"a": 0}, merges=[])))
    with pytest.raises(LlasaError, match="no speech tokens"):
        read_vocabulary(plain)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from official import PLAIN, llama3_tokenizer, upstream_prompt, written_out
from small_models import ALPHABET
from transformers import PreTrainedTokenizerFast

from llasa.errors import LlasaError
from llasa.vocabulary import SPECIAL_TOKENS, character_tokenizer, extend_tokenizer, read_vocabulary

VOCABULARY = read_vocabulary(character_tokenizer(ALPHABET, 64, context=512))
LLAMA3 = read_vocabulary(llama3_tokenizer(64))


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


# --- Upstream's layout ---

TEXTS = [
    "Hello there.",
    " Spaces  around, and\ttabs ",
    "Dealing with it is never easy. Yet, sometimes...\n\nIt's 9:15!",
    "突然，身边一阵笑声。",
    "Naïve 🙂 <|eot_id|> CONTINUE_FINAL_MESSAGE_TAG ",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("codes", [[], [0, 63, 7, 7, 12]])
@pytest.mark.parametrize("speaker", [None, "kore"])
def test_prompts_are_upstreams_token_for_token(text: str, codes: list[int], speaker: str | None) -> None:
    reference = "What the reference says." if codes else None
    spoken = f"{reference} {text}" if reference else text
    lead = f"Speaker {speaker} " if speaker else ""
    found = LLAMA3.prompt(text, reference, codes, speaker)
    assert found == upstream_prompt(LLAMA3.tokenizer, spoken, codes, lead)
    assert found == LLAMA3.tokenizer.encode(written_out(spoken, codes, lead), add_special_tokens=False)
    assert found[-1 - len(codes)] == LLAMA3.start


def test_the_space_after_the_speakers_name_is_a_token() -> None:
    """As in upstream's example of inference: a template that trims the turn must not take it."""
    tokens = LLAMA3.tokenizer.convert_ids_to_tokens(LLAMA3.prompt("Hello", speaker="kore"))
    assert "".join(tokens).endswith("<|end_header_id|>ĊĊSpeakerĠkoreĠ<|SPEECH_GENERATION_START|>")
    assert tokens[-2] == "Ġ"


def test_ids_are_the_official_ones() -> None:
    vocabulary = read_vocabulary(llama3_tokenizer(65536, PLAIN))
    assert len(vocabulary.tokenizer) == 193800
    assert (vocabulary.first, vocabulary.size, vocabulary.start, vocabulary.end) == (128264, 65536, 128260, 128261)
    codes = [0, 65535, 4711]
    assert vocabulary.prompt("Hello", "Hello", codes) == upstream_prompt(vocabulary.tokenizer, "Hello Hello", codes)
    assert vocabulary.codes(vocabulary.tokens(codes)).tolist() == codes

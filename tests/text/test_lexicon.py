from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llasa.errors import LlasaError
from llasa.text.lexicon import (
    ALPHABET,
    ARPABET,
    FILE,
    LETTERS,
    PHONES,
    PUNCTUATION,
    fold,
    load_lexicon,
    pronounce,
    save_lexicon,
)

WORDS = {"the": "ðə", "cat": "KæT", "fox": "FɑKS", "bus": "BʌS", "dog": "DɔG", "don't": "DONT"}


def test_every_phone_is_one_character_of_its_own() -> None:
    own = {*PHONES.values(), *ARPABET.values()}
    assert all(len(phone) == 1 for phone in own)
    assert not own & set(LETTERS + PUNCTUATION)
    assert len(ALPHABET) == len(set(ALPHABET)) == len(own) + len(LETTERS + PUNCTUATION)
    assert len(set(ALPHABET)) == len(ALPHABET)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("The cat.", "ðə KæT."),
        ("Zyx, the dog!", "zyx, ðə DɔG!"),
        ("Don't", "DONT"),
        ("the cat's", "ðə KæTS"),
        ("the dog's", "ðə DɔGZ"),
        ("the bus's", "ðə BʌSəZ"),
        ("o'zyx  'cat'", "ozyx KæT"),
        ('"The cat" (sat)\tçat', "ðə KæT sat at"),
        ("A cat, A B A, the A", "a KæT, ˈE b ˈE, ðə a"),
        ("Mm. Hmmm, shhh!", "əM. HəM, ʃˈʌʃ!"),
        ("theee cccat, ddogg", "ðə KæT, ddogg"),
    ],
)
def test_known_words_become_phones_and_others_stay_letters(text: str, spoken: str) -> None:
    assert pronounce(text, WORDS) == spoken


@pytest.mark.parametrize(
    ("symbols", "phones", "last"),
    [
        (["pau", *"ðə tʃˈeɪn", "dʒ", "pau"], "ðəCˈENJ", [1, 2, 5, 6, 8, 9, 10]),
        (list("lˈɔː,"), "Lˈɔ", [0, 1, 3]),
        (list("ɚː"), "ɚ", [1]),  # a length that this alphabet does not tell
        (list("ː,ː"), "", []),
        (["pau", "dh", "ax", "y", "r", "g", "er", "pau"], "ðəYRGɝ", [1, 2, 3, 4, 5, 6]),  # flite's names
        ([], "", []),
    ],
)
def test_symbols_fold_into_phones(symbols: list[str], phones: str, last: list[int]) -> None:
    assert fold(symbols) == (phones, last)


def test_british_and_american_phones_are_alike() -> None:
    assert fold("ˈɒbəʊ bˈɑːθ hˈat weə")[0] == fold("ˈɑːboʊ bˈɑːθ hˈæt wɛ")[0]


def test_spelling_leaves_the_chosen_words_in_letters() -> None:
    assert pronounce("the cat", WORDS, spell=lambda word: word == "cat") == "ðə cat"


@given(st.dictionaries(st.text("abc'", min_size=1), st.text(list(PHONES.values()), min_size=1)))
def test_a_lexicon_is_read_back_as_written(lexicon: dict[str, str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        save_lexicon(lexicon, Path(folder))
        assert load_lexicon(Path(folder)) == lexicon


def test_no_lexicon_is_none_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert load_lexicon(tmp_path) is None
    (tmp_path / FILE).write_bytes(b"not gzip")
    with pytest.raises(LlasaError, match=FILE):
        load_lexicon(tmp_path)

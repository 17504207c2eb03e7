"""Where pronunciations come from: flite, and espeak-ng."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from llasa.data import lexicon_from_espeak
from llasa.data.lexicon_from_espeak import espeak_lexicon
from llasa.data.lexicon_from_flite import flite_lexicon
from llasa.data.words import word_list, words_of
from llasa.errors import LlasaError
from llasa.text.lexicon import ARPABET

SAID = {
    "the": "ðˈə", "law": "lˈɔː", "lunchroom": "lˈʌntʃ ɹˈuːm", "croissant": "kwˈɑːsɑ̃", "button": "bˈʌʔn̩",
    "loup": "(fr)lˈu(en-us)",
    "The law, the law.": "ðə lˈɔː, ðə lˈɔː.",
    "The button of the law": "ðɪ bˈʌtn ʌvðə lˈɔː",
}  # fmt: skip


@pytest.fixture
def espeak(monkeypatch: pytest.MonkeyPatch) -> None:
    def speak(texts: Sequence[str]) -> list[str]:
        return [SAID[text] for text in texts]

    monkeypatch.setattr(lexicon_from_espeak, "_speaker", lambda: speak)


def test_lexicon_has_flites_phones_one_character_each() -> None:
    found = flite_lexicon(["hello", "world", "the", "zyxgh"])
    assert found["hello"] == "".join(ARPABET[p] for p in ("hh", "ax", "l", "ow"))
    assert found["world"] == "".join(ARPABET[p] for p in ("w", "er", "l", "d"))
    assert found["the"] == "ðə"


@pytest.mark.usefixtures("espeak")
def test_lexicon_has_espeaks_phones_and_leaves_out_what_is_not_one_word() -> None:
    words = ["the", "law", "lunchroom", "croissant", "button", "loup"]
    assert espeak_lexicon(words) == {"the": "ðˈə", "law": "Lˈɔ", "croissant": "KWˈɑSɑ", "button": "BˈʌʔN"}


@pytest.mark.usefixtures("espeak")
def test_a_word_is_said_as_it_is_inside_sentences() -> None:
    """If it is there often, and where it is told apart from its neighbours."""
    often = ["The law, the law."] * 2 + ["The button of the law"] * 9
    assert espeak_lexicon(["the", "button"], often) == {"the": "ðə", "button": "BˈʌʔN"}
    assert espeak_lexicon(["the"], ["The law, the law."]) == {"the": "ðˈə"}


def test_espeak_itself_says_small_words_weakly() -> None:
    pytest.importorskip("phonemizer")
    pytest.importorskip("espeakng_loader")
    found = espeak_lexicon(["the", "a", "nutshell", "zyxgh's"], ["Once there was the end and a day."] * 3)
    assert found["the"].startswith("ð")
    assert "ˈ" not in found["the"]
    assert found["nutshell"] == "NˈʌCɛL"


def test_without_espeak_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(LlasaError, match=r"espeak-ng is not installed: pip install 'llasa\[synth\]'"):
        espeak_lexicon(["the"])


def test_words_are_counted_and_dictionaries_read(tmp_path: Path) -> None:
    assert words_of(["The cat, the 'dog's'."]) == {"the": 2, "cat": 1, "dog's": 1}
    (tmp_path / "dict").write_text("cat K AE T\ncat(2) K AA T\n'bout B AW T\n")
    assert word_list(tmp_path / "dict") == ["cat"]

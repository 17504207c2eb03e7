"""Writes words in phones, for models whose folder has a pronouncing lexicon.

A small model has not read enough to learn English spelling, so its folder has a `lexicon.txt.gz`: a word and its
pronunciation on each line, one character a phone. Words that are not in it stay in letters. Such a model is trained on
some words in letters too (`spell`), so it can read an unknown name from its spelling. Large models have no lexicon and
read plain text.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, cast

from llasa.errors import LlasaError
from llasa.files import MB, exists, read_limited, whole

FILE = "lexicon.txt.gz"
LIMIT = 16 * MB  # unpacked; 130,000 words take 2.6, and the shortest lines 60 times as much memory
# espeak-ng's phones, one character each; a length mark and both halves of a diphthong or an affricate count as one.
# British vowels become the American ones that they stand for. Lower-case Latin letters are kept for words in letters.
PHONES = {
    "ɑː": "ɑ", "ɑ": "ɑ", "ɒ": "ɑ", "ɒː": "ɑ", "æ": "æ", "a": "æ", "aː": "ɑ", "ʌ": "ʌ", "ɔː": "ɔ", "ɔ": "ɔ", "oː": "ɔ",
    "aʊ": "Q", "ə": "ə", "ɐ": "ɐ", "aɪ": "I", "ɛ": "ɛ", "ɛː": "ɛ", "e": "ɛ", "eː": "ɛ", "eə": "ɛ", "ɚ": "ɚ", "ɜː": "ɝ",
    "ɜ": "ɝ", "eɪ": "E", "ɪ": "ɪ", "ᵻ": "ᵻ", "iː": "X", "i": "ɩ", "oʊ": "O", "əʊ": "O", "o": "O", "ɔɪ": "Ø", "ʊ": "ʊ",
    "uː": "U", "u": "U", "b": "B", "tʃ": "C", "d": "D", "ð": "ð", "f": "F", "ɡ": "G", "h": "H", "dʒ": "J", "k": "K",
    "x": "K", "l": "L", "ɬ": "L", "m": "M", "n": "N", "ɲ": "N", "ŋ": "ŋ", "p": "P", "ɹ": "R", "r": "R", "ɾ": "ɾ",
    "s": "S", "ʃ": "ʃ", "t": "T", "ʔ": "ʔ", "θ": "θ", "v": "V", "w": "W", "j": "Y", "z": "Z", "ʒ": "ʒ",
    "ˈ": "ˈ", "ˌ": "ˌ",
}  # fmt: skip
LONG = "ː"
# ARPAbet in flite's spelling, to the same characters.
ARPABET = {
    "aa": "ɑ", "ae": "æ", "ah": "ʌ", "ao": "ɔ", "aw": "Q", "ax": "ə", "ay": "I", "eh": "ɛ", "er": "ɝ", "ey": "E",
    "ih": "ɪ", "iy": "X", "ow": "O", "oy": "Ø", "uh": "ʊ", "uw": "U", "b": "B", "ch": "C", "d": "D", "dh": "ð",
    "f": "F", "g": "G", "hh": "H", "jh": "J", "k": "K", "l": "L", "m": "M", "n": "N", "ng": "ŋ", "p": "P", "r": "R",
    "s": "S", "sh": "ʃ", "t": "T", "th": "θ", "v": "V", "w": "W", "y": "Y", "z": "Z", "zh": "ʒ",
}  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PUNCTUATION = " .,?!;:-"
ALPHABET = LETTERS + PUNCTUATION + "".join(dict.fromkeys([*PHONES.values(), *ARPABET.values()]))

_KNOWN = frozenset(ALPHABET)
_WORD = re.compile(r"[a-z']+")
# An "A" beside another single capital or before a mark is a letter, as in "A P I" or "vitamin A."; else the article.
_SPELLED_A = re.compile(r"(?<=\b[A-Z] )A\b|\bA(?= [A-Z]\b|[,.?!;:])")
_LETTER_A = "ˈE"
# Sounds that are written without vowels, drawn out at will, and said as the nearest syllable. A model says no consonant
# alone, and dictionaries spell them: "em em".
_SOUNDS = [
    (re.compile(pattern), phones)
    for pattern, phones in [
        ("m{2,}", "əM"), ("h+m+", "HəM"), ("m+h+m+", "əMˈHəM"), ("s+h+", "ʃˈʌʃ"), ("p+s+t+", "PˈɪST"),
        ("b+r+", "BˈɝR"), ("g+r+", "Gˈɝ"), ("tsk", "TˈɪSK"), ("p+f+t*", "PˈʌF"), ("z{3,}", "ZˈXZ"),
    ]
]  # fmt: skip
_DRAWN = re.compile(r"(.)\1{2,}")  # "sooo"; no English word has a letter three times
_VOICELESS = set("PTKFθ")
_SIBILANT = set("SZʃʒCJ")


def fold(symbols: Iterable[str]) -> tuple[str, list[int]]:
    """Converts a teacher's phones, in its own symbols, to the characters of this alphabet.

    Two symbols in a row that are one phone become one character: in IPA `t` and `ʃ`, or `ɔ` and its length mark.

    Returns:
        the characters, and for each the index of the last symbol that it stands for. Symbols that are not phones, such
        as spaces and punctuation, are left out.
    """
    names, characters, last = list(symbols), list[str](), list[int]()
    index = 0
    while index < len(names):
        pair = "".join(names[index : index + 2])
        width = 2 if index + 1 < len(names) and pair in PHONES else 1
        if width == 1 and names[index] == LONG and last and last[-1] == index - 1:
            last[-1] = index  # a length mark after a sound that has no long form here
        elif found := PHONES.get(pair if width == 2 else names[index]) or ARPABET.get(names[index]):
            characters.append(found)
            last.append(index + width - 1)
        index += width
    return "".join(characters), last


def load_lexicon(folder: Path) -> dict[str, str] | None:
    """The lexicon of a model folder, from lower-case word to phone characters; None if the folder has none.

    Raises:
        LlasaError: the file is damaged.
    """
    path = folder / FILE
    if not exists(path):
        return None
    try:
        with gzip.open(path) as file:
            lines = read_limited(cast(BinaryIO, file), str(path), LIMIT).decode().splitlines()
        return dict(line.split("\t") for line in lines)  # type: ignore[misc]
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise LlasaError(f"{path} is damaged ({error}): copy the model folder again") from error


def save_lexicon(lexicon: dict[str, str], folder: Path) -> None:
    """Writes the lexicon into a model folder, sorted; the same words give the same bytes.

    Raises:
        LlasaError: the file cannot be written.
    """
    text = "".join(f"{word}\t{phones}\n" for word, phones in sorted(lexicon.items()))
    with whole(folder / FILE) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))


def pronounce(text: str, lexicon: dict[str, str], spell: Callable[[str], bool] = lambda word: False) -> str:
    """Writes the words of a normalised text in phones if the lexicon has them, else in lower-case letters.

    The result has only characters of `ALPHABET`, so a character tokenizer makes one token of each.

    Args:
        text: letters and punctuation, as `text.normalise` returns it.
        lexicon: word to phones.
        spell: whether a word stays in letters although the lexicon has it; used in training.
    """

    def replace(match: re.Match[str]) -> str:
        word = match.group().strip("'")
        if not spell(word):
            known = _sound(word) or lexicon.get(word) or lexicon.get(_shortened(word, lexicon))
            if known is None and word.endswith("'s") and (stem := lexicon.get(word[:-2])):
                known = stem + ("əZ" if stem[-1] in _SIBILANT else "S" if stem[-1] in _VOICELESS else "Z")
            if known:
                return known
        return word.replace("'", "")

    marked = _SPELLED_A.sub("\0", text).lower()
    spoken = _WORD.sub(replace, marked).replace("\0", _LETTER_A)
    return " ".join("".join(c if c in _KNOWN else " " if c.isspace() else "" for c in spoken).split())


def is_sound(word: str) -> bool:
    """Whether a lower-case word is a sound that is written without vowels, such as "hmm"."""
    return _sound(word) is not None


def _sound(word: str) -> str | None:
    return next((phones for pattern, phones in _SOUNDS if pattern.fullmatch(word)), None)


def _shortened(word: str, lexicon: dict[str, str]) -> str:
    """A word without its drawn-out letters: "coool" is "cool", with two of the letter if there is such a word, and
    "sooo" is "so", with one of it where the word ends.
    """

    def letters(match: re.Match[str]) -> str:
        letter = match[1]
        double = f"{word[: match.start()]}{letter * 2}{word[match.end() :]}"
        return letter * (1 + (match.end() < len(word) and _DRAWN.sub(r"\1", double) in lexicon))

    return _DRAWN.sub(letters, word)

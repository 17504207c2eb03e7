"""Words to sounds, for a model folder that brings a pronouncing lexicon.

A small model has not read enough to learn English spelling, so its folder carries `lexicon.txt.gz`: a word and its
pronunciation on a line, one character a phone. Words that are not in it stay letters, and such a model is trained on
some words in letters too (`spell`), so an unknown name is read as it is spelled. Large models bring no lexicon and
read plain text.
"""

import gzip
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from llasa.errors import LlasaError
from llasa.writing import whole

FILE = "lexicon.txt.gz"
# espeak-ng's phones, one character each; a length mark and both halves of a diphthong or an affricate are in it.
# British vowels are written as the American ones that they stand for. Lower-case Latin letters stay free for words in
# letters.
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
# ARPAbet as flite names it, in the same characters.
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
# An "A" beside another single capital is spelled, as in "A P I"; any other is the article.
_SPELLED_A = re.compile(r"(?<=\b[A-Z] )A\b|\bA(?= [A-Z]\b)")
_LETTER_A = "ˈE"
_VOICELESS = set("PTKFθ")
_SIBILANT = set("SZʃʒCJ")


def fold(symbols: Iterable[str]) -> tuple[str, list[int]]:
    """A teacher's phones, in its own symbols, as the characters of this alphabet.

    Two symbols in a row that are one phone are taken together: of a text in IPA, `t` and `ʃ`, or `ɔ` and its length.

    Returns:
        The characters, and for each the index of the last symbol that it stands for. Symbols that are no phones, such
        as spaces and punctuation, have none.
    """
    names, characters, last = list(symbols), list[str](), list[int]()
    index = 0
    while index < len(names):
        pair = "".join(names[index : index + 2])
        width = 2 if index + 1 < len(names) and pair in PHONES else 1
        if width == 1 and names[index] == LONG and last and last[-1] == index - 1:
            last[-1] = index  # of a sound that has no long form here
        elif found := PHONES.get(pair if width == 2 else names[index]) or ARPABET.get(names[index]):
            characters.append(found)
            last.append(index + width - 1)
        index += width
    return "".join(characters), last


def load_lexicon(folder: Path) -> dict[str, str] | None:
    """The lexicon of a model folder: lower-case word to phone characters; None where the folder brings none.

    Raises:
        LlasaError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        return dict(line.split("\t") for line in lines)  # type: ignore[misc]
    except (OSError, EOFError, ValueError) as error:
        raise LlasaError(f"{path} is damaged ({error}): copy the model folder again") from error


def save_lexicon(lexicon: dict[str, str], folder: Path) -> None:
    """Writes the lexicon into a model folder, sorted, the same bytes for the same words.

    Raises:
        LlasaError: it cannot be written.
    """
    text = "".join(f"{word}\t{phones}\n" for word, phones in sorted(lexicon.items()))
    with whole(folder / FILE) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))


def pronounce(text: str, lexicon: dict[str, str], spell: Callable[[str], bool] = lambda word: False) -> str:
    """Normalised text with every word that the lexicon knows written in phones, the others in lower-case letters.

    Nothing outside `ALPHABET` is left, so a character tokenizer gives one token for each character of the result.

    Args:
        text: letters and punctuation, as `text.normalise` leaves it.
        lexicon: word to phones.
        spell: training's choice of words that stay letters although they are known.
    """

    def replace(match: re.Match[str]) -> str:
        word = match.group().strip("'")
        if not spell(word):
            known = lexicon.get(word)
            if known is None and word.endswith("'s") and word[:-2] in lexicon:
                stem = lexicon[word[:-2]]
                known = stem + ("əZ" if stem[-1] in _SIBILANT else "S" if stem[-1] in _VOICELESS else "Z")
            if known:
                return known
        return word.replace("'", "")

    marked = _SPELLED_A.sub("\0", text).lower()
    spoken = _WORD.sub(replace, marked).replace("\0", _LETTER_A)
    return " ".join("".join(c if c in _KNOWN else " " if c.isspace() else "" for c in spoken).split())

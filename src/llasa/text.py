"""English text as people write it to text that can be read aloud, and long text to pieces of the length a model speaks.

Knows spelling, abbreviations, symbols and punctuation, with `llasa.numbers_text` for whatever holds a digit; knows
nothing of pronunciation or of models. Heuristics throughout: what is ambiguous on paper ("St.", "US", "3/4") is read in
its commoner way. Every pattern is bounded or anchored, so that time grows with the length of the text alone.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

from llasa.numbers_text import LABELS, ordinal, speak_numbers

# Seconds of silence after a chunk, by what ends there.
PARAGRAPH, SENTENCE, CLAUSE = 0.6, 0.3, 0.15
SHORT = 25  # characters; a shorter sentence is spoken together with a neighbour, as alone it has no prosody

# --- Characters ---

_REMOVED = re.compile(
    "[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]"
)
_FOLDED = str.maketrans(
    dict.fromkeys("‘’‚‛′ʼʹ`´", "'") | dict.fromkeys("“”„‟«»″", '"') | dict.fromkeys("‐‑‒–−", "-")
    | dict.fromkeys("—―", " -- ") | dict.fromkeys("™®©", " ")
    | {"\r": "\n", "\v": "\n", "\f": "\n\n", "\x85": "\n", "\u2028": "\n", "\u2029": "\n\n", "•": "\n- ", "²": "^2",
       "³": "^3", "º": "°", "ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l",
       "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i", "×": " times ",
       "÷": " divided by ", "±": " plus or minus ", "≈": "~", "≤": "<=", "≥": ">=", "≠": " is not equal to ",
       "№": "No. ", "π": " pi "}
)  # fmt: skip
_VULGAR = re.compile("([¼½¾⅐-⅞])")
_ELLIPSIS = "\x01"  # one character for three dots, until the words around it are settled
_OUTSIDE = re.compile("[^\n -~\x01£€¥¢₹°§]+")

# --- Dots inside words, and addresses ---

_ENDINGS = "com|org|net|edu|gov|info|io|co|uk|de|fr|nl|eu|ai|tv|app|dev|txt|pdf|html|csv|json|jpg|png|zip|docx|py|js|md"
_SPELLED_ENDINGS = {
    "uk",
    "de",
    "fr",
    "nl",
    "eu",
    "ai",
    "tv",
    "io",
    "pdf",
    "html",
    "csv",
    "jpg",
    "png",
    "py",
    "js",
    "md",
}
_PATH = r"[^\s\"<>()]"
_ADDRESSES = [
    re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z\d-]{1,63}(?:\.[A-Za-z\d-]{1,63}){1,8}"),
    re.compile(rf"\b(?:https?://|ftp://|www\.){_PATH}+", re.I),
    re.compile(rf"(?<![\w.@-])(?:[\w-]{{1,63}}\.){{1,5}}(?:{_ENDINGS})(?![\w-])(?:[/?#]{_PATH}*)?", re.I),
]
_MARKS = {".": "dot", "-": "dash", "_": "underscore", "/": "slash", "?": "question mark", "=": "equals", "&": "and",
          "#": "hash", ":": "colon", "%": "percent", "~": "tilde", "+": "plus", "@": "at"}  # fmt: skip
_HALF_DAY = re.compile(r"(?<=\d) ?([AaPp])\.\s?[Mm]\b(\.?)")
_DOTTED = re.compile(r"(?<![\w'.-])(?!e\.g|i\.e)(?:[A-Za-z]\.)+[A-Za-z](?![A-Za-z])(\.?)", re.I)

# --- Symbols, once nothing holds a digit ---

_SYMBOLS = [
    (re.compile(pattern), words)
    for pattern, words in [
        (r"\b([Aa])nd/or\b", r"\1nd or"), (r"\b([Hh])e/she\b", r"\1e or she"), (r"\bw/o\b ?", "without "),
        (r"\bw/(?=[ \w])", "with "), (r"(?<=[a-z])\(s\)", "s"), (r"[(){}\[\]|]", " , "),
        (r"\bAT&T\b", "A T and T"), (r"&", " and "), (r"@", " at "),
        (r"#(?=[A-Za-z])", " hashtag "), (r"%", " percent "), (r"\+", " plus "), (r"=", " equals "),
        (r"(?<=[A-Za-z]) ?/ ?(?=[A-Za-z])", " slash "), (r"°", " degrees "), (r"§", " section "),
        (r"\$", " dollars "), (r"£", " pounds "), (r"€", " euros "), (r"¥", " yen "), (r"₹", " rupees "),
        (r"¢", " cents "), (r"--+|(?<=\s)-(?=\s)", " , "), (r"[^A-Za-z'\x01,.?!;:-]+", " "),
    ]
]  # fmt: skip

# --- Words ---

# Words that open a sentence: what tells "in the U.S. He left" from "the U.S. Army".
_OPENING = re.compile(
    r"\s+[\"'“‘(\[]?(?:The|This|That|These|Those|An?|He|She|It|We|They|You|I|His|Her|Its|Our|Their|My|Your|But|And|So|Then|"
    r"There|Here|When|While|If|In|On|At|For|As|After|Before|However|What|Who|Why|How|Where|Yes|No|Not|Now|All|Some|"
    r"Many|Most|To|From|With|By)(?![\w.'])"
)
# These stand before a name, so that their full stop never ends a sentence.
_TITLES = {"Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Messrs": "Messieurs", "Dr": "Doctor", "Prof": "Professor",
           "Rev": "Reverend", "Gen": "General", "Col": "Colonel", "Capt": "Captain", "Lt": "Lieutenant",
           "Sgt": "Sergeant", "Cmdr": "Commander", "Gov": "Governor", "Sen": "Senator", "Rep": "Representative",
           "Hon": "Honorable", "Mt": "Mount", "Ft": "Fort", "vs": "versus", "cf": "compare"}  # fmt: skip
# As written here or in capitals; those in small letters in any case.
_ABBREVIATIONS = {
    "jr": "Junior", "sr": "Senior", "ave": "Avenue", "blvd": "Boulevard", "rd": "Road", "hwy": "Highway",
    "etc": "et cetera", "approx": "approximately", "dept": "department", "est": "established", "inc": "Incorporated",
    "ltd": "Limited", "Co": "Company", "corp": "Corporation", "Bros": "Brothers", "Assn": "Association",
    "univ": "University", "govt": "government", "PhD": "P H D", "viz": "namely", "al": "al", "esp": "especially",
    "st": "Street", "misc": "miscellaneous", "Vol": "Volume", "Ch": "Chapter", "Fig": "Figure", "appt": "appointment",
    "tel": "telephone", "ext": "extension", "Jan": "January", "Feb": "February", "Apr": "April", "Aug": "August",
    "Sept": "September", "Oct": "October", "Nov": "November", "Dec": "December",
}  # fmt: skip
_ABBREVIATED = re.compile(r"\b([A-Za-z]+)\.(?= |$)")
_UNDOTTED = re.compile(r"\b(?:(Mr|Mrs|Ms|Dr|Prof)(?= [A-Z])|(PhD|vs|etc)(?![\w'.-]))")

_NUMBERED = ("Chapter|Part|Book|Volume|Act|Scene|Section|Article|Phase|Appendix|Figure|Table|Title|Canto|Stage|Level|"
             "Type|World War|Super Bowl")  # fmt: skip
_RULERS = ("Alexander|Benedict|Catherine|Charles|Christian|Clement|Edward|Elizabeth|Ferdinand|Francis|Frederick|George|"
           "Gregory|Gustav|Henry|Innocent|Ivan|James|Leo|Leopold|Louis|Mary|Napoleon|Nicholas|Otto|Paul|Peter|Philip|Pius|"
           "Ptolemy|Ramesses|Richard|Urban|Victor|Wilhelm|William")  # fmt: skip
_NUMERAL = r"(M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3}))"
_ROMAN = re.compile(
    rf"\b(?i:({_NUMBERED})|({_RULERS})) (?=[MDCL]*[IVX]){_NUMERAL}(?![A-Za-z-]|'(?!s\b)| [A-Z]\b)(?=( [a-z]+)?)"
)
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}

_INITIAL = re.compile(r"(?<![A-Za-z'-])([A-Z])\.(?= [A-Z])")
_LETTERED = {"vitamin", "plan", "grade", "option", "type", "class", "group", "team", "letter", "part", "section",
             "appendix", "figure", "exhibit", "hepatitis", "point"}  # fmt: skip
_ACRONYM = re.compile(r"(?<![A-Za-z'-])([A-Z]{2,6})('?s)?(?![A-Za-z'])")
# Said as letters although they have a vowel; those without one need no list.
_SPELLED = {
    "AC", "AD", "AI", "AKA", "API", "ATM", "BA", "CEO", "CIA", "CIO", "CPU", "DIY", "DNA", "EEG", "ECG", "EU", "EV",
    "FAQ", "FBI", "GPU", "HIV", "IBM", "ID", "IO", "IP", "IPO", "IQ", "IRS", "ISP", "MBA", "MIT", "MRI", "NBA",
    "NSA", "OECD", "OS", "PA", "RNA", "ROI", "SEO", "SOS", "TBA", "UAE", "UFO", "UI", "UK", "UN", "URL", "US",
    "USA", "USB", "UV", "VIP",
}  # fmt: skip
_SOUNDS = {"HMM", "HM", "SHH", "SH", "PSST", "PST", "BRR", "GRR", "TSK", "PFFT", "MM", "MMM", "NTH"}


def normalise(text: str) -> str:
    """English text in words that can be spoken.

    Numbers, money, dates, times, units, telephone numbers, abbreviations, acronyms, addresses and symbols become words;
    accents fold to ASCII; emoji, other scripts and control characters are dropped; a paragraph's end becomes a full
    stop. Never raises.

    Returns:
        one line of letters, spaces and `' - , . ? ! ; :`, in which apostrophes and hyphens stand between letters only
        and a space follows every other mark. Normalising it again changes nothing. Empty when there is nothing to say.
    """
    text = _fold(text)
    for pattern in _ADDRESSES:
        text = pattern.sub(_spell_address, text)
    text = _HALF_DAY.sub(lambda m: f"{m[1].lower()}m{_kept_stop(m)}", text)
    text = _DOTTED.sub(lambda m: " ".join(re.findall("[A-Z]", m[0].upper())) + _kept_stop(m), text)
    text = speak_numbers(text)
    for pattern, words in _SYMBOLS:
        text = pattern.sub(words, text)
    # "etc., and": the comma stays, so the stop can only be the abbreviation's.
    text = re.sub(r"\b([A-Za-z]+)\.(?=,)", lambda m: _expansion(m[1]) or m[1], text)
    text = _tidy(text)
    text = re.sub(r"\b(?:(e\. g)|(i\. e))\b\.?", lambda m: "for example," if m[1] else "that is,", text, flags=re.I)
    text = re.sub(r"\bPh\. D\b(\.?)", lambda m: f"P H D{_kept_stop(m)}", text)
    text = _ABBREVIATED.sub(_abbreviation, text)
    text = _UNDOTTED.sub(lambda m: _expansion(m[0]) or m[0], text)
    text = _ROMAN.sub(_roman, text)
    text = _INITIAL.sub(lambda m: m[1] if _is_initial(m.string, m.start()) else m[0], text)
    text = _ACRONYM.sub(_acronym, text)
    return _tidy(text)


def is_speakable(text: str) -> bool:
    """Whether anything is left to say once the text is normalised."""
    return bool(re.search("[A-Za-z]", normalise(text)))


def _fold(text: str) -> str:
    """ASCII, with currency, degree and section signs, line ends as sentences or spaces, dots in a row as one mark."""
    text = _REMOVED.sub("", text.replace("\r\n", "\n"))
    text = _VULGAR.sub(r" \1", text).translate(_FOLDED)
    text = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", text)).replace("\u2044", "/")
    text = _OUTSIDE.sub(" ", re.sub(r"\.(?: ?\.)+", _ELLIPSIS, text))
    text = re.sub(r"([-=*_~#+])\1{2,}", " ", text)  # drawn lines
    text = re.sub(r"(?:^|\n)[ \t]*[-*][ \t]+", " , ", text)  # list items
    text = re.sub(r"\n\s*\n", " . ", text)
    return re.sub(r"\s+", " ", text)


def _spell_address(match: re.Match[str]) -> str:
    """An e-mail address, web address or file name as it would be dictated."""
    address = match[0].rstrip(".,!?;:'")
    tail = match[0][len(address) :]
    words = []
    previous = ""
    for part in re.findall(r"[A-Za-z]+|\d+|[^\sA-Za-z\d]", re.sub(r"^\w+://", "", address).rstrip("/")):
        letters = part.lower() == "www" or (previous == "." and part.lower() in _SPELLED_ENDINGS)
        words.append(" ".join(part.upper()) if letters else _MARKS.get(part, part if part.isalnum() else ""))
        previous = part
    return f" {' '.join(words)}{tail} "


def _tidy(text: str) -> str:
    """Spaces, and punctuation: one mark at a time, a space after it, none at the start, no comma at the end."""
    text = re.sub(r"(?<![A-Za-z])'|'(?![A-Za-z])", "", text)
    text = re.sub(r"(?<![A-Za-z])-|-(?![A-Za-z])", " ", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"(?: ?[,.?!;:\x01])+ ?", _strongest, text)
    return text.lstrip(" ,.?!;:").rstrip(" ,;:")


def _strongest(match: re.Match[str]) -> str:
    for mark in "?!.":
        if mark in match[0]:
            return f"{mark} "
    if _ELLIPSIS in match[0]:
        following = match.string[match.end() : match.end() + 1]
        return ", " if following.islower() else ". "
    return next(f"{mark} " for mark in ";:," if mark in match[0])


def _kept_stop(match: re.Match[str]) -> str:
    """The stop after a dotted abbreviation (the match's last group), if it ends the sentence too."""
    ends = match.end() == len(match.string) or _OPENING.match(match.string, match.end())
    return match[match.re.groups] if ends else ""


def _expansion(word: str) -> str | None:
    for spelling in (word, word.lower(), word.capitalize() if word.isupper() else word):
        if found := _TITLES.get(spelling) or _ABBREVIATIONS.get(spelling):
            return found
    return None


def _abbreviation(match: re.Match[str]) -> str:
    text, word = match.string, match[1]
    words = _expansion(word)
    if not words:
        return match[0]
    at_end = match.end() == len(text)
    capital = text[match.end() + 1 : match.end() + 2].isupper()
    opening = bool(_OPENING.match(text, match.end()))
    after_name = _word_before(text, match.start())[:1].isupper()
    if words == "Street" and capital and not opening:
        return "Saint"
    if words == "Doctor" and after_name and (opening or not capital):
        words = "Drive"
    elif word.capitalize() in _TITLES or word in _TITLES:
        return words + ("." if at_end else "")
    return words + ("." if at_end or opening or (words == "et cetera" and capital) else "")


def _word_before(text: str, position: int) -> str:
    """The word before a position, with its punctuation; looked for in the last 40 characters."""
    return next(iter(text[max(0, position - 40) : position].split()[-1:]), "")


def _is_initial(text: str, start: int) -> bool:
    """Whether the capital and stop at `start`, before another capital, are a name's initial and end no sentence."""
    before = _word_before(text, start)
    after_initial = re.fullmatch(r"[A-Z]\.", before) is not None
    # A letter before it without a stop: the end of a spelled acronym, "on T V. Then".
    if _OPENING.match(text, start + 2) or before.lower() in _LETTERED or re.fullmatch("[A-Z]", before):
        return False
    return text[start] != "I" or after_initial


def _roman(match: re.Match[str]) -> str:
    thing, ruler, numeral, following = match.groups()
    # "Chapter I." but not "the part I like": alone, a capital I is mostly the pronoun.
    certain = not following or following == " of" or (thing or "").lower() == "world war"
    if numeral == "I" and not certain and not (ruler and following in (" was", " had", " became", " died")):
        return match[0]
    total = 0
    for this, after in zip(numeral, numeral[1:] + "I", strict=True):
        value = _ROMAN_VALUES[this]
        total += -value if value < _ROMAN_VALUES[after] else value
    spoken = speak_numbers(f"{total}").strip() if thing else f"the {ordinal(str(total))}"
    return f"{thing or ruler} {spoken}"


def _acronym(match: re.Match[str]) -> str:
    word, ending = match.groups()
    if word not in _SPELLED and (re.search("[AEIOUY]", word) or word in _SOUNDS):
        return match[0]
    return " ".join(word) + ("'s" if ending else "")


# --- Long text ---

_BREAK = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s)|[。！？]++[\"'”’»）」』]*+")
_AFTER = re.compile(r"\s*[\"'“‘«(\[]*(\S?)")
_CLAUSE = re.compile(r"[,;:]+[\"'”’)]*\s|[，；：、]|\s(?=-+\s|[—–])")


class Chunk(NamedTuple):
    """A piece of text to speak in one go, and the seconds of silence to leave after it."""

    text: str
    pause: float


def paragraphs(text: str) -> list[str]:
    """Blocks between blank lines, without the spaces around them."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2029", "\n\n")
    return [block for block in map(str.strip, re.split(r"\n\s*\n", text)) if block]


def sentences(text: str) -> list[str]:
    """Splits text, normalised or not, at its paragraphs and sentences. No character but outer space is lost."""
    return [piece for block in paragraphs(text) for piece in _split(block)]


def _split(block: str) -> Iterator[str]:
    start = 0
    for match in _BREAK.finditer(block):
        if not _goes_on(match, start):
            yield block[start : match.end()].strip()
            start = match.end()
    if rest := block[start:].strip():
        yield rest


def _goes_on(match: re.Match[str], start: int) -> bool:
    """Whether the sentence that began at `start` goes on after what looks like its end."""
    text, mark = match.string, match[0]
    after = _AFTER.match(text, match.end())
    following = after[1] if after else ""
    if not mark.startswith(".") or len(mark) > 1:  # "Really?" he asked. Well... perhaps.
        return following.islower()
    word = _word_before(text, match.start()).lstrip("\"'“‘«([")
    if word in _TITLES or word.lower() in ("e.g", "i.e") or (word.lower() in LABELS and following.isdigit()):
        return True
    if word.isdigit():  # "1. The first point"
        return match.start() - start < 10 and text[start : match.start()].strip() == word
    opening = _OPENING.match(text, match.end()) is not None
    if len(word) == 1 and word.isupper():
        return following.isupper() and _is_initial(text, match.start() - 1)
    if word.lower() == "etc":
        return not following.isupper()
    return not opening and (_expansion(word) is not None or re.fullmatch(r"(?:[A-Za-z]\.)+[A-Za-z]", word) is not None)


def chunks(text: str, limit: int = 160, clean: Callable[[str], str] = normalise) -> list[Chunk]:
    """Text of any length as pieces for synthesis, in order.

    Cuts at sentences, then at clauses, then between words, and inside a word only when it is longer than the limit. A
    sentence of less than 25 characters is joined to its neighbour where the two fit. Each paragraph is normalised
    first, so that the limit holds for what the model reads; the chunks' words are those of the cleaned paragraphs.

    Args:
        text: raw or normalised.
        limit: the most characters in a chunk.
        clean: applied to each paragraph; `str.strip` leaves text in other languages as it is.

    Returns:
        chunks with pauses of 0.6 s after a paragraph, 0.3 s after a sentence, 0.15 s after a clause, and none within a
        clause or after the last chunk. Empty when there is nothing to say.
    """
    if limit < 1:
        raise ValueError("limit must be at least 1")
    result: list[Chunk] = []
    for block in paragraphs(text):
        pieces: list[Chunk] = []
        for sentence in _joined(sentences(clean(block)), limit):
            pieces += _cut(sentence, limit)
        if pieces:
            result += [*pieces[:-1], pieces[-1]._replace(pause=PARAGRAPH)]
    return [*result[:-1], result[-1]._replace(pause=0.0)] if result else []


def _joined(parts: list[str], limit: int) -> list[str]:
    """Sentences, the short ones joined to what follows, or at the paragraph's end to what precedes."""
    result: list[str] = []
    for index, part in enumerate(parts):
        short = result and (len(result[-1]) < SHORT or (len(part) < SHORT and index == len(parts) - 1))
        if short and len(result[-1]) + 1 + len(part) <= limit:
            result[-1] += f" {part}"
        else:
            result.append(part)
    return result


def _cut(sentence: str, limit: int) -> Iterator[Chunk]:
    """A sentence in pieces of about equal length, none over the limit."""
    while len(sentence) > limit:
        ideal = len(sentence) / -(-len(sentence) // limit)
        window = sentence[: limit + 1]
        clauses = [m.end() for m in _CLAUSE.finditer(window) if m.end() >= min(SHORT, ideal / 2)]
        words = [m.start() for m in re.finditer(r"(?<=\S)\s", window)]
        options = clauses or words or [limit]
        end = min(options, key=lambda position: abs(position - ideal))
        yield Chunk(sentence[:end].strip(), CLAUSE if clauses else 0.0)
        sentence = sentence[end:].strip()
    if sentence:
        yield Chunk(sentence, SENTENCE)

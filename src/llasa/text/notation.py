"""Turns notations that stand for words, such as "1e-5", "Mon-Fri", "CO2" or "a != b", into what the other rules read.

These rules run on folded text, before those for numbers (`llasa.text.numbers`) and symbols (`llasa.text.normalise`).
Every pattern is anchored and bounded, so time is linear in the length of the text.
"""

import html
import re
from collections.abc import Callable

from llasa.text.numbers import MONTH_NUMBERS, MONTHS, SIGNS, UNITS, WEEKDAYS, pairs

_ENTITY = re.compile(r"&(?:[A-Za-z]{2,8}\d{0,2}|#\d{1,7}|#[xX][\dA-Fa-f]{1,6});")
QUOTED = 300  # characters before a mark in which an opening quotation mark is looked for

# Names whose capitals are not those of a sentence.
_NAMES = {
    ".NET": "dot net", "ASP.NET": "A S P dot net", "C++": "C plus plus", "C#": "C sharp", "F#": "F sharp",
    "Node.js": "Node dot J S", "iOS": "I O S", "macOS": "mac O S", "iPadOS": "I pad O S", "watchOS": "watch O S",
    "MySQL": "my S Q L", "NoSQL": "no S Q L", "SQLite": "S Q light", "PostgreSQL": "postgres Q L", "mRNA": "M R N A",
    "tRNA": "T R N A", "pH": "P H", "ChatGPT": "chat G P T", "OpenAI": "open A I", "GitHub": "git hub",
    "c/o": "care of", "w/e": "weekend", "24/7": "twenty four seven", "9/11": "nine eleven", "n/a": "not applicable",
    "N/A": "not applicable", "NaCl": "N A C L", "HCl": "H C L", "NaOH": "N A O H",
}  # fmt: skip
_NAME = re.compile(
    rf"(?<![\w.+#/])(?:{'|'.join(re.escape(name) for name in sorted(_NAMES, key=len, reverse=True))})(?![\w+#/]|\.\w)"
)

# A count of these, not a year: "2024 people".
_COUNTED = (
    "people|persons|men|women|children|students|pupils|soldiers|visitors|copies|pages|items|votes|voters|dollars|pounds|"
    "euros|miles|books|words|houses|homes|cars|ships|employees|workers|members|users|points|jobs|trees|cases|deaths|seats|"
    "tons|tonnes|times|calories|steps|species|islands|bottles|tickets|acres|animals|files|lines|rows|units|guests|patients"
)
_BEFORE_YEAR = {"in", "since", "until", "till", "by", "from", "of", "during", "before", "after", "around", "circa"}
_ELEMENTS = "He|Li|Na|Mg|Al|Si|Cl|Ca|Fe|Cu|Zn|Br|Ag|Au|Hg|Pb|H|B|C|N|O|F|P|S|K|I|U"
# Who is counted by ordinals ("Henry VIII"), and what is no title before a numeral.
_NO_TITLE = {
    "The", "A", "An", "In", "On", "At", "Of", "To", "By", "Her", "His", "My", "Our", "Their", "This", "That", "Each",
    "One", "King", "Queen", "Pope", "Emperor", "Tsar", "John", "Alexander", "Benedict", "Catherine", "Charles",
    "Christian", "Clement", "Edward", "Elizabeth", "Ferdinand", "Francis", "Frederick", "George", "Gregory", "Gustav",
    "Henry", "Innocent", "Ivan", "James", "Leo", "Leopold", "Louis", "Mary", "Napoleon", "Nicholas", "Otto", "Paul",
    "Peter", "Philip", "Pius", "Ptolemy", "Ramesses", "Richard", "Urban", "Victor", "Wilhelm", "William",
}  # fmt: skip
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_DAYS = "|".join(sorted({*WEEKDAYS, *WEEKDAYS.values()}, key=len, reverse=True))
_MONTHS = "|".join(sorted({*MONTHS, *(month[:3] for month in MONTHS), "Sept"}, key=len, reverse=True))
_DECIMAL_UNITS = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))


def unescape(text: str) -> str:
    """HTML's entities as the characters that they stand for: `&amp;` is an ampersand."""
    return _ENTITY.sub(lambda m: html.unescape(m[0]), text)


def spell_names(text: str) -> str:
    """Names whose capitals or dots are their own, as they are said: ".NET" is "dot net"."""
    return _NAME.sub(lambda m: f" {_NAMES[m[0]]} ", text)


def rewrite(text: str) -> str:
    """Rewrites notations. Digits may remain, for the rules of numbers."""
    for pattern, function in RULES:
        text = pattern.sub(function, text)
    return text


def roman(numeral: str) -> int:
    """The value of a Roman numeral."""
    values = [_VALUES[letter] for letter in numeral]
    return sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))


def _spaced(digits: str) -> str:
    return " ".join(digits)


def _formula(match: re.Match[str]) -> str:
    return f" {' '.join(re.findall('[A-Z]|[0-9]+', match[0].upper()))} " if re.search(r"\d", match[0]) else match[0]


def _inches(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - QUOTED) : match.start()]
    return match[0] if before.count('"') % 2 else f"{match[1]} inch "


def _title(match: re.Match[str]) -> str:
    return match[0] if match[1] in _NO_TITLE else f"{match[1]} {roman(match[2])}"


def _roman_year(match: re.Match[str]) -> str:
    value = roman(match[0])
    return str(value) if len(match[0]) >= 4 and 1100 <= value <= 2099 else match[0]


def _count(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - 10) : match.start()].split()
    if before and before[-1].lower() in _BEFORE_YEAR:
        return match[0]
    return f"{match[1][0]},{match[1][1:]}"


def _month(name: str) -> str:
    return MONTHS[MONTH_NUMBERS["sep" if name == "Sept" else name.lower()] - 1]


def _verses(match: re.Match[str]) -> str:
    book, chapter, first, last = match.groups()
    if int(last) <= int(first):  # a time, as in "9:30-11"
        return match[0]
    return f"{book or 'chapter '}{chapter}, verses {first} to {last}"


def _lasting(match: re.Match[str]) -> str:
    hours, minutes, seconds = match.groups()
    return " ".join(f"{n} {unit}" for n, unit in ((hours, "h"), (minutes, "min"), (seconds, "s")) if n)


_rules: list[tuple[str, Callable[[re.Match[str]], str] | str]] = [
    # Mathematics and code
    (r" ?!== ?| ?!= ?|(?<=\w) ?<> ?(?=\w)", " is not equal to "),
    (r" ?===? ?", " equals "),
    (r" ?&& ?", " and "),
    (r" ?\|\| ?", " or "),
    (r"(?<=[\w)]) ?(?:->|=>) ?(?=[\w(])", " to "),
    (r"(?<=[A-Za-z\d)]) ?>= ?(?=[A-Za-z(])", " is at least "),
    (r"(?<=[A-Za-z\d)]) ?<= ?(?=[A-Za-z(])", " is at most "),
    (r"(?<=[A-Za-z\d)]) > (?=[A-Za-z(])", " is greater than "),
    (r"(?<=[A-Za-z\d)]) < (?=[A-Za-z(])", " is less than "),
    (r"(?<![\w.])(\d{1,9}(?:\.\d{1,9})?)[eE]\+?(-?\d{1,3})(?![\w.]*\d)(?!\w)", r"\1 times ten to the power of \2"),
    (r"(?<!\w)([fgh])\(([a-z])\)", r"\1 of \2"),
    (r"(?<=\d) ?- ?(?=\d{1,9}(?:[.,]\d{1,9})?(?: ?[-+*/] ?\d{1,9}){0,5} ?= ?)", " minus "),
    # Computers
    (r"(?<![\d.])(\d{1,3}(?:\.\d{1,3}){3}):(\d{2,5})(?!\d)", lambda m: f"{m[1]} port {_spaced(m[2])}"),
    (r"\blocalhost:(\d{2,5})(?!\d)", lambda m: f"localhost port {_spaced(m[1])}"),
    (r"(?<![\w.,])(\d{3,4}) ?[xX] ?(\d{3,4})(?:([pi])\b)?(?![\d.,])",
     lambda m: f" {pairs(m[1])} by {pairs(m[2])} {(m[3] or '').upper()}"),
    (r"(?<![\w.,])(480|576|720|1080|1440|2160|4320)([pi])\b", lambda m: f" {pairs(m[1])} {m[2].upper()} "),
    # Numbers as other countries write them
    (r"(?<![\d.,:/-])(?<!\d )(\d{1,3})((?: \d{3})+)(?! ?[\d/:-])(?![.,]\d)", lambda m: m[1] + m[2].replace(" ", "")),
    (r"(?<![\d.,])(\d{1,3})\.(\d{3})\.(\d{3})(?![.,]?\d)", r"\1\2\3"),
    (rf"([{SIGNS}]) ?(\d{{1,4}}),(\d\d)(?![\d,]|\.\d)", r"\1\2.\3"),
    (rf"(?<![\w.,])(\d{{1,4}}),(\d\d) ?([{SIGNS}])", r"\3\1.\2"),
    (r"(?<![\w.,])0,(\d{1,3})(?![\d,]|\.\d)", r"0.\1"),
    (rf"(?<![\w.,])(\d{{1,3}}),(\d{{1,2}})(?= ?(?:{_DECIMAL_UNITS}|[{SIGNS}])(?!\w))", r"\1.\2"),
    # Money and shares
    (rf"([{SIGNS}] ?\d[\d.,]{{0,15}} ?(?:[kKmMbBtT]|bn|mn)?) ?- ?(?=[{SIGNS}]?\d)", r"\1 to "),
    (r"(?<![\d/])(\d{1,3}(?:\.\d)?)/(5|10|100)(?= (?:stars?|points?|rating|people|doctors|users|patients|times)\b)",
     r"\1 out of \2"),
    (r"(?<![\d/.,])(50/50|60/40|70/30|80/20|90/10|20/20)(?![\d/])",
     lambda m: " " + m[0].replace("/", " ") + " "),
    (r"(?i)\b((?:won|wins?|lost|loses?|beat|beats|led|leads?|drew|scored?|trail(?:s|ed)?)(?: [a-z']{1,20}){0,3}) "
     r"(\d{1,3})-(\d{1,3})"
     r"(?=[.,!?;:)]|$| (?:on|in|at|to|against|last|over|yesterday|today|and|after|with)\b)", r"\1 \2 \3"),
    (r"(?<![\w.,-])(\d{1,3})-(\d{1,3})(?= (?:victory|win|defeat|loss|lead|draw|score|tie)\b)", r"\1 \2"),
    # Codes, which are read digit by digit
    (r"(?i)\b((?:call|dial|phone|ring|text)(?:s|ed|led|ing|ling)?) (\d{3,6})"
     r"(?=[.,!?;:\"')]|$| (?:now|if|for|and|or|at|from|when|immediately|right|straight|first|again)\b)",
     lambda m: f"{m[1]} {_spaced(m[2])}"),
    (r"(?i)\b((?:PIN|(?:pass|area|zip|post|security|access)?[ -]?code|password|extension|ext\.?|serial number|"
     r"account number)"
     r"(?: is| was| number)?:? )(\d{3,12})(?![\d.,:/-]*\d)", lambda m: f"{m[1]}{_spaced(m[2])}"),
    (r"\b([Ff]light [A-Z]{2}) ?(\d{2,4})\b", lambda m: f"{m[1]} {_spaced(m[2])}"),
    (r"\b([Rr]oom|[Ff]light|[Ss]uite) ([1-9]\d\d)\b(?![.,]\d)", lambda m: f"{m[1]} {pairs(m[2])}"),
    # Times and dates
    (r"(?<![\w.,])(\d{1,3}) ?h ?(\d{1,2}) ?m(?:in)?(?: ?(\d{1,2}) ?s)?\b", _lasting),
    (r"(?<![\w.,])()(\d{1,3}) ?m (\d{1,2}) ?s\b", _lasting),
    (rf"\b({_DAYS})\.? ?- ?({_DAYS})\b\.?", lambda m: f"{WEEKDAYS.get(m[1], m[1])} to {WEEKDAYS.get(m[2], m[2])}"),
    (rf"\b({_MONTHS})\.? ?- ?({_MONTHS})\b\.?(?! ?\d{{1,2}}\b)", lambda m: f"{_month(m[1])} to {_month(m[2])}"),
    (r"(?i)\b(in|since|until|by|before|after|around|circa|year|of) (10\d\d)(?![\d.,:/-]*\d| ?%)",
     lambda m: f"{m[1]} {pairs(m[2])}"),
    (rf"(?<![\w.,$£€-])([1-9]\d{{3}})(?= (?:{_COUNTED})\b)", _count),
    (r"([A-Z][a-z]{1,14}\.? )?(?<![\w:.,])(\d{1,3}):(\d{1,3})-(\d{1,3})(?![\w:])", _verses),
    (r"(\d(?:st|nd|rd|th)) ?- ?(?=\d{1,2}(?:st|nd|rd|th)\b)", r"\1 to "),
    (r"\b([IVX]{1,6})(?= centur(?:y|ies)\b)", lambda m: f"{roman(m[1])}th"),
    (r"(\d)°(?= (?:turn|angle|bend|rotation|view|lens)\b)", r"\1 degree"),
    (r"#((?:[A-Z][a-z]{1,20}){2,8})\b", lambda m: f"hashtag {' '.join(re.findall('[A-Z][a-z]+', m[1]))}"),
    (r"(?i)\b(he|him|his)/(she|hers?)\b|\b(she|hers?)/(he|him|his)\b", lambda m: m[0].replace("/", " or ")),
    (r"\b([Ss])/he\b", "he or she"),
    # Chemistry, lengths, numerals, names
    (rf"(?<![\w.-])(?:(?:(?:{_ELEMENTS})\d{{0,2}}){{2,8}}|[HNO]2|O3)(?![\w-])", _formula),
    (r"(?<![\w.,'\"])(\d{1,4}(?:\.\d{1,2})?)\"(?=[\s,.;)x]|$)", _inches),
    (r"\b([A-Z][a-z]{2,20}) (II|III|IV|VI{1,3}|IX|X[IV]{1,4})\b(?![-'])", _title),
    (r"(?<![\w-])M{1,2}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})(?![\w-])", _roman_year),
]  # fmt: skip
RULES = [(re.compile(pattern), function) for pattern, function in _rules]

"""Turns notations that stand for words, such as "1e-5", "Mon-Fri", "CO2" or "a != b", into what the other rules read.

These rules run on folded text, before those for numbers (`llasa.text.numbers`) and symbols (`llasa.text.normalise`).
Every pattern is anchored and bounded, so time is linear in the length of the text.
"""

import html
import re
from collections.abc import Callable
from itertools import pairwise

from llasa.text import codes, scripture, shorthand
from llasa.text.numbers import LABELS, MONTH_NUMBERS, MONTHS, WEEKDAYS, ordinal, pairs, spaced
from llasa.text.units import CURRENCIES, CURRENCY, PER, SCALES, SIGNS, UNITS

_ENTITY = re.compile(r"&(?:[A-Za-z]{2,8}\d{0,2}|#\d{1,7}|#[xX][\dA-Fa-f]{1,6});")
_TAG = re.compile(
    r"(?i)</?(?:a|b|blockquote|br|break|code|div|em|emphasis|h[1-6]|hr|i|img|li|ol|p|pre|prosody|s|say-as|small|span|speak|"
    r"strong|sub|sup|table|td|th|tr|u|ul|voice)(?:\s[^<>]{0,300})?/?>"
)
QUOTED = 300  # characters before a mark in which an opening quotation mark is looked for

# Names whose capitals are not those of a sentence.
_NAMES = {
    ".NET": "dot net", "ASP.NET": "A S P dot net", "C++": "C plus plus", "C#": "C sharp", "F#": "F sharp",
    "Node.js": "Node dot J S", "iOS": "I O S", "macOS": "mac O S", "iPadOS": "I pad O S", "watchOS": "watch O S",
    "MySQL": "my S Q L", "NoSQL": "no S Q L", "SQLite": "S Q light", "PostgreSQL": "postgres Q L", "mRNA": "M R N A",
    "tRNA": "T R N A", "pH": "P H", "ChatGPT": "chat G P T", "OpenAI": "open A I", "GitHub": "git hub",
    "c/o": "care of", "w/e": "weekend", "24/7": "twenty four seven", "9/11": "nine eleven", "n/a": "not applicable",
    "N/A": "not applicable", "b/c": "because", "A/C": "A C", "A/B": "A B", "24x7": "twenty four seven",
    "24/7/365": "twenty four seven three sixty five", "WWI": "World War one",
    "WWII": "World War two", "WW1": "World War one", "WW2": "World War two",
    "MI5": "M I five", "MI6": "M I six", "NaCl": "N A C L", "HCl": "H C L", "IPv4": "I P V four",
    "IPv6": "I P V six", "Xmas": "Christmas", "YoY": "year on year", "NaOH": "N A O H",
}  # fmt: skip
_NAME = re.compile(
    rf"(?<![\w.+#/])({'|'.join(re.escape(name) for name in sorted(_NAMES, key=len, reverse=True))})"
    r"(?:-(?=\d)|(?![\w+#/]|\.\w))"
)

# A count of these, not a year: "2024 people".
_COUNTED = (
    "people|persons|men|women|children|students|pupils|soldiers|visitors|copies|pages|items|votes|voters|dollars|pounds|"
    "euros|miles|books|words|houses|homes|cars|ships|employees|workers|members|users|points|jobs|trees|cases|deaths|seats|"
    "tons|tonnes|times|calories|steps|species|islands|bottles|tickets|acres|animals|files|lines|rows|units|guests|patients|followers|"
    "subscribers|likes|views|downloads|customers|streams|tokens|parameters|records|requests|sales|inhabitants"
)
_BEFORE_YEAR = {"in", "since", "until", "till", "by", "from", "of", "during", "before", "after", "around", "circa"}
_ELEMENTS = "He|Li|Na|Mg|Al|Si|Cl|Ca|Ti|Cr|Mn|Fe|Ni|Cu|Zn|As|Se|Br|Sr|Ag|Cd|Sn|Ba|Pt|Au|Hg|Pb|H|B|C|N|O|F|P|S|K|I|U"
_ATOMS = rf"(?:{_ELEMENTS})\d{{0,2}}"
# Signs that keyboards lack, as they are said.
_SYMBOLS = {
    "∞": "infinity", "∑": "sum", "∫": "integral of", "∂": "partial", "∈": "in", "∀": "for all", "∃": "there is",
    "∆": "delta", "⇒": "->", "↔": "and", "♭": "flat", "♯": "sharp",
}  # fmt: skip
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "ν": "nu", "ξ": "xi", "ο": "omicron", "ρ": "rho", "σ": "sigma",
    "ς": "sigma", "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
}  # fmt: skip
_HEARTS = "[❤♥❣💓-💟🖤🤍🤎🧡🩵🩶🩷]"
_FUNCTIONS = {"sin": "sine", "cos": "cosine", "tan": "tangent", "ln": "natural log", "exp": "exponential",
              "sqrt": "square root"}  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_LABELS = LABELS | {"art": "Article", "bldg": "Building", "op": "Opus", "para": "paragraph", "ext": "extension"}
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
_TENS = {"10": "tens", "100": "hundreds", "1000": "thousands", "10000": "tens of thousands",
         "100000": "hundreds of thousands", "1000000": "millions"}  # fmt: skip
# Units that are read so without a number before them: "in km/h".
_OVER = "km|cm|mm|mi|ft|m|kg|mg|g|kB|KB|MB|GB|TB|kWh|kJ|kcal|ml|mL|microg|mol"
_UNDER = "h|hr|min|sec|s|kg|m\\^2|m\\^3|cm\\^3|L|l|dL|ml|mL|km|day|mol"
_DECIMAL_UNITS = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))


def unescape(text: str) -> str:
    """HTML's entities as the characters that they stand for: `&amp;` is an ampersand. Its tags are left out."""
    return _ENTITY.sub(lambda m: html.unescape(m[0]), _TAG.sub(" ", text))


def spell_names(text: str) -> str:
    """Names whose capitals or dots are their own, as they are said: ".NET" is "dot net"."""
    return _NAME.sub(lambda m: f" {_NAMES[m[1]]} ", text)


def spell_signs(text: str) -> str:
    """Hearts, Greek letters, raised numbers and signs of mathematics, before the text is folded to ASCII."""
    for pattern, function in _SIGNS:
        text = pattern.sub(function, text)
    return text


def rewrite(text: str) -> str:
    """Rewrites notations. Digits may remain, for the rules of numbers."""
    for pattern, function in RULES:
        text = pattern.sub(function, text)
    return text


def roman(numeral: str) -> int:
    """The value of a Roman numeral."""
    values = [_VALUES[letter] for letter in numeral]
    return sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))


def _formula(match: re.Match[str]) -> str:
    return f" {' '.join(re.findall('[A-Z]|[0-9]+', match[0].upper()))} " if re.search(r"\d", match[0]) else match[0]


def _inches(match: re.Match[str]) -> str:
    quoted = False
    for mark in re.finditer(r'(\d?)"', match.string[max(0, match.start() - QUOTED) : match.start()]):
        quoted = not quoted and not mark[1]
    if quoted:
        return match[0]
    amount, whole, top, bottom = match.groups()
    if whole:
        return f"{whole} {top}/{bottom} inch "
    part = {"2": "half", "4": "quarter"}.get(bottom or "", "") or (bottom and ordinal(bottom))
    return f"{top} {part} inch " if bottom else f"{amount} inch "


def _raised(match: re.Match[str]) -> str:
    """A raised number: a power after a number or the name of one, a charge, or the mark of a footnote."""
    before, digits = match[1], match[2].translate(_RAISED)
    if digits.endswith("+"):
        return f"{before}{digits}"
    if digits.endswith("-"):
        return f"{before} {digits[:-1]} minus "
    return f"{before}^{digits}" if len(before) < 4 or before in UNITS or "-" in digits else before


def _difference(match: re.Match[str]) -> str:
    """A subtraction, unless it may be a range."""
    signs, numbers = re.findall(r" ([-+*/]) ", match[1]), re.findall(r"[\d.]+", match[1])
    if set(signs) == {"-"} and any(float(a) <= float(b) for a, b in pairwise(numbers)):
        return match[0]
    return match[0].replace(" - ", " minus ")


def _bearing(match: re.Match[str]) -> str:
    degrees, minutes, seconds, side = match.groups()
    found = (
        f"{degrees} degrees" + (f" {minutes} minutes" if minutes else "") + (f" {seconds} seconds" if seconds else "")
    )
    return f"{found} {shorthand.SIDES[side]}"


def _title(match: re.Match[str]) -> str:
    return match[0] if match[1] in _NO_TITLE else f"{match[1]} {roman(match[2])}"


def _small_numeral(match: re.Match[str]) -> str:
    thing, first, last = match.groups()
    thing = {"p.": "page", "pp.": "pages"}.get(thing.lower(), thing)
    return f"{thing} {roman(first.upper())}{f' to {roman(last.upper())}' if last else ''}"


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


def _lasting(match: re.Match[str]) -> str:
    hours, minutes, seconds = match.groups()
    return " ".join(f"{n} {unit}" for n, unit in ((hours, "h"), (minutes, "min"), (seconds, "s")) if n)


_Rules = list[tuple[str, Callable[[re.Match[str]], str] | str]]
_signs: _Rules = [
    (rf"(?i)\b(I|we|you|they)(?: ?{_HEARTS}\ufe0f?){{1,9}} ?(?=\w)", r"\1 love "),
    (rf"(?i)\b(my|your|his|her|our|their|a|the|of|whole|big) {_HEARTS}", r"\1 heart "),
    (r"(?<![\u0370-\u03ff])([Α-Ωα-ω])(?![\u0370-\u03ff])",
     lambda m: m[0] if m[0] in "πΩμ" else f" {_GREEK.get(m[0].lower(), 'mu')} "),
    (r"μ(?![A-Za-z])", " mu "),
    (r"(?<=\d)·(?=\d)", " times "),
    (r"¶ ?(?=\d)", "paragraph "),
    (r"\b([A-G])#(?!\w)", r"\1 sharp "),
    (r"(?i)\bn[º°]\.? ?(?=\d)", "number "),
    (f"[{''.join(_SYMBOLS)}]", lambda m: f" {_SYMBOLS[m[0]]} "),
    (r"([A-Za-z]{1,20}|[\d₀-₉)])([⁺⁻]?[⁰¹²³⁴-⁹]{1,9}[⁺⁻]?|[⁺⁻])", _raised),
]  # fmt: skip
_SIGNS = [(re.compile(pattern), function) for pattern, function in _signs]

_DECIMAL = r"\d{1,9}(?:\.\d{1,9})?"
_CONTEXT = r"^|[=(,:;] ?|\b(?:is|are|equals|calculate|compute|solve|subtract) "
_rules: _Rules = [
    # Mathematics and code
    (r"(?<!\S)<3{1,9} (?=(?:u|you|it|this|them|him|her|my|the)\b)", "love "),
    (r"\b(I|[Ww]e|[Yy]ou|[Tt]hey) <3 (?=[A-Za-z])", r"\1 love "),
    (r"(?<=[a-z]{2}) <3{1,9}(?=[!.]{0,3}$)", ""),
    (r"^<3{1,9}(?=[!.]{0,3}$)", "love"),
    (r"(?<=[\w)]) ?\*\* ?(?=\d)", "^"),
    (r"\b0[xX]([\dA-Fa-f]{1,16})\b", lambda m: f"0 X {spaced(m[1].upper())}"),
    (r"#(?=[A-Fa-f\d]{0,5}\d)([A-Fa-f\d]{6})\b", lambda m: f"hash {spaced(m[1].upper())}"),
    (rf"(?:{_CONTEXT})({_DECIMAL}(?: [-+*/] {_DECIMAL}){{1,9}})(?=[?.,;)] |[?.;)]?$| (?:is|equals)\b)", _difference),
    (r"(?<=\^\d) ?- ?(?=[a-z\d])|\b(?<=[b-z]) - (?=[a-z\d]\b(?:\^\d)? ?[=+])", " minus "),
    (r"\b([A-D])-(?=[\s.,;:)!?]|$)", r"\1 minus"),
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
    (r"(?<!\w)(sin|cos|tan|log(?:10|2)?|ln|exp|sqrt|[fgh])\(([a-z]|\d{1,4}°?)\)",
     lambda m: f"{_FUNCTIONS.get(m[1], m[1])} of {m[2]}"),
    (r"(?<=\d) / (?=\d)", " divided by "),
    (r"(?<=\b[a-eg-z]) ?/ ?(?=\d)", " over "),
    (r"(?<=\b1):(?=\d{2,6} (?:scale|model)\b)", " to "),
    (r"(?<=\d)([a-z])(?= ?[+*/^=] ?[\w(-]| - \d)", r" \1"),
    (r"(?<![\w/.])(\d{1,3})/([abknxyz])(?![\w/])", r"\1 over \2"),
    (r"(?<=\d) ?- ?(?=\d{1,9}(?:[.,]\d{1,9})?(?: ?[-+*/] ?\d{1,9}){0,5} ?= ?)", " minus "),
    (r"(?<!\w)d([a-z]?)/d([a-z])(?!\w)", lambda m: f"D {m[1].upper()} D {m[2].upper()}"),
    (r"(?<=\b[a-z]) ?\* ?(?=[a-z\d]\b)|(?<=\d) ?\* ?(?=[a-z]\b)", " times "),
    (r"(?<=[A-Z]{2}) \*(?= [A-Z]{2})", " star"),
    (r"(?<=[a-z\d])\.(?=[a-z_]{1,30}(?:\(|\[| ?(?:=|<|>|\+|\*)))", " dot "),
    # Computers
    (r"(?<!\S)\.(?=[a-z]{2,20}\b)", "dot "),
    (r"(?i)\b(HTTP|error|status) ([1-5]\d\d)(?![\d.,])", lambda m: f"{m[1]} {pairs(m[2])}"),
    (r"(?<![\d.,])([45]\d\d)(?= (?:error|page|response)s?\b)", lambda m: pairs(m[1])),
    (r"(?<![\d.])(\d{1,3}(?:\.\d{1,3}){3}):(\d{2,5})(?!\d)", lambda m: f"{m[1]} port {spaced(m[2])}"),
    (r"\blocalhost:(\d{2,5})(?!\d)", lambda m: f"localhost port {spaced(m[1])}"),
    (r"(?<![\w.,])(\d{3,4}) ?[xX] ?(\d{3,4})(?:(p|i|px)\b)?(?![\d.,])",
     lambda m: f" {pairs(m[1])} by {pairs(m[2])} {'pixels' if m[3] == 'px' else (m[3] or '').upper()}"),
    (r"(?<![\w.,])(480|576|720|1080|1440|2160|4320)([pi])\b", lambda m: f" {pairs(m[1])} {m[2].upper()} "),
    (rf"(?<=\d) {{1,3}}times {{1,3}}(?={_DECIMAL} ?(?:{_DECIMAL_UNITS})(?![\w^]))", " by "),
    # Numbers as other countries write them
    (r"(?<![\d.,])(\d{1,2}(?:,\d\d){1,4},\d{3})(?![\d,]|\.\d{3})", lambda m: m[1].replace(",", "")),
    (r"(?<![\d.,:/-])(?<!\d )(\d{1,3})((?: \d{3})+)(?! ?[\d/:-])(?![.,]\d)", lambda m: m[1] + m[2].replace(" ", "")),
    (r"(?<![\d.,])(\d{1,3})\.(\d{3})\.(\d{3})(?![.,]?\d)", r"\1\2\3"),
    (rf"({CURRENCY}) ?(\d{{1,4}}),(\d\d)(?![\d,]|\.\d)", r"\1 \2.\3"),
    (rf"(?<![\w.,])(\d{{1,4}}),(\d\d) ?({CURRENCY})", r"\3 \1.\2"),
    (rf"(?<![\w.,])(\d{{1,6}})([{SIGNS}])(\d\d)(?![\w.,]?\d)", r"\2\1.\3"),
    (r"(?<![\w.,])0,(\d{1,3})(?![\d,]|\.\d)", r"0.\1"),
    (rf"(?<![\w.,])(\d{{1,3}}),(\d{{1,2}})(?= ?(?:{_DECIMAL_UNITS}|[{SIGNS}])(?!\w))", r"\1.\2"),
    (r"(?<![\d.,])(\d{1,3}(?:\.\d{3}){1,4}),(\d\d)(?!\d)", lambda m: f"{m[1].replace('.', '')}.{m[2]}"),
    (r"(?<![\w.,'])(\d{1,3}(?:'\d{3}){1,4})(?![\d'])", lambda m: m[1].replace("'", "")),
    # Money and shares
    (r"\bRs\.? ?(?=\d)", "₹"),
    (rf"([{SIGNS}])-(?=\d)", r"-\1"),
    (r"\$(?=[A-Z_]{2,20}\b)", "dollar "),
    (rf"([{SIGNS}])(10{{1,6}}|1(?:,000){{1,2}})s\b",
     lambda m: f"{_TENS.get(m[2].replace(',', ''), m[2])} of {CURRENCIES[m[1]][1]}"),
    (rf"([{SIGNS}] ?\d[\d.,]{{0,15}} ?(?:[kKmMbBtT]|bn|mn)?) ?- ?(?=[{SIGNS}]?\d)", r"\1 to "),
    (r"(?<![\d/])(\d{1,3}(?:\.\d)?)/(5|10|100)(?= (?:stars?|points?|rating|people|doctors|users|patients|times)\b)",
     r"\1 out of \2"),
    (r"(?<![\d/.,])(50/50|60/40|70/30|80/20|90/10|20/20)(?![\d/])",
     lambda m: " " + m[0].replace("/", " ") + " "),
]  # fmt: skip
_later: _Rules = [
    (r"(?i)\b(scene|chapter|part|book|act|page|pp?\.|section|vol\.|volume|appendix|stanza) "
     r"(?-i:([ivxl]{1,6})(?:-([ivxl]{1,6}))?)(?=[,.;:)!?]|$| of\b)", _small_numeral),
    (r"\b([Nn])os?\. (?=of\b)", lambda m: "Number " if m[1] == "N" else "number "),
    (r"(?<!\d )\b([Mm]in|[Mm]ax)\. ?(?=\d)", r"\1imum "),
    (r"\bPs\.? (?=\d{1,3}\b)", "Psalm "),
    (r"(?<=[a-z]) v\. (?=[A-Z][a-z])", " versus "),
    (r"\b(Eq|Fig|Ref|Sec)\. ?(?=\()", lambda m: f"{_LABELS.get(m[1].lower(), 'reference')} "),
    (r"\bRm\.? ?(?=\d)", "room "),
    (r"\b(Art|art|Bldg|Op|Para|para)\. ?(?=\d)", lambda m: f"{_LABELS[m[1].lower()]} "),
    (r"\b(Apt|Bldg|Eq|Ext|ext|Fig|Rte|Ste|Vol) (?=\d)", lambda m: f"{_LABELS[m[1].lower()]} "),
    (r"§§ ?", "sections "),
    (r"&Ms\b", " and M's"),
    (r"\bn-th\b", "nth"),
    (r"(?<=[A-Za-z]-)(\d{1,3}(?:\.\d{1,3})?)-(?=\d)", r"\1 "),
    (r"\b([A-Z])(\d{1,3}) ?- ?(?=\1\d{1,3}\b)", r"\1\2 to "),
    (r"\b(UTC|GMT)-(?=\d)", r"\1 minus "),
    (r"\bHwy\.? (?=\d)", "Highway "),
    (r"\b(pp) ?(?=\d)", "pages "),
    # Times and dates
    (r"(?<![\w.,:])0([1-9])([0-5]\d)(?= ?(?:hours|hrs|h)\b)", lambda m: f"oh {pairs(m[1] + m[2])}"),
    (r"\b([bd])\. (?=(?:c\. ?)?[12]\d{3}\b)", lambda m: "born " if m[1] == "b" else "died "),
    (rf"(\d{{1,2}}(?:st|nd|rd|th)? (?:{_MONTHS})\.?) ?- ?(?=\d{{1,2}}(?:st|nd|rd|th)? (?:{_MONTHS})\b)", r"\1 to "),
    (rf"\b((?:{_MONTHS})\.? \d{{1,2}}) ?- ?(?=(?:{_MONTHS})\b\.? \d)", r"\1 to "),
    (rf"\b({_DAYS})\b\.?,? (1[0-2]|[1-9])/(\d{{1,2}})(?![\d/])",
     lambda m: f"{WEEKDAYS.get(m[1], m[1])}, {MONTHS[int(m[2]) - 1]} {m[3]}"),
    (r"(?<![\w.])(\d{4})\.(\d\d)\.(\d\d)(?![\w.]\d)", r"\1-\2-\3"),
    (r"(?<!\w)'0(\d)(?![\w'])", r"oh \1"),
    (r"\b(BCE?|CE|AD)\.? ?- ?(?=AD|\d)", r"\1 to "),
    (r"\b([Nn]oon|[Mm]idnight) ?- ?(?=\d)", r"\1 to "),
    (r"(?<=[ap]m) ?- ?(?=noon|midnight)", " to "),
    (rf"\b({'|'.join(WEEKDAYS)})\.(?= [a-z])", lambda m: WEEKDAYS[m[1]]),
    (r"(?<=[APap][Mm] )([ECMP][SD]T|[ACJ]ST|CES?T|BST)\b", lambda m: spaced(m[1])),
    (r"(?<![\d/])(\d{1,2})/(2|4|8|16)(?= time\b)", r"\1 \2"),
    (r"(?<![\w.,:])(\d{1,2})h([0-5]\d)\b", r"\1:\2"),
    (rf"\b({_MONTHS})\.? '(\d\d)(?![\w'])", lambda m: f"{_month(m[1])} {'20' if m[2] < '50' else '19'}{m[2]}"),
    (r"(?<!\d)((?:19|20)\d\d)/(\d\d)(?![\d/])",
     lambda m: f"{m[1]} to {m[2]}" if (int(m[1]) + 1) % 100 == int(m[2]) else m[0]),
    (r"(?<![\w.,])(\d{1,3}) ?h ?(\d{1,2}) ?m(?:in)?(?: ?(\d{1,2}) ?s)?\b", _lasting),
    (r"(?<![\w.,])()(\d{1,3}) ?m (\d{1,2}) ?s\b", _lasting),
    (rf"\b({_DAYS})\.? ?- ?({_DAYS})\b\.?", lambda m: f"{WEEKDAYS.get(m[1], m[1])} to {WEEKDAYS.get(m[2], m[2])}"),
    (rf"\b({_DAYS})\.? ?/ ?({_DAYS})\b\.?", lambda m: f"{WEEKDAYS.get(m[1], m[1])}, {WEEKDAYS.get(m[2], m[2])}"),
    (r"(?<=\d0s) ?- ?(?='?\d{0,2}\d0s\b)", " to "),
    (rf"\b({_MONTHS})\.? ?- ?({_MONTHS})\b\.?(?! ?\d{{1,2}}\b)", lambda m: f"{_month(m[1])} to {_month(m[2])}"),
    (r"(?i)\b(in|since|until|by|before|after|around|circa|year|of) (10\d\d)(?![\d.,:/-]*\d| ?%)",
     lambda m: f"{m[1]} {pairs(m[2])}"),
    (rf"(?<![\w.,$£€-])([1-9]\d{{3}})(?= (?:{_COUNTED})\b)", _count),
    (rf"(?<=\d)([KMB])(?= (?:{_COUNTED})\b)", lambda m: f" {SCALES[m[1].lower()]}"),
    (r"(\d(?:st|nd|rd|th)) ?- ?(?=\d{1,2}(?:st|nd|rd|th)\b)", r"\1 to "),
    (r"\b([IVX]{1,6})(?= centur(?:y|ies)\b)", lambda m: f"{roman(m[1])}th"),
    (r"(\d)°(?= (?:turn|angle|bend|rotation|view|lens)\b)", r"\1 degree"),
    (r"(?i)\b(he|him|his)/(she|hers?)\b|\b(she|hers?)/(he|him|his)\b", lambda m: m[0].replace("/", " or ")),
    (r"\b([Ss])/he\b", "he or she"),
    # Chemistry, lengths, numerals, names
    (r"(\d ?(?:lbs?|ft|yd|hrs?|mins?))\. (?=\d{1,2} ?(?:oz|in|ft|min|sec)\b)", r"\1 "),
    (r"(?<=\d\.\d) ?(?=[CF]\b)", "°"),
    (r"(?<=\d\.\d)A\b", " amps"),
    (r"(?<=\d)A(?= (?:fuse|breaker|charger|circuit|current|outlet|plug|socket|supply)\b)", " amp"),
    (rf"(?<![\w.-])(?:(?:{_ATOMS}|\((?:{_ATOMS}){{1,4}}\)\d{{0,2}}){{2,8}}|[HNO]2|O3)(?![\w-])", _formula),
    (rf"(?<![\w.-])({_ELEMENTS})(\d?)\+(?![\w+])", lambda m: f"{spaced(m[1].upper())} {m[2]} plus"),
    (r"(\d{1,4}) ?° ?(?:(\d{1,2})' ?)?(?:(\d{1,2}(?:\.\d{1,3})?)\" ?)?([NSEW])\b"
     r"(?! ?\d(?!\d{0,3}(?:\.\d{1,9})?°))", _bearing),
    (r"(?<![\w°.,])°([CF])\b", lambda m: f"degrees {'Celsius' if m[1] == 'C' else 'Fahrenheit'}"),
    (r"(\b[Aa]n? )?(?<![\w.,])(\d{1,4}(?:\.\d)?)' ?[xX] ?(\d{1,4}(?:\.\d)?)'(?!\w)",
     lambda m: f"{m[1]}{m[2]} foot by {m[3]} foot" if m[1] else f"{m[2]} feet by {m[3]} feet"),
    (r"(?<![\w.,'])(\d{1,4}(?:\.\d)?)'(?= (?:tall|high|long|wide|deep|thick|across|away|below|above)\b)", r"\1 feet"),
    (r"\b([Aa]n?|[Tt]he) (\d{1,4}(?:\.\d)?)'(?= [a-z])", r"\1 \2 foot"),
    (r"(?<![\w.,])(\d{1,2}) ?ft\.? (\d{1,2}) ?in\b(?:\.(?= [a-z]|,))?", r"\1 foot \2 inches"),
    (r"(?<=\d) ?(sq|cu)\.? ?(ft|in|mi|km|yd|cm|mm|m)\b\.?", lambda m: f" {m[2]}^{2 if m[1] == 'sq' else 3}"),
    (r"\b(sq|cu)\.? ?(ft|in|mi|km|yd|cm|mm|m)\b\.?", lambda m: UNITS[f"{m[2]}^{2 if m[1] == 'sq' else 3}"][0]),
    (r"(?<![\w.,])(\d{1,4}(?:\.\d{1,2})?) in\.(?= [a-z]|,)", r"\1 inches"),
    (rf"(?<![\w./^])({_OVER})/({_UNDER})(?![\w/^])", lambda m: f"{UNITS[m[1]][1]} per {PER.get(m[2], m[2])}"),
    (r"(?<![\w.,'\"/])(?:(\d{1,4}(?:\.\d{1,2})?(?: ?[xX] ?\d{1,4}(?:\.\d{1,2})?)?)|"
     r"(?:(\d{1,3}) )?(\d{1,2})/(\d{1,2}))\"(?=[\s,.;)x]|$)", _inches),
    (r"(?<![\w.,$-])([1-9]\d)c(?![\w'])", r"\1 cents"),
    (r"(?<=inch) {1,3}[xX] ?(?=\d)", " by "),
    (r"(\d ?(?:km|cm|mm|m|ft|in|yd)) [xX] (?=\d)", r"\1 by "),
    (r"\bf/(?=\d)", "f "),
    (r"(?<![\d^/])(?<!\d )\b(km|cm|mm|m|mi|ft|yd|in)\^([23])(?!\d)",
     lambda m: UNITS[m[0]][not m.string.endswith("per ", max(0, m.start() - 4), m.start())]),
    (r"(?<=\d/)(\d{1,2})(?:rds?|ths?|nds?)\b", r"\1"),
    (r"(?<![\w.,])(10{1,6}|1(?:,000){1,2})s(?= of\b)", lambda m: _TENS.get(m[1].replace(",", ""), m[0])),
    (r"\b([A-Z][a-z]{2,20}) (II|III|IV|VI{1,3}|IX|X[IV]{1,4})\b(?![-'])", _title),
    (r"(?<![\w-])M{1,2}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})(?![\w-])", _roman_year),
]  # fmt: skip
RULES = [(re.compile(pattern), function) for pattern, function in _rules]
RULES += (
    shorthand.RULES + scripture.RULES + codes.RULES + [(re.compile(pattern), function) for pattern, function in _later]
)

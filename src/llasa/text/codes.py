"""Reads numbers that count nothing: scores, models of aircraft and cars, addresses, and codes said digit by digit.

They are read in pairs of digits ("seven thirty seven"), one by one, or as they stand, where a count or a range would
have other words. The rules run with those of `llasa.text.notation`.
"""

import re
from collections.abc import Callable

from llasa.text.numbers import MONTH, WEEKDAYS, cardinal, pairs, plural, spaced
from llasa.text.units import ANY_UNIT

_STATES = {
    "AL": "Alabama", "AK": "Alaska", "AZ": "Arizona", "AR": "Arkansas", "CA": "California", "CO": "Colorado",
    "CT": "Connecticut", "DE": "Delaware", "FL": "Florida", "GA": "Georgia", "ID": "Idaho", "IL": "Illinois",
    "IA": "Iowa", "KS": "Kansas", "KY": "Kentucky", "LA": "Louisiana", "MD": "Maryland", "MA": "Massachusetts",
    "MI": "Michigan", "MN": "Minnesota", "MS": "Mississippi", "MO": "Missouri", "MT": "Montana", "NE": "Nebraska",
    "NV": "Nevada", "NH": "New Hampshire", "NJ": "New Jersey", "NM": "New Mexico", "NY": "New York",
    "NC": "North Carolina", "ND": "North Dakota", "RI": "Rhode Island", "SC": "South Carolina", "SD": "South Dakota",
    "TN": "Tennessee", "TX": "Texas", "UT": "Utah", "VT": "Vermont", "VA": "Virginia", "WA": "Washington", "DC": "D C",
    "WV": "West Virginia", "WI": "Wisconsin", "WY": "Wyoming",
}  # fmt: skip
# These are words too, so they are states only before a postal code.
_WORDS_TOO = {"HI": "Hawaii", "IN": "Indiana", "ME": "Maine", "OH": "Ohio", "OK": "Oklahoma", "OR": "Oregon",
              "PA": "Pennsylvania"}  # fmt: skip

_STREETS = {"St": "Street", "Ave": "Avenue", "Rd": "Road", "Blvd": "Boulevard", "Dr": "Drive", "Ln": "Lane",
            "Pl": "Place", "Ct": "Court", "Sq": "Square"}  # fmt: skip
_STREET = "|".join([*_STREETS, *_STREETS.values(), "Way", "Terrace", "Row", "Parkway", "Highway"])
# Followed by a number that is said in pairs.
_MAKERS = ("Boeing|Airbus|Porsche|Peugeot|Ferrari|Nokia|Fiat|Audi|BMW|Lexus|Mazda|RTX|GTX|RX|RFC|BWV|Interstate|"
           "Highway|Route|Area")  # fmt: skip

# A set of tennis, a half of a game: "7-6", or with its tie-break "7-6 (10-8)".
_SET = r"\d{1,3}-\d{1,3}(?: \(\d{1,2}(?:-\d{1,2})?\))?"
_SCORED = ("won|wins?|lost|loses?|beat|beats|led|leads?|drew|scored?|trail(?:s|ed)?|record|went|finished|ended|score|"
           "defeated|trounced|thrashed")  # fmt: skip
_RESULT = ("victory|win|defeat|loss|lead|draw|score|scoreline|tie|record|triumph|thrashing|rout|upset|deficit|"
           "advantage|comeback")  # fmt: skip
# Two numbers of which the first is larger are a range here, and elsewhere seldom.
_RANGED = re.compile(
    rf"(?i:\b(?:pages?|pp?\.|lines?|verses?|chapters?|odds(?: of)?|ratio(?: of)?|open|opens|closed|hours|from|between|"
    rf"daily|shift|works?|working|nos?\.|{'|'.join({*WEEKDAYS, *WEEKDAYS.values()})})|{MONTH}),? $"
)
_AFTER_RANGE = "[ap]\\.?m|[AP]M|percent|per cent|degrees?|odds|ratio|job|shift|o'clock"


def _place(match: re.Match[str]) -> str:
    town, state, code = match.groups()
    name = _STATES.get(state) or (code and _WORDS_TOO.get(state))
    return f"{town or ''}{name}{' ' + spaced(code) if code else ''}" if name else match[0]


def _score(match: re.Match[str]) -> str:
    return match[0].replace("-", " ")


def _falling(match: re.Match[str]) -> str:
    """Two numbers of which the second is not larger, unless they may be hours, as in "nine to five"."""
    first, second = int(match[1]), int(match[2])
    hours = 8 <= first <= 12 and 3 <= second <= 6
    if second > first or hours or _RANGED.search(match.string, max(0, match.start() - 20), match.start()):
        return match[0]
    return _score(match)


def _named(digits: str) -> str:
    """A number in a name: in pairs if it has three or four digits."""
    return pairs(digits) if 3 <= len(digits) <= 4 and digits[0] != "0" else digits


def _model(match: re.Match[str]) -> str:
    letters, first, second, ending = match.groups()
    return f"{letters or ''} {_named(first)} {_named(second)} {ending or ''}"


def _plurals(match: re.Match[str]) -> str:
    letters, digits = match.groups()
    return f"{letters or ''} {plural(pairs(digits) if len(digits) > 2 else cardinal(digits))}"


def _address(match: re.Match[str]) -> str:
    number, letter, name, street, side = match.groups()
    dotted = match.string[match.end() : match.end() + 1] == "."
    whole = f"{_named(number)} {letter or ''} {name}{street if dotted else _STREETS.get(street, street)}"
    return f"{whole} {spaced(side)}" if side else whole


_Rules = list[tuple[str, Callable[[re.Match[str]], str] | str]]
_rules: _Rules = [
    # Scores
    (rf"(?i)\b(?:{_SCORED})(?: [a-z']{{1,20}}){{0,3}} {_SET}(?:(?:, and|,| and) {_SET}){{0,6}}"
     r"(?=[.,!?;:)]|$| (?:on|in|at|to|against|last|over|yesterday|today|and|after|with|this|for)\b)", _score),
    (r"(?i)\b(?:record|went|finished|started)(?: is| was| of)? \d{1,3}-\d{1,2}-\d{1,2}(?![\w-])", _score),
    (rf"(?<![\w.,-])\d{{1,3}}-\d{{1,3}}(?= (?:{_RESULT})\b)", _score),
    (r"\b([Ww]hat(?: is|'s)) (\d{1,6})-(\d{1,6})(?=\?)", r"\1 \2 minus \3"),
    # Models
    (r"(?<!pages )(?<!\bpp\. )(?<![\w.,-])()(7[0-8]7)-([1-9]\d{0,2})()(?![\w-])", _model),
    (r"(?<![\w.-])([A-Za-z]{1,4})(\d{1,4})-(\d{3,4})([A-Z]{1,3})?(?![\w-])", _model),
    (r"(?<![\w.-])([A-Za-z]{1,3}-?|(?=7[0-8]7s))(\d{1,3})s(?![\w'])", _plurals),
    (r"(?<![\w.-])([A-Z][A-Za-z]{0,14})-([1-9]\d\d)(?![\w-]|[.,]\d)", lambda m: f"{m[1]} {pairs(m[2])}"),
    (r"(?<![\w.#-])([A-Z]{1,3})([1-9]\d\d)(?![\w-]|[.,]\d)", lambda m: f"{m[1]} {pairs(m[2])}"),
    (rf"\b({_MAKERS}) ([1-9]\d{{2,3}})(?![\d-]|[.,]\d)", lambda m: f"{m[1]} {pairs(m[2])}"),
    (r"(?<![\w.,])802\.11(?=[a-z]{0,2}\b)", "eight oh two point eleven "),
    (rf"(?<![\w.,:/$£€¥+-])(\d{{1,3}})-(\d{{1,3}})(?![\w%°/-]|[.,:]\d| ?(?:{ANY_UNIT}|{_AFTER_RANGE})\b)",
     _falling),
    # Addresses
    (rf"(?<![\w.,$-])(\d{{1,4}})([A-Z])? ((?:[NSEW]\.? )?(?:(?:[A-Z][a-z]{{1,20}}|\d{{1,3}}(?:st|nd|rd|th)) ){{1,2}})"
     rf"({_STREET})(?!\w)(?: (NE|NW|SE|SW)\b)?", _address),
    (r"\b([A-Z][a-z]{2,20}, )([A-Z]{2})(?: (\d{5}))?(?=[\s.,;:!?)]|$)", _place),
    (r"(?<![\w.-])()([A-Z]{2}) (\d{5})(?=[\s.,;:!?)]|$)", _place),
    # Said digit by digit: bank accounts, cards, telephones in pairs
    (r"\b([A-Z]{2}\d\d)((?: ?[A-Z\d]{4}){3,7})( ?\d{1,3})?\b(?=[^\w-]|$)(?<=\d)",
     lambda m: ", ".join(spaced(part) for part in re.findall(".{1,4}", m[0].replace(" ", "")))),
    (r"(?<![\w.,])\d{4}(?:[ -]\d{4}){3}(?![\w-])", lambda m: ", ".join(map(spaced, re.split("[ -]", m[0])))),
    (r"(?<![\w.,+])0\d(?: \d\d){4}(?![\w-])", lambda m: ", ".join(map(spaced, m[0].split()))),
    (r"(?<![\w.,/])(0\d{1,4})/(\d{4,8})(?![\w/])", lambda m: f"{spaced(m[1])}, {spaced(m[2])}"),
    (r"(?<![\w.,-])1-(8\d\d)-([A-Z][A-Z-]{2,9})\b", lambda m: f"one {pairs(m[1])} {m[2].replace('-', ' ')}"),
    (r"\b(CO)\b(?!\.)", "C O"),
    (r"(?i)\b((?:call|dial|phone|ring|text)(?:s|ed|led|ing|ling)?) (\d{3,6})"
     r"(?=[.,!?;:\"')]|$| (?:now|if|for|and|or|at|from|when|immediately|right|straight|first|again)\b)",
     lambda m: f"{m[1]} {spaced(m[2])}"),
    (r"(?i)\b((?:PIN|(?:pass|area|zip|post|security|access)?[ -]?code|password|extension|ext\.?|serial number|"
     r"account number)"
     r"(?: is| was| number)?:? )(\d{3,12})(?![\d.,:/-]*\d)", lambda m: f"{m[1]}{spaced(m[2])}"),
    (r"\b([Ff]light [A-Z]{2}) ?(\d{2,4})\b", lambda m: f"{m[1]} {spaced(m[2])}"),
    (r"\b([Rr]oom|[Ff]light|[Ss]uite) ([1-9]\d\d)\b(?![.,]\d)", lambda m: f"{m[1]} {pairs(m[2])}"),
]  # fmt: skip
RULES = [(re.compile(pattern), function) for pattern, function in _rules]

"""Turns everything in English text that is written with digits into words: counts, money, dates, times, units, phones.

The input is ASCII plus the currency and degree signs that `llasa.text.normalise` leaves in, and "^2" for a raised 2.
Abbreviations other than months and units are left to that module. Number words come from num2words. Dates written only
in digits are read in American order ("3/4/2021" is March fourth).

Each rule is a pattern anchored to a digit and a function of its match. The rules run once each, in order, from the most
specific (a date) to the most general (any remaining digits). A function that finds nonsense (month 13) returns the
match unchanged for a later rule. From any start a pattern can match in only a few ways, so time is linear in the length
of the text.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from num2words import num2words

from llasa.text.units import ANY_PER, ANY_UNIT, ATTACHED, COUNTRIES, CURRENCIES, CURRENCY, PER, SCALES, SIGNS, UNITS

INTEGER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
NUMBER = rf"(?:{INTEGER}(?:\.\d+)?|\.\d+)"
START = r"(?<!\d)(?<!\d[.,])"  # a pattern is tried once a number instead of once a digit, which would be quadratic
MOST_DIGITS = 15  # longer integers are read digit by digit

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December")  # fmt: skip
MONTH_NUMBERS = {name[:length].lower(): i for i, name in enumerate(MONTHS, 1) for length in (3, 4, len(name))}
# Capitalised only: "may 3 of us" and "march 4 miles" are not dates.
_written = sorted({m[:n] for m in MONTHS for n in (3, len(m))} | {"Sept"}, key=len, reverse=True)
# The stop of a short form belongs to it, that of a whole name ends the sentence.
MONTH = (
    rf"\b({'|'.join([*_written, *(m.upper() for m in _written)])})\b"
    r"(?:(?:(?<=\b[A-Za-z]{3})(?<!May)(?<!MAY)|(?<=\bSept)|(?<=\bSEPT))\.)?"
)
WEEKDAYS = {"Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday",
            "Thur": "Thursday", "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday"}  # fmt: skip
# Read like this only before a number.
LABELS = {"no": "number", "nos": "numbers", "p": "page", "pp": "pages", "vol": "volume", "ch": "chapter",
          "fig": "figure", "sec": "section", "approx": "approximately", "ca": "about", "c": "about",
          "apt": "apartment", "ste": "suite", "rte": "route", "rt": "route", "eq": "equation",
          "yr": "year"}  # fmt: skip

PARTS = {2: ("half", "halves"), 4: ("quarter", "quarters")}


def speak_numbers(text: str) -> str:
    """Replaces everything that holds a digit by words. The result may have surplus spaces."""
    for pattern, function in RULES:
        text = pattern.sub(function, text)
    return text


@lru_cache(maxsize=8192)
def _words(number: int, form: str = "cardinal") -> str:
    """num2words without its commas and hyphens: single words, as a pronouncing lexicon lists them."""
    return num2words(number, to=form).replace(",", "").replace("-", " ")


def _digits(text: str) -> str:
    return " ".join(DIGITS[int(c)] for c in text if c.isdigit())


def _groups(match: re.Match[str]) -> str:
    """Digit by digit, with a comma where the writer left a gap: telephone numbers, codes."""
    plus = " plus " if match[0].startswith("+") else " "
    return plus + ", ".join(_digits(group) for group in re.findall(r"\d+", match[0])) + " "


def cardinal(text: str) -> str:
    """An integer or decimal as written, with or without thousands separators, in words."""
    whole, _, decimals = text.replace(",", "").partition(".")
    if len(whole) > MOST_DIGITS or (len(whole) > 1 and whole[0] == "0"):
        words = _digits(whole)
    else:
        words = _words(int(whole or "0"))
    return f"{words} point {_digits(decimals)}" if decimals else words


def _year(text: str) -> str:
    """Four digits, read as a year; English reads most bare counts of four digits alike ("fifteen hundred")."""
    return _words(int(text), "year") if 1100 <= int(text) <= 2099 else cardinal(text)


def pairs(digits: str) -> str:
    """Three or four digits as two numbers, in words: "ten eighty", "seven twenty", "sixteen hundred"."""
    if digits.endswith("00"):
        hundreds = len(digits) == 4 and digits[1] != "0"
        return f"{_words(int(digits[:2]))} hundred" if hundreds else _words(int(digits))
    last = int(digits[-2:])
    return f"{_words(int(digits[:-2]))} {'oh ' if last < 10 else ''}{_words(last)}"


def ordinal(text: str) -> str:
    """The ordinal of an integer, as written, in words."""
    text = text.replace(",", "")
    return _words(int(text), "ordinal") if len(text) <= MOST_DIGITS else f"{_digits(text)}th"


def plural(words: str) -> str:
    """The plural of a number in words: "twenties", "sixes"."""
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}es" if words.endswith("x") else f"{words}s"


def spaced(digits: str) -> str:
    """The characters with spaces between them, so that each is read alone."""
    return " ".join(digits)


def _date(month: str, day: str, year: str | None) -> str | None:
    """A date in words, or None if there is no such day."""
    number = int(month) if month.isdigit() else MONTH_NUMBERS[month.lower()]
    if not (1 <= number <= 12 and 1 <= int(day) <= 31):
        return None
    if year and len(year) == 2:
        year = f"{'20' if int(year) < 50 else '19'}{year}"
    return f"{MONTHS[number - 1]} {_words(int(day), 'ordinal')}" + (f", {_year(year)}" if year else "")


def _iso_date(match: re.Match[str]) -> str:
    words = _date(match[2], match[3], match[1])
    return f" {words}, " if words and match[4] else f" {words} " if words else match[0]


def _slash_date(match: re.Match[str]) -> str:
    words = _date(match[1], match[2], match[3]) or _date(match[2], match[1], match[3])
    return f" {words} " if words else match[0]


def _dot_date(match: re.Match[str]) -> str:
    words = _date(match[2], match[1], match[3])
    return f" {words} " if words else match[0]


def _month_day(match: re.Match[str]) -> str:
    month, day, last, year = match.groups()
    words = _date(month, day, None)
    if not words or (last and not 1 <= int(last) <= 31):
        return match[0]
    words += f" to {_words(int(last), 'ordinal')}" if last else ""
    return f" {words}" + (f", {_year(year)} " if year else " ")


def _day_month(match: re.Match[str]) -> str:
    day, month, year = match.groups()
    if not 1 <= int(day) <= 31:
        return match[0]
    words = f" the {_words(int(day), 'ordinal')} of {MONTHS[MONTH_NUMBERS[month.lower()] - 1]} "
    return words + (f"{_year(year)} " if year else "")


def _short_phone(match: re.Match[str]) -> str:
    # Round numbers on both sides mean a range.
    return match[0] if match[1].endswith("0") and match[2].endswith("0") else _groups(match)


def _world_phone(match: re.Match[str]) -> str:
    return _groups(match) if sum(c.isdigit() for c in match[0]) >= 8 else match[0]


def _time(match: re.Match[str]) -> str:
    hour, mark, minute, second, half = match.groups()
    last = hour == "24" and minute == "00" and not half
    if (int(hour) > 23 and not last) or not (half or mark == ":") or (minute and int(minute) > 59):
        return match[0]
    words = [_words(int(hour))]
    if hour == "00" and int(minute or 0) and not half:
        words, half = ["twelve"], "am"
    if minute and int(minute):
        words.append(("oh " if int(minute) < 10 else "") + _words(int(minute)))
    elif not half:
        words = ["midnight"] if last or not int(hour) else [*words, "o'clock" if int(hour) <= 12 else "hundred"]
    if second:
        words.append(f"and {_words(int(second))} {'second' if int(second) == 1 else 'seconds'}")
    if half:
        words.append(" ".join(half.upper()))
    return f" {' '.join(words)} "


def _amount(amount: str, sign: str, place: str = "") -> str:
    """An amount of money in words, two decimals as cents. `place` is the currency's country."""
    one, many, cent, cents = CURRENCIES[sign]
    whole, _, decimals = amount.partition(".")
    if not cent or len(decimals) != 2:
        return f"{cardinal(amount)} {place}{one if amount == '1' else many}"
    parts = []
    if whole.strip("0") or not int(decimals):
        parts.append(f"{cardinal(whole)} {place}{one if whole == '1' else many}")
    if int(decimals):
        parts.append(f"{_words(int(decimals))} {cent if decimals == '01' else cents}")
    return " and ".join(parts)


def _money(match: re.Match[str]) -> str:
    country, sign, amount, last, scale, unit, per = match.groups()
    single = _is_single(match)
    many = CURRENCIES[sign][not single]
    place = f"{COUNTRIES[country]} " if country else ""
    tail = f" per {PER[unit]} " if unit else " per " if per else " "
    if last or scale:
        words = cardinal(amount) + (f" to {cardinal(last)}" if last else "")
        return f" {words} {SCALES.get(scale.lower(), scale.lower()) + ' ' if scale else ''}{place}{many}{tail}"
    if single and "." not in amount:
        return f" {cardinal(amount)} {place}{many}{tail}"
    return f" {_amount(amount, sign, place)}{tail}"


def _money_after(match: re.Match[str]) -> str:
    amount, scale, sign = match.groups()
    single = _is_single(match)
    if scale or (single and "." not in amount):
        size = SCALES.get(scale.lower(), scale.lower()) if scale else ""
        return f" {cardinal(amount)} {size} {CURRENCIES[sign][not single]} "
    return f" {_amount(amount, sign)} "


def _is_single(match: re.Match[str]) -> bool:
    """Whether an amount says what kind of thing follows, as in "a $20 bill", "a $5-a-day habit", "an 8 oz steak"."""
    before = _ARTICLE.search(match.string, max(0, match.start() - 8), match.start())
    return bool(_GOES_ON.match(match.string, match.end()) and (before or match.string[match.end()] == "-"))


def _unit(match: re.Match[str]) -> str:
    amount, gap, unit, below, per = match.groups()
    # "a 10-km run" and "a 10 km run" are a ten kilometre run.
    whole = gap != "-" and not (
        _ARTICLE.search(match.string, max(0, match.start() - 8), match.start())
        or _THING.match(match.string, match.end())
    )
    name = UNITS[unit][amount != "1" and whole]
    return f" {cardinal(amount)} {name}{f' per {PER[below]} ' if below else ' per ' if per else ' '}"


def _attached(match: re.Match[str]) -> str:
    return f" {cardinal(match[1])} {ATTACHED[match[2]][match[1] != '1']} "


def _decade(match: re.Match[str]) -> str:
    digits = match[1]
    if not digits.endswith("0") or int(digits) < 20 or (len(digits) == 4 and not 1100 <= int(digits) <= 2099):
        return match[0]
    return f" {plural(_year(digits) if len(digits) == 4 else _words(int(digits)))} "


def _fraction(match: re.Match[str]) -> str:
    whole, top, bottom, unit = match.groups()
    after = f"{UNITS[unit][1]} " if unit else ""
    if int(bottom) in PARTS:
        one, many = PARTS[int(bottom)]
    elif 3 <= int(bottom) <= 20 or int(bottom) in (100, 1000):
        one = _words(int(bottom), "ordinal").removeprefix("one ")
        many = f"{one}s"
    elif unit in ("s", "sec") and top == "1" and not whole:
        one = _words(int(bottom), "ordinal")
    else:
        return f" {cardinal(whole) + ' and ' if whole else ''}{cardinal(top)} over {cardinal(bottom)} {after}"
    if whole:
        count = ("an" if one[0] in "aeiou" else "a") if top == "1" else cardinal(top)
        return f" {cardinal(whole)} and {count} {one if top == '1' else many} {after}"
    after = f"of a{'n' * (UNITS[unit][0][0] in 'aeiouh')} {UNITS[unit][0]} " if unit else ""
    return f" {cardinal(top)} {one if top == '1' else many} {after}"


def _power(match: re.Match[str]) -> str:
    raised, unit = match.groups()
    words = {"2": "squared", "3": "cubed"}.get(raised, f"to the power of {raised.replace('-', 'minus ')}")
    return f" {words} {UNITS[unit][1] if unit else ''} "


def _version(match: re.Match[str]) -> str:
    parts = match[0].split(".")
    if len(parts) == 4:  # an internet address
        return f" {' dot '.join(map(_digits, parts))} "
    return f" {' point '.join(map(cardinal, parts))} "


def _plain(match: re.Match[str]) -> str:
    digits, possessive = match.groups()
    year = len(digits) == 4 and digits.isdigit() and digits[0] != "0"
    return f" {_year(digits) if year else cardinal(digits)}{possessive or ''} "


_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:,? (\d{4})(?![\d,.:/-]*\d))?"
_SCALE = "thousand|million|billion|trillion|mn|bn|tn|k|m|b|t"
_parted = "km|m|s|sec|cm|mm|mi|ft|yd|kg|g|lbs?|oz|l|L|ml|mL|hr?|gal|mmHg|tsp|tbsp|qt|yr|min"
_ARTICLE = re.compile(r"\b(?:[Aa]n?|[Aa]nother) $")
_GOES_ON = re.compile(r" [a-z]|-[a-z]")
# A unit before one of these is part of its name: "two 60W bulbs", "the 50 mm lens".
_THING = re.compile(
    r" (?:"
    r"adapter|amp|amplifier|antenna|baby|bag|band|barrel|battery|batteries|belt|board|bottle|box|boy|"
    r"bulb|cable|camera|capacitor|card|charger|circuit|connection|cord|dash|disk|display|dog|"
    r"drive|engine|film|fish|font|freestyle|fuse|girl|gun|heater|hose|hurdles|iron|jar|lamp|LED|lens|"
    r"light|line|link|man|microwave|module|monitor|motor|nail|outlet|pack|panel|pipe|pistol|"
    r"plank|plug|processor|race|radio|relay|resistor|rope|run|scope|screen|screw|sensor|"
    r"socket|speaker|sprint|steak|supply|swim|tank|tape|telescope|transformer|tube|tyre|tire|"
    r"walk|wheel|wire|woman)s?\b"
)
_RANGE_UNIT = r"(?:\s?(?:%|°[CF]?|[ap]m\b|[AP]M\b|k[mg]\b|c?m\b))?"

_Rule = tuple[str, Callable[[re.Match[str]], str] | str]
_rules: list[_Rule] = [
    # Dates
    (r"(?<![\w/.-])(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?:(T)(?=\d)|(?![\w/-]))", _iso_date),
    (r"(?<![\w/.-])(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?![\w/-])", _slash_date),
    (r"(?<![\w/.-])(\d{1,2})\.(\d{1,2})\.(\d{4})(?![\w-]|\.\d)", _dot_date),
    (rf"\b({'|'.join(WEEKDAYS)})\b\.?(,? )(?=\d|{MONTH})", lambda m: WEEKDAYS[m[1]] + m[2]),
    (rf"{MONTH} {_DAY}(?![\w:%]|[.,]\d)(?: ?- ?{_DAY}(?!\w))?{_YEAR}", _month_day),
    (rf"(?<![\w.,/:-])(?:[Tt]he )?{_DAY}(?: of)? {MONTH}{_YEAR}", _day_month),
    (rf"{MONTH} (?=\d{{4}}(?!\d))", lambda m: f"{MONTHS[MONTH_NUMBERS[m[1].lower()] - 1]} "),
    # Telephone numbers and other codes
    (r"(?<![\w.,])\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,5}(?!\d)", _world_phone),
    (r"(?<![\w.,-])(?:1[ .-])?(?:\(\d{3}\) ?\d{3}[ .-]|\d{3}[ .-]\d{3}[.-])\d{4}(?![\w-])", _groups),
    (r"(?<![\w.,-])(?:\(0\d{1,4}\) ?|0\d{2,4}[ -])\d{3,4}[ -]?\d{3,4}(?![\w-])", _groups),
    (r"(?<![\w.,-])(\d{3})-(\d{4})(?![\w-])", _short_phone),
    (r"(?<![\w-])\d+(?:-\d+){2,}(?![\w-])", _groups),
    # Signs and labels before or between numbers
    (rf"(?i:\b({'|'.join(LABELS)})\. ?(?=\d))", lambda m: f"{LABELS[m[1].lower()]} "),
    (r"# ?(?=\d)", " number "),
    (rf"~ ?(?=[{SIGNS}]?\d)", " about "),
    (rf">= ?(?=-?[{SIGNS}]?\d)", " at least "),
    (rf"<= ?(?=-?[{SIGNS}]?\d)", " at most "),
    (rf"> ?(?=-?[{SIGNS}]?\d)", " greater than "),
    (rf"< ?(?=-?[{SIGNS}]?\d)", " less than "),
    (r"(?<=\d) ?\* ?(?=\d)", " times "),
    (r"(?<=\d)(?<!\b0)(?:x| x )(?=\d)", " by "),
    (rf"(\d{_RANGE_UNIT})(?: - |-)(?=[{SIGNS}]?\d)", r"\1 to "),
    (rf"(?<![\w)%^-])-(?=[{SIGNS}]?\.?\d)", " minus "),
    # Times and ratios
    (r"(?<![\d:.,])(\d{1,2})(?:([:.])(\d\d)(?::([0-5]\d))?)?(?: ?([ap]m|[AP]M)\b)?(?![\d:]|,\d{3})", _time),
    (r"(?<=\d):(?=\d)", " to "),
    # Money
    (rf"(?:\b(US|AU|CA|HK|NZ|A|C))?({CURRENCY}) ?({NUMBER})(?: to ({NUMBER}))?"
     rf"(?: ?(?i:({_SCALE}))(?![A-Za-z0-9]))?(?:/({ANY_PER})(?![\w^/])|(/(?=[A-Za-z])))?", _money),
    (rf"{START}({NUMBER})(?: ?(?i:({_SCALE})))? ?({CURRENCY})", _money_after),
    # Numbers with something after them
    (rf"(?<=\d)\^(-?\d+(?:\.\d+)?)(?: ({ANY_UNIT})(?![A-Za-z0-9^/]))?", _power),
    (rf"{START}({INTEGER})(?i:st|nd|rd|th)(?![A-Za-z0-9])", lambda m: f" {ordinal(m[1])} "),
    (rf"(?<![\d/.,])(?:(\d{{1,3}}) )?(\d{{1,4}})/(\d{{1,4}})(?![\d/])(?: ?({_parted})(?![\w/^]))?", _fraction),
    (r"""(?<![\w.,])(\d{1,2})'(\d{1,2})(?:"|'')?(?!\w)""", r" \1 foot \2 "),
    (r"(?<![\w.,])'?(\d{4}|\d\d)'?s(?![A-Za-z0-9])", _decade),
    (rf"{START}({NUMBER})([ -]?)({ANY_UNIT})"
     rf"(?:/({ANY_PER})(?![\w^/])|(/)(?=[A-Za-z])|(?![A-Za-z0-9^])(?:\.(?= [a-z]))?)", _unit),
    (rf"{START}({NUMBER})({'|'.join(ATTACHED)})(?![A-Za-z0-9])", _attached),
    (r"\^(-?\d+(?:\.\d+)?)()", _power),
    # Whatever is left
    (r"(?<=[A-Za-z])\.(?=\d)", " point "),
    (r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", " "),
    (rf"{START}\d+(?:\.\d+){{2,}}", _version),
    (rf"({NUMBER})('s(?![A-Za-z]))?", _plain),
]  # fmt: skip
RULES = [(re.compile(pattern), function) for pattern, function in _rules]

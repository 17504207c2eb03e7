"""Turns English text as people write it into words that can be read aloud.

This module handles spelling, abbreviations, symbols and punctuation; `llasa.text.numbers` handles everything with
digits, and `llasa.text.lexicon` pronunciation. The rules are heuristics: what is ambiguous on paper ("St.", "US",
"3/4") is read in the more common way. Every pattern is bounded or anchored, so time is linear in the length of the
text.
"""

import re
import unicodedata
from itertools import groupby, pairwise

from llasa.text.lexicon import is_sound
from llasa.text.marks import open_items
from llasa.text.notation import rewrite, roman, spell_names, spell_signs, unescape
from llasa.text.numbers import ordinal, spaced, speak_numbers
from llasa.text.shorthand import spell_pronouns
from llasa.text.units import CURRENCIES, SIGNS

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
       "№": "No. ", "π": " pi ", "√": " square root of ", "Ω": "ohm", "\u2126": "ohm",
       "µ": "micro", "μ": "micro", "‰": " per mille ",
       "→": "->"}
)  # fmt: skip
_VULGAR = re.compile("([¼½¾⅐-⅞])")
_ELLIPSIS = "\x01"  # stands for three dots until the words around them are done
_OUTSIDE = re.compile(f"[^\n -~\x01{SIGNS}¢°§]+")

# --- Dots inside words, and addresses ---

_ENDINGS = (
    "com|org|net|edu|gov|info|io|co|uk|de|fr|nl|eu|ai|tv|app|dev|txt|pdf|html|csv|json|jpg|png|zip|docx|py|js|md|jpeg|gif|"
    "svg|webp|mp3|mp4|wav|flac|ogg|avi|mkv|mov|xls|xlsx|doc|ppt|pptx|odt|rtf|epub|tex|bib|css|xml|yaml|yml|toml|ini|cfg|log|"
    "sql|java|cpp|rs|ts|tsx|jsx|rb|kt|lua|vue|lock|git|conf|bak|tmp|ipynb|sh|bat|exe|dll|iso|apk|dmg|tar|gz|bz2|xz|rar|jar|php"
)
_SPELLED_ENDINGS = {
    "uk", "de", "fr", "nl", "eu", "ai", "tv", "io", "pdf", "html", "csv", "jpg", "png", "py", "js", "md", "svg",
    "rs", "ts", "tsx", "jsx", "rb", "kt",
    "mp", "xls", "xlsx", "ppt", "pptx", "odt", "rtf", "css", "xml", "sql", "cpp", "sh", "dll", "apk", "dmg", "gz", "bz",
    "xz", "php", "avi",
}  # fmt: skip
NARROW, SHARE = 60, 0.75  # characters that text is wrapped at, at least; the share that a short line fills at most
_PATH = r"[^\s\"<>()]"
_ADDRESSES = [
    re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z\d-]{1,63}(?:\.[A-Za-z\d-]{1,63}){1,8}"),
    re.compile(rf"\b(?:https?://|ftp://|www\.){_PATH}+", re.I),
    re.compile(r"(?<![^\s\"'(])(?:(?:~|\.{1,2})(?:/[\w.-]{1,60}){1,12}|(?:/[\w.-]{1,60}){2,12})"),
    re.compile(r"(?<![^\s\"'(])[A-Z]:(?:\\[\w.-]{1,60}){1,12}"),
    re.compile(rf"(?<![\w.@-])(?:[\w-]{{1,63}}\.){{1,5}}(?:{_ENDINGS})(?![\w-])(?:[/?#]{_PATH}*)?", re.I),
]
_MARKS = {".": "dot", "-": "dash", "_": "underscore", "/": "slash", "?": "question mark", "=": "equals", "&": "and",
          "#": "hash", ":": "colon", "%": "percent", "~": "tilde", "+": "plus", "@": "at",
          "\\": "backslash"}  # fmt: skip
_HALF_DAY = re.compile(r"(?<=\d) ?([AaPp])\.\s?[Mm]\b(\.?)")
_DOTTED = re.compile(r"(?<![\w'.-])(?!e\.g|i\.e)(?:[A-Za-z]\.)+[A-Za-z](?![A-Za-z])(\.?)", re.I)

# --- Symbols, after all digits are gone ---

_SYMBOLS = [
    (re.compile(pattern), words)
    for pattern, words in [
        (r"\b([Aa])nd/or\b", r"\1nd or"), (r"\bw/o(?:ut)?\b ?", "without "),
        (r"\bw/(?=[ \w])", "with "), (r"(?<=[a-z])\(s\)", "s"), (r"[(){}\[\]|]", " , "),
        (r"\bAT&T\b", "A T and T"), (r"&", " and "), (r"@", " at "),
        (r"#(?=[A-Za-z])", " hashtag "), (r"%", " percent "), (r"\+", " plus "), (r"=", " equals "),
        (r"\s+/\s+", " , "), (r"(?<=[a-z]{2})/(?=[a-z]{2})", " "), (r"(?<=[A-Za-z]) ?/ ?(?=[A-Za-z])", " slash "),
        (r"°", " degrees "), (r"§", " section "),
        *((re.escape(sign), f" {CURRENCIES[sign][1]} ") for sign in SIGNS), (r"¢", " cents "),
        (r"--+|(?<=\s)-(?=\s)", " , "), (r"[^A-Za-z'\x01,.?!;:-]+", " "),
    ]
]  # fmt: skip

# --- Words ---

# Words that open a sentence: they tell "in the U.S. He left" from "the U.S. Army".
OPENING = re.compile(
    r"\s+[\"'“‘(\[]?(?:The|This|That|These|Those|An?|He|She|It|We|They|You|I|His|Her|Its|Our|Their|My|Your|But|And|So|Then|"
    r"There|Here|When|While|If|In|On|At|For|As|After|Before|However|What|Who|Why|How|Where|Yes|No|Not|Now|All|Some|"
    r"Many|Most|To|From|With|By)(?![\w.'])"
)
# These stand before a name, so their full stop never ends a sentence.
TITLES = {"Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Messrs": "Messieurs", "Dr": "Doctor", "Prof": "Professor",
           "Rev": "Reverend", "Gen": "General", "Col": "Colonel", "Capt": "Captain", "Lt": "Lieutenant",
           "Sgt": "Sergeant", "Cmdr": "Commander", "Gov": "Governor", "Sen": "Senator", "Rep": "Representative",
           "Hon": "Honorable", "Mt": "Mount", "Ft": "Fort", "vs": "versus", "cf": "compare", "Mx": "Mix",
           "Drs": "Doctors"}  # fmt: skip
# Matched as written here or in capitals; those written in small letters match in any case.
_ABBREVIATIONS = {
    "jr": "Junior", "sr": "Senior", "ave": "Avenue", "blvd": "Boulevard", "rd": "Road", "hwy": "Highway",
    "etc": "et cetera", "approx": "approximately", "dept": "department", "est": "established", "inc": "Incorporated",
    "ltd": "Limited", "Co": "Company", "corp": "Corporation", "Bros": "Brothers", "Assn": "Association",
    "univ": "University", "govt": "government", "PhD": "P H D", "viz": "namely", "al": "al", "esp": "especially",
    "st": "Street", "misc": "miscellaneous", "Vol": "Volume", "Ch": "Chapter", "Fig": "Figure", "appt": "appointment",
    "Pl": "Place", "Ct": "Court", "Ln": "Lane", "tel": "telephone", "ext": "extension", "Jan": "January",
    "Feb": "February", "Apr": "April", "Aug": "August", "Sept": "September", "Oct": "October", "Nov": "November",
    "Dec": "December", "Esq": "Esquire",
}  # fmt: skip
_ABBREVIATED = re.compile(r"\b([A-Za-z]+)\.(?= |$)")
# "Elm St. Nearby" is a street, "Old St. Paul's" and "In St. Tropez" are saints.
_BEFORE_SAINT = {"In", "At", "Of", "The", "To", "From", "Near", "Old", "And", "By", "For", "On", "Our", "Lake", "Mount"}
_SAINTS = {
    "Albans", "Andrew", "Anne", "Anthony", "Augustine", "Barts", "Bernard", "Catherine", "Clair", "Croix", "Denis",
    "Francis", "George", "Helena", "Helens", "Ives", "James", "Joan", "John", "Joseph", "Kitts", "Lawrence", "Louis",
    "Lucia", "Luke", "Mark", "Martin", "Mary", "Matthew", "Michael", "Moritz", "Nicholas", "Pancras", "Patrick", "Paul",
    "Peter", "Petersburg", "Stephen", "Thomas", "Tropez", "Vincent",
}  # fmt: skip
_LOWER_TITLES = {"mr", "mrs", "ms", "messrs", "dr", "prof", "sgt", "capt", "cmdr"}  # no words of their own
_UNDOTTED = re.compile(r"\b(?:(Mr|Mrs|Ms|Dr|Prof)(?= [A-Z])|(mr|mrs|dr)(?= [a-z])|(PhD|vs|etc)(?![\w'.-]))")

_NUMBERED = ("Chapter|Part|Book|Volume|Act|Scene|Section|Article|Phase|Appendix|Figure|Table|Title|Canto|Stage|Level|"
             "Type|World War|Super Bowl")  # fmt: skip
_RULERS = ("Alexander|Benedict|Catherine|Charles|Christian|Clement|Edward|Elizabeth|Ferdinand|Francis|Frederick|George|"
           "Gregory|Gustav|Henry|Innocent|Ivan|James|Leo|Leopold|Louis|Mary|Napoleon|Nicholas|Otto|Paul|Peter|Philip|Pius|"
           "Ptolemy|Ramesses|Richard|Urban|Victor|Wilhelm|William")  # fmt: skip
_NUMERAL = r"(M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3}))"
_ROMAN = re.compile(
    rf"\b(?i:({_NUMBERED})|({_RULERS})) (?=[MDCL]*[IVX]){_NUMERAL}(?![A-Za-z-]|'(?!s\b)| [A-Z]\b)(?=( [a-z]+)?)"
)

_INITIAL = re.compile(r"(?<![A-Za-z'-])([A-Z])\.(?= [A-Z])")
_LETTERED = {"vitamin", "plan", "grade", "option", "type", "class", "group", "team", "letter", "part", "section",
             "appendix", "figure", "exhibit", "hepatitis", "point"}  # fmt: skip
_ACRONYM = re.compile(r"(?<![A-Za-z'-])([A-Z]{2,6})('?s)?(?![A-Za-z'])")
# Spoken letter by letter although they have a vowel; acronyms without a vowel need no list.
_SPELLED = {
    "AA", "AC", "ACLU", "AD", "ADHD", "AI", "AK", "AKA", "ALS", "AM", "AMA", "AP", "API", "ATM", "ATV", "AWS", "BA",
    "BCE", "BYOB", "CE", "CEO", "CI", "CIA", "CIO", "CPU", "DIY", "DNA", "ECG", "EEG", "EKG", "EOD", "EPA", "ESPN",
    "ETA", "EU", "EUR", "EV", "FAQ", "FBI", "FY", "FYI", "GPU", "HIV", "IBM", "ICU", "ID", "IDE", "IEEE", "IMF",
    "IMHO", "IMO", "IO", "IOU", "IP", "IPO", "IQ", "IRA", "IRS", "ISP", "IVF", "LED", "MBA", "MIT", "MRI", "NBA", "NSA",
    "NYC", "NYPD", "NYSE", "OCD", "OCR", "OECD", "OMG", "OS", "PA", "PO", "RNA", "ROI", "SEO", "SOS", "TBA", "UAE",
    "UCLA", "UFO", "UHF", "UI", "UK", "UN", "UPS", "URL", "US", "USA", "USB", "USD", "USSR", "UTC", "UV", "UX", "VIP",
}  # fmt: skip
# "brb" and "html" are spelled too, whatever their case.
_VOWELLESS = re.compile(r"(?<![A-Za-z'-])[bcdfghjklmnpqrstvwxz]{2,5}(?![A-Za-z'-])")
# Names in programs: "getElementById", "DaysOfCode"; but not "YouTube".
_CAMEL = re.compile(r"(?<![A-Za-z'-])(?:[a-z]{2,20}(?:[A-Z][a-z]{1,20}){1,6}|(?:[A-Z][a-z]{1,20}){3,7})(?![A-Za-z'-])")
_ORDINAL = {"nth", "st", "nd", "rd", "th"}


def normalise(text: str) -> str:
    """Turns English text into words that can be spoken.

    Numbers, money, dates, times, units, telephone numbers, abbreviations, acronyms, addresses and symbols become words.
    Accents are folded to ASCII. Emoji, other scripts and control characters are dropped. The end of a paragraph becomes
    a full stop. Never raises.

    Returns:
        one line of letters, spaces and `' - , . ? ! ; :`. Apostrophes and hyphens stand only between letters, and a
        space follows every other mark. Normalising it again changes nothing. It is empty if there is nothing to say.
    """
    text = spell_names(_fold(spell_signs(unescape(text))))
    for pattern in _ADDRESSES:
        text = pattern.sub(_spell_address, text)
    text = _HALF_DAY.sub(lambda m: f"{m[1].lower()}m{_kept_stop(m)}", text)
    text = _DOTTED.sub(lambda m: " ".join(re.findall("[A-Z]", m[0].upper())) + _kept_stop(m), text)
    text = speak_numbers(rewrite(text))
    for pattern, words in _SYMBOLS:
        text = pattern.sub(words, text)
    # "etc., and": the comma stays, so the stop belongs to the abbreviation.
    text = re.sub(r"\b([A-Za-z]+)\.(?=,)", lambda m: expand(m[1]) or m[1], text)
    text = _tidy(text)
    text = re.sub(r"\b(?:(e\. g)|(i\. e))\b\.?", lambda m: "for example," if m[1] else "that is,", text, flags=re.I)
    text = re.sub(r"\bPh\. D\b(\.?)", lambda m: f"P H D{_kept_stop(m)}", text)
    text = _ABBREVIATED.sub(_abbreviation, text)
    text = _UNDOTTED.sub(lambda m: expand(m[0]) or m[0], text)
    text = _ROMAN.sub(_roman, text)
    text = _INITIAL.sub(lambda m: m[1] if is_initial(m.string, m.start()) else m[0], text)
    text = _ACRONYM.sub(_acronym, text)
    text = _CAMEL.sub(lambda m: " ".join(re.findall("^[a-z]+|[A-Z][a-z]+", m[0])), text)
    text = _VOWELLESS.sub(_letters, spell_pronouns(text))
    return _tidy(text)


def is_speakable(text: str) -> bool:
    """Whether the normalised text has anything to say."""
    return bool(re.search("[A-Za-z]", normalise(text)))


def _fold(text: str) -> str:
    """Folds to ASCII plus currency, degree and section signs; line ends become sentence ends or spaces."""
    text = _REMOVED.sub("", text.replace("\r\n", "\n"))
    text = _VULGAR.sub(r" \1", text).translate(_FOLDED)
    text = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", text)).replace("\u2044", "/")
    text = _OUTSIDE.sub(" ", re.sub(r"\.(?: ?\.)+(?![/\\])", _ELLIPSIS, text))
    text = re.sub(r"([-=*_~#+])\1{2,}", " ", text)  # drawn lines
    text = _end_lines(open_items(text))
    text = re.sub(r"(?:^|\n)[ \t]*[-*][ \t]+", " , ", text)  # list items
    text = re.sub(r"\n\s*\n", " . ", text)
    return re.sub(r"\s+", " ", text)


def _end_lines(text: str) -> str:
    """Ends a sentence with a short line, such as a heading or an item, if the next line opens with a capital or digit.

    Lines that were wrapped run on: one is short if the first word of the next would have found room beside it.
    """
    result: list[str] = []
    for filled, block in groupby((line.strip() for line in text.split("\n")), bool):
        lines = list(block)
        width = max(NARROW, *map(len, lines))
        result += [_ended(*both, width) for both in pairwise(lines)] if filled else lines[1:]
        result.append(lines[-1] if filled else "")
    return "\n".join(result)


def _ended(line: str, following: str, width: int) -> str:
    item = re.match(r"[-*] ", following)
    short = item or len(line) + 1 + len(following.split()[0]) <= SHARE * width
    opens = re.match(r"(?:[-*] +)?[\"'(\[]?[A-Z\d]", following)
    return f"{line}." if short and opens and re.search(r"[\w)\]\"']$", line) else line


def _spell_address(match: re.Match[str]) -> str:
    """Spells an e-mail address, web address or file name as one would dictate it."""
    address = match[0].rstrip(".,!?;:'")
    tail = match[0][len(address) :]
    address = re.sub(r":(\d{2,5})(?=/|$)", lambda m: f" port {spaced(m[1])}", address)
    words = []
    previous = ""
    for part in re.findall(r"[A-Za-z]+|\d+|[^\sA-Za-z\d]", re.sub(r"^\w+://", "", address).rstrip("/")):
        letters = part.lower() in ("www", "etc") or (previous == "." and part.lower() in _SPELLED_ENDINGS)
        words.append(" ".join(part.upper()) if letters else _MARKS.get(part, part if part.isalnum() else ""))
        previous = part
    return f" {spell_names(' '.join(words))}{tail} "


def _tidy(text: str) -> str:
    """Tidies spaces and punctuation: single marks followed by a space, none at the start, no comma at the end."""
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
    """The stop after a dotted abbreviation (the match's last group) if it also ends the sentence."""
    ends = match.end() == len(match.string) or OPENING.match(match.string, match.end())
    return match[match.re.groups] if ends else ""


def expand(word: str) -> str | None:
    for spelling in (word, word.lower(), word.capitalize() if word.isupper() or word in _LOWER_TITLES else word):
        if found := TITLES.get(spelling) or _ABBREVIATIONS.get(spelling):
            return found
    return None


def _abbreviation(match: re.Match[str]) -> str:
    text, word = match.string, match[1]
    words = expand(word)
    if not words:
        return match[0]
    at_end = match.end() == len(text)
    capital = text[match.end() + 1 : match.end() + 2].isupper()
    opening = bool(OPENING.match(text, match.end()))
    after_name = word_before(text, match.start())[:1].isupper()
    if words == "Street" and capital and not opening:
        saint = re.match(r"\s[A-Z][a-z]+", text[match.end() : match.end() + 20])
        named = (
            after_name
            and word_before(text, match.start()) not in _BEFORE_SAINT
            and not (saint and saint[0][1:] in _SAINTS)
        )
        return "Street." if named else "Saint"
    if words == "Doctor" and after_name and (opening or not capital):
        words = "Drive"
    elif word.capitalize() in TITLES or word in TITLES:
        return words + ("." if at_end else "")
    return words + ("." if at_end or opening or (words == "et cetera" and capital) else "")


def word_before(text: str, position: int) -> str:
    """The word before a position with its punctuation, within the last 40 characters."""
    return next(iter(text[max(0, position - 40) : position].split()[-1:]), "")


def is_initial(text: str, start: int) -> bool:
    """Whether the capital and stop at `start`, before another capital, are an initial, which ends no sentence."""
    before = word_before(text, start)
    after_initial = re.fullmatch(r"[A-Z]\.", before) is not None
    # A letter without a stop before it means the end of a spelled acronym, as in "on T V. Then".
    if OPENING.match(text, start + 2) or before.lower() in _LETTERED or re.fullmatch("[A-Z]", before):
        return False
    return text[start] != "I" or after_initial


def _roman(match: re.Match[str]) -> str:
    thing, ruler, numeral, following = match.groups()
    # "Chapter I." but not "the part I like": alone, a capital I is mostly the pronoun.
    certain = not following or following == " of" or (thing or "").lower() == "world war"
    if numeral == "I" and not certain and not (ruler and following in (" was", " had", " became", " died")):
        return match[0]
    total = str(roman(numeral))
    spoken = speak_numbers(total).strip() if thing else f"the {ordinal(total)}"
    return f"{thing or ruler} {spoken}"


def _acronym(match: re.Match[str]) -> str:
    word, ending = match.groups()
    if word not in _SPELLED and (re.search("[AEIOUY]", word) or is_sound(word.lower()) or word == "NTH"):
        return match[0]
    return " ".join(word) + ("'s" if ending else "")


def _letters(match: re.Match[str]) -> str:
    word = match[0]
    return word if is_sound(word) or word in _ORDINAL or expand(word) else " ".join(word.upper())

"""Reads shorthand: words of chats ("gr8", "thx"), moves of chess ("Nxf7+"), chords ("F#m7"), units without numbers, and
what labels and forms abbreviate ("5th fl.", "E. coli", "90210-1234").

The rules run with those of `llasa.text.notation`.
"""

import re
from collections.abc import Callable

from llasa.text.lexicon import is_sound
from llasa.text.numbers import MONTHS, spaced
from llasa.text.units import UNITS

_CHAT = {
    "thx": "thanks", "tnx": "thanks", "thnx": "thanks", "pls": "please", "plz": "please", "ppl": "people",
    "msg": "message", "msgs": "messages", "tmrw": "tomorrow", "tmr": "tomorrow", "gr8": "great", "l8": "late",
    "l8r": "later", "m8": "mate", "w8": "wait", "str8": "straight", "b4": "before", "2day": "today",
    "2nite": "tonight", "2moro": "tomorrow", "ur": "your", "cya": "see you",
}  # fmt: skip
# Said letter by letter although they have a vowel; words without a vowel need no list.
_SPELLED = "idk|omg|imo|imho|iirc|afaik|irl|lmao|rofl|ily|fyi|diy|faq|faqs|aka|asap|eta"
_PIECES = {"K": "king", "Q": "queen", "R": "rook", "B": "bishop", "N": "knight"}
_CHORDS = {"m": "minor", "min": "minor", "maj": "major", "M": "major", "dim": "diminished", "aug": "augmented",
           "sus": "suspended", "add": "add"}  # fmt: skip
# After an initial: "E. coli".
_SPECIES = ("afarensis|aureus|botulinum|cerevisiae|coli|difficile|elegans|erectus|falciparum|melanogaster|musculus|"
            "pylori|rex|sapiens|subtilis|thaliana|tuberculosis")  # fmt: skip
SIDES = {"N": "north", "S": "south", "E": "east", "W": "west"}
# Units that are no words, said by their names wherever they stand: "a few km".
_UNITS = "|".join(unit for unit in UNITS if re.fullmatch("[b-df-hj-np-tv-z]{2,4}", unit) and not is_sound(unit))
_END = r"(?![\w'/^-]|\.(?! [A-Z]|$))"


def _move(match: re.Match[str]) -> str:
    piece, origin, takes, place, promoted, check = match.groups()
    if not piece and not takes:
        return match[0]
    start = f"{_PIECES[piece]} " if piece else ""
    became = f" becomes a {_PIECES[promoted]}" if promoted else ""
    mark = {"+": " check", "#": " mate"}.get(check, "")
    return f"{start}{' '.join(origin).upper()} {'takes' if takes else ''} {' '.join(place).upper()}{became}{mark}"


def _chord(match: re.Match[str]) -> str:
    note, sign, kind, number, bass = match.groups()
    if not (kind or (sign and number)):
        return match[0]
    sign = {"#": " sharp", "b": " flat"}.get(sign, "")
    return f"{note}{sign} {_CHORDS.get(kind, '')} {number}{f' over {bass}' if bass else ''}"


def _unit(match: re.Match[str]) -> str:
    single = re.search(r"(?i)\b(?:per|an?|each|every|one) $", match.string[max(0, match.start() - 7) : match.start()])
    return UNITS[match[0]][not single]


_Rules = list[tuple[str, Callable[[re.Match[str]], str] | str]]
_rules: _Rules = [
    # Chats
    (rf"(?i)(?<![\w.@/'-])({'|'.join(_CHAT)})(?![\w@/'-]|\.\w)", lambda m: _CHAT[m[1].lower()]),
    (rf"(?<![\w.@/'-])({_SPELLED})(?![\w@/'-]|\.\w)", lambda m: " ".join(m[1].upper())),
    (r"(?i)\bcu(?= (?:l8r|later|soon|there|then|at|on|in|tonight|tomorrow)\b)", "see you"),
    (r"(?i)\b((?:ha){2,12}|(?:he){2,12}|(?:ho){2,12})h?\b", lambda m: re.sub("(?i)(h[aeo])(?=h)", r"\1 ", m[1])),
    # Chess
    (r"(?<![\w-])(O-O(?:-O)?|0-0-0|0-0(?= [A-Za-h]))(?![\w-])",
     lambda m: "castles long" if len(m[1]) > 3 else "castles"),
    (r"(?<![\w.-])([KQRBN])?([a-h]?[1-8]?)(x?)([a-h][1-8])(?:=([QRBN]))?([+#])?(?!\w|\.\w)", _move),
    # Music
    (r"(?<![\w-])([A-G])([#b]?)(m|min|maj|M|dim|aug|sus|add)?(\d{0,2})(?:/([A-G]))?(?![\w#/'-])", _chord),
    # Hashtags
    (r"#(\d{0,4})((?:[A-Z][a-z]{1,20}){2,8})\b",
     lambda m: f"hashtag {m[1]} {' '.join(re.findall('[A-Z][a-z]+', m[2]))}"),
    # Units
    (rf"(?<![\w.,/'&^$£€-])(?<!\d )(?<!\bsq )(?<!\bcu )(?<!\bsq\. )(?<!\bcu\. )(?:{_UNITS}){_END}(?! Hg)", _unit),
    (rf"(?<=\bin )mm{_END}", "millimetres"),
    (r"(?<=\d)( ?(?:tsp|tbsp|oz|lbs?|qts?|pts?|gal|mins?|hrs?|secs?|mi|ft|yds?))\.(?= [a-z])", r"\1"),
    (r"(?<![\w.])(\d)' (?=(?:\d|1[01])\")", r"\1'"),
    (r"(?<=\d) ?[xX] ?(?=\d{1,9} ?=)", " times "),
    # Labels and forms
    (r"\b([Cc]hap)\. ?(?=\d)", r"\1ter "),
    (r"(?<=\d[,:] )vv?\. ?(?=\d)", "verse "),
    (r"\b(My|my|The|the) no\.(?= (?:is|was)\b)", r"\1 number"),
    (r"\bFwd(?=: )", "forward"),
    (r"\bCOP(?=\d)", "cop "),
    (r"\bXbox 360\b", "Xbox three sixty"),
    # "On 3/4 of the land" is a fraction, and 9/11 is said as a name.
    (r"(?i)\b(on|by|until|till|since|before|after) (?!9/11)(1[0-2]|[1-9])/(3[01]|[12]?\d)"
     r"(?= ?[.,;:!?)]|$| (?:at|from|in|and|or|we|I|he|she|they|you|it|there|with)\b)",
     lambda m: f"{m[1]} {MONTHS[int(m[2]) - 1]} {m[3]}"),
    (r"(?<!\d )\bFr\. (?=[A-Z][a-z])", "Father "),
    (r"(?<=\d(?:st|nd|rd|th)) [Ff]l\b\.?", " floor"),
    (r"(?i)\btemps?\. (?=(?:is|was|of|in|at|fell|rose|drops?|dropped|rises|range|sensor)\b)", "temperature "),
    (r"\bK\. ?(?=\d{1,3}\b)", "K "),
    (r"\b([BM])\.? ?Sc\b\.?(?=[ ,;)]|$)", r"\1 S C"),
    (r"(?<!\S)\*(?=\d\d\b)", "star "),
    (r"(?<![\d-])(\d{5})-(\d{4})(?![\d-])", lambda m: f"{spaced(m[1])}, {spaced(m[2])}"),
    (r"(?<=\d(?:st|nd|rd|th) )c\.(?= |$)", "century"),
    (r"\b(elev|Elev)\. (?=\d)", r"\1ation "),
    (r"\b(\d{1,5}) ([NSEW])\.? (?=\d{0,3}[A-Z\d][\w']{1,20} (?:St|Ave|Blvd|Rd|Dr|Ln|Street|Avenue|Road|Lane)\b)",
     lambda m: f"{m[1]} {SIDES[m[2]].title()} "),
    (r"(?<![\d/.])(\d\.\d|10)/10(?![\d/])", r"\1 out of 10"),
    (r"(?<=[A-Z]{2})/(?=[A-Z]{2}\b)", " "),
    (r"\b802\.11([a-z]{1,2})\b", lambda m: f"8 oh 2 point 11 {spaced(m[1].upper())}"),
    (r"\b(Android|CUDA|Debian|Java|Julia|Linux|PHP|PyTorch|Python|Ruby|Rust|Ubuntu) (\d{1,2})\.(\d\d)\b(?!\.\d)",
     r"\1 \2 point \3"),
    (rf"\b([A-Z])\. (?=(?:{_SPECIES})\b)", r"\1 "),
]  # fmt: skip
RULES = [(re.compile(pattern), function) for pattern, function in _rules]

_BEFORE_YOU = ("are|do|did|can|could|will|would|should|if|when|love|miss|thank|see|for|to|with|like|need|want|hate|"
               "call|text|tell|told|have|how|what|why|where|who|that|because|but|so|about|r")  # fmt: skip
_AFTER_YOU = ("are|r|can|will|know|want|need|have|had|do|did|should|could|would|think|were|see|go|get|got|guys|too|"
              "all|look|like|said|say|mean|there|not|ok|okay|coming|going|doing|still|later|so")  # fmt: skip
_PRONOUNS = [
    (re.compile(rf"(?i)\b({_BEFORE_YOU}) u(?![\w'-])"), r"\1 you"),
    (re.compile(rf"(?<![\w'-])u(?= (?:{_AFTER_YOU})\b)"), "you"),
    (re.compile(r"(?i)\b(you|(?:we|they|how|where|what)(?= r [a-z])) r(?![\w'-])"), r"\1 are"),
    (re.compile(r"(?<![\w'-])[rR](?= you\b)"), "are"),
]


def spell_pronouns(text: str) -> str:
    """The "u" and "r" of chats as "you" and "are", where the words around them show it. The text has no digits."""
    for pattern, word in _PRONOUNS:
        text = pattern.sub(word, text)
    return text

"""Reads references to books of the Bible and their kind: "1 Cor. 13:4-7" is First Corinthians thirteen, verses ..."""

import re
from collections.abc import Callable

from llasa.text.numbers import ordinal

_BOOKS = {
    "Gen": "Genesis", "Exod": "Exodus", "Ex": "Exodus", "Lev": "Leviticus", "Num": "Numbers", "Deut": "Deuteronomy",
    "Josh": "Joshua", "Judg": "Judges", "Sam": "Samuel", "Kgs": "Kings", "Chron": "Chronicles", "Chr": "Chronicles",
    "Neh": "Nehemiah", "Ps": "Psalm", "Pss": "Psalms", "Prov": "Proverbs", "Eccl": "Ecclesiastes", "Isa": "Isaiah",
    "Jer": "Jeremiah", "Lam": "Lamentations", "Ezek": "Ezekiel", "Dan": "Daniel", "Hos": "Hosea", "Obad": "Obadiah",
    "Mic": "Micah", "Hab": "Habakkuk", "Zeph": "Zephaniah", "Hag": "Haggai", "Zech": "Zechariah", "Mal": "Malachi",
    "Matt": "Matthew", "Mt": "Matthew", "Mk": "Mark", "Lk": "Luke", "Jn": "John", "Rom": "Romans", "Cor": "Corinthians",
    "Gal": "Galatians", "Eph": "Ephesians", "Phil": "Philippians", "Col": "Colossians", "Thess": "Thessalonians",
    "Tim": "Timothy", "Heb": "Hebrews", "Jas": "James", "Pet": "Peter", "Rev": "Revelation",
}  # fmt: skip
_WHOLE = ("Job", "Ruth", "Ezra", "Esther", "Joel", "Amos", "Jonah", "Nahum", "Luke", "Acts", "Titus", "Sura", "Surah",
          "Quran", "Qur'an")  # fmt: skip
_ANY = "|".join(sorted({*_BOOKS, *_BOOKS.values(), *_WHOLE}, key=len, reverse=True))


def _reference(match: re.Match[str]) -> str:
    part, book, chapter, verse, chapter_2, last = match.groups()
    name = f"{ordinal(part).capitalize()} " if part else ""
    found = f"{name}{_BOOKS.get(book, book)} {chapter}"
    if chapter_2:
        return f"{found}, verse {verse}, to {chapter_2}, verse {last}"
    if last:
        return f"{found}, verses {verse} to {last}"
    return f"{found} {verse}" if len(verse) > 1 else f"{found}, verse {verse}"


def _verses(match: re.Match[str]) -> str:
    book, chapter, first, last = match.groups()
    if int(last) <= int(first):  # a time, as in "9:30-11"
        return match[0]
    return f"{book or 'chapter '}{chapter}, verses {first} to {last}"


_rules: list[tuple[str, Callable[[re.Match[str]], str]]] = [
    (rf"(?<![\w.:])(?:([1-3]) )?({_ANY})\.?"
     r" (\d{1,3}):([1-9]\d{0,2})(?:-(?:(\d{1,3}):)?(\d{1,3}))?(?![\w:-])", _reference),
    (r"([A-Z][a-z]{1,14}\.? )?(?<![\w:.,])(\d{1,3}):(\d{1,3})-(\d{1,3})(?![\w:])", _verses),
]  # fmt: skip
RULES = [(re.compile(pattern), function) for pattern, function in _rules]

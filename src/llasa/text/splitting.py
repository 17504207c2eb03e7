"""Cuts a text into chunks that a model can say in one go: at sentences, then at clauses, then between words."""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from llasa.text.normalise import OPENING, TITLES, expand, is_initial, normalise, word_before
from llasa.text.numbers import LABELS
from llasa.text.wording import runs

# Seconds of silence after a chunk, by what ends with it.
PARAGRAPH, SENTENCE, CLAUSE = 0.6, 0.3, 0.15
SHORT = 25  # characters; a shorter sentence has no prosody alone and is spoken together with a neighbour
TWICE = 2  # how often in a row a small model says a word or phrase reliably
_JOINING = {"and", "or", "but", "then", "nor"}  # such a word opens what follows
_BREAK = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s)|[。！？]++[\"'”’»）」』]*+")
_AFTER = re.compile(r"\s*[\"'“‘«(\[]*(\S?)")
_CLAUSE = re.compile(r"[,;:]+[\"'”’)]*\s|[，；：、]|\s(?=-+\s|[—–])")
# One or two words and a colon, such as "A:" or "Step one:", open what follows them.
_OPENER = re.compile(r"(?:^|[,;:.!?] )(?:(?:and|or) )?[^\s,;:.!?]+(?: [^\s,;:.!?]+)?:\s$")


class Chunk(NamedTuple):
    """A piece of text to speak in one go, and the seconds of silence to leave after it."""

    text: str
    pause: float


def paragraphs(text: str) -> list[str]:
    """Blocks between blank lines, without the spaces around them."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2029", "\n\n")
    return [block for block in map(str.strip, re.split(r"\n\s*\n", text)) if block]


def sentences(text: str) -> list[str]:
    """Splits text, normalised or not, into sentences, also at paragraphs. Only the space around them is lost."""
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
    """Whether the sentence that began at `start` continues after what looks like its end."""
    text, mark = match.string, match[0]
    after = _AFTER.match(text, match.end())
    following = after[1] if after else ""
    if not mark.startswith(".") or len(mark) > 1:  # "Really?" he asked. Well... perhaps.
        return following.islower()
    word = word_before(text, match.start()).lstrip("\"'“‘«([")
    if word in TITLES or word.lower() in ("e.g", "i.e") or (word.lower() in LABELS and following.isdigit()):
        return True
    if word.isdigit():  # "1. The first point"
        return match.start() - start < 10 and text[start : match.start()].strip() == word
    opening = OPENING.match(text, match.end()) is not None
    if len(word) == 1 and word.isupper():
        return following.isupper() and is_initial(text, match.start() - 1)
    if word.lower() == "etc":
        return not following.isupper()
    return not opening and (expand(word) is not None or re.fullmatch(r"(?:[A-Za-z]\.)+[A-Za-z]", word) is not None)


def chunks(text: str, limit: int = 160, clean: Callable[[str], str] = normalise) -> list[Chunk]:
    """Cuts text of any length into chunks, in order.

    It cuts at sentences, then at clauses, then between words, and inside a word only if the word is longer than the
    limit. A sentence of less than 25 characters is joined to its neighbour if both fit. Each paragraph is normalised
    first, so the limit applies to what the model reads.

    Args:
        text: raw or normalised.
        limit: the most characters in a chunk.
        clean: normalises each paragraph; `str.strip` leaves text in other languages as it is.

    Returns:
        chunks, with pauses of 0.6 s after a paragraph, 0.3 s after a sentence, 0.15 s after a clause, and none within a
        clause or after the last chunk. The list is empty if there is nothing to say.
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
    """Joins short sentences to the next one, or at the end of the paragraph to the one before."""
    result: list[str] = []
    for index, part in enumerate(parts):
        short = result and (len(result[-1]) < SHORT or (len(part) < SHORT and index == len(parts) - 1))
        if short and len(result[-1]) + 1 + len(part) <= limit:
            result[-1] += f" {part}"
        else:
            result.append(part)
    return result


def _cut(sentence: str, limit: int) -> Iterator[Chunk]:
    """Cuts a sentence into pieces of about equal length, none above the limit."""
    while len(sentence) > limit:
        ideal = len(sentence) / -(-len(sentence) // limit)
        window = sentence[: limit + 1]
        ends = (m.end() for m in _CLAUSE.finditer(window))
        clauses = [end for end in ends if end >= min(SHORT, ideal / 2) and not _OPENER.search(window[:end])]
        words = [m.start() for m in re.finditer(r"(?<=[^\s:])\s", window)]
        options = clauses or words or [limit]
        end = min(options, key=lambda position: abs(position - ideal))
        yield Chunk(sentence[:end].strip(), CLAUSE if clauses else 0.0)
        sentence = sentence[end:].strip()
    if sentence:
        yield Chunk(sentence, SENTENCE)


def part_repeats(chunk: Chunk, most: int = TWICE) -> list[Chunk]:
    """Cuts a chunk so that no part holds a word or phrase more than `most` times in a row.

    Takes begin and end with a third of a second of silence between them, which is pause enough unless a sentence ends.
    """
    words = list(re.finditer(r"\S+", chunk.text))
    spoken = [word[0].strip(",;:.!?").lower() for word in words]
    cuts = [0]
    for run in runs(spoken):
        parts = -(-run.times // most)
        done = [-(-part * run.times // parts) for part in range(1, parts)]  # equal parts, the longer ones first
        places = [run.start + count * run.size for count in done]
        # "on and on and on" is cut before an "and".
        cuts += [words[place - (run.size > 1 and spoken[place - 1] in _JOINING)].start() for place in places]
    texts = [chunk.text[start:stop].strip() for start, stop in pairwise([*cuts, len(chunk.text)])]
    pauses = [SENTENCE if text[-1] in ".!?" else 0.0 for text in texts[:-1]]
    return [Chunk(text, pause) for text, pause in zip(texts, [*pauses, chunk.pause], strict=True)]

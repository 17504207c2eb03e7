"""Reads the lists of items that a suite is made of: Seed-TTS-Eval's, ESD's, recordings in any layout, texts to say.

Whatever is wrong with a list is said before anything is spoken.
"""

import codecs
import contextlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from llasa.data.sources import find_source
from llasa.errors import LlasaError, shown
from llasa.ffmpeg import SUFFIXES
from llasa.files import absolute, is_file, is_folder, listed, read_bytes, read_text
from llasa.verifiers.whisper import is_ideographic

SEED = ("en/meta.lst", "zh/meta.lst", "zh/hardcase.lst")  # within Seed-TTS-Eval's folder
FORM = "id|prompt text|prompt audio|text"
PROMPT = 3.0  # seconds of an utterance that are its prompt, where a model continues it
CONTINUED = (4.0, 10.0)  # seconds of the utterances that are continued, as in VALL-E (arXiv 2301.02111, section 4.1)
EMOTIONS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")
PAIRS = 2  # of each speaker and emotion
_HAN = re.compile("[\u4e00-\u9fff]")
OWN_TEXTS = Path(__file__).with_name("texts.lst")


@dataclass(frozen=True)
class Item:
    """One line of a suite.

    Attributes:
        part: the table that it belongs to, such as "en".
        id: unique within its part.
        text: what is to be said, or what the recording says; empty if nobody knows.
        language: "en" or "zh".
        prompt: the file of the voice to say it in, with which the result is compared; None for the model's own voice.
        prompt_text: what the prompt says.
        recording: the file of a person who says the text; None if there is none.
        cut: seconds of the prompt that are used; 0 for all.
    """

    part: str
    id: str
    text: str
    language: str
    prompt: str | None = None
    prompt_text: str = ""
    recording: str | None = None
    cut: float = 0.0


def seed_tts(data: Path) -> list[Item]:
    """Seed-TTS-Eval's folder, or one list: `id|prompt text|prompt audio|text`, and perhaps a recording of the text.

    Paths are relative to the list. Where a line has no recording, it is `wavs/ID.wav` beside the list, if it exists.

    Raises:
        LlasaError: there is no list, or a line of one cannot be used.
    """
    if is_folder(data):
        lists = [data / name for name in SEED if is_file(data / name)] or sorted(data.glob("*.lst"))
    else:
        lists = [data]
    if not lists:
        raise LlasaError(
            f"{data} has no {', '.join(SEED)}, nor another .lst file: pass Seed-TTS-Eval's folder or a list"
        )
    items = [item for path in lists for item in _seed_list(path)]
    return _unique(items, data)


def _seed_list(path: Path) -> list[Item]:
    rows = list(_fields(path, (4, 5), FORM))
    language = _language(row[3] for _, row in rows)
    part = "hard" if "hard" in path.stem else language
    items = []
    for number, (name, prompt_text, prompt, text, *recording) in rows:
        beside = path.parent / "wavs" / f"{name}.wav"
        own = path.parent / recording[0] if recording else beside if is_file(beside) else None
        for file in (path.parent / prompt, *([own] if own else [])):
            if not is_file(file):
                raise LlasaError(f"{path}, line {number}, names {shown(file)}, which does not exist: correct the list")
        items.append(
            Item(part, name, text, language, _path(path.parent / prompt), prompt_text, _path(own) if own else None)
        )
    return items


def texts(data: Path | None) -> list[Item]:
    """Texts by category: `id|category|text`; without a list, the package's own.

    Raises:
        LlasaError: there is no such list, or a line of it cannot be used.
    """
    path = data or OWN_TEXTS
    rows = [row for _, row in _fields(path, (3,), "id|category|text")]
    # A text with foreign words in it is of the other language all the same.
    items = [Item(kind, name, text, "zh" if _HAN.search(text) else "en") for name, kind, text in rows]
    return _unique(items, path, across=True)


def esd(data: Path) -> list[Item]:
    """ESD's folder: `0011/Angry/[evaluation/]0011_000371.wav`, and `0011/0011.txt` of name, text and emotion.

    Of each speaker and emotion some utterances are prompts, and each prompt's text to say is that of the next one.
    Those in folders called `evaluation` are used, if there are any. A part is a language.

    Raises:
        LlasaError: the folder has another layout.
    """
    if not is_folder(data):
        raise LlasaError(f"there is no folder {data}: pass the folder of ESD")
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    paths = listed(data, SUFFIXES)
    paths = [path for path in paths if "evaluation" in path.parts] or paths
    for path in paths:
        place = path.relative_to(data).parts
        if len(place) >= 3 and (kind := next((part for part in place if part in EMOTIONS), None)):
            found[place[place.index(kind) - 1], kind].append(path)
    if not found:
        raise LlasaError(f"{data} has no SPEAKER/{EMOTIONS[1]}/*.wav: pass the folder of ESD")
    items = []
    for (speaker, _), clips in sorted(found.items()):
        table = next((path.parents[depth] for path in clips for depth in range(3)
                      if is_file(path.parents[depth] / f"{speaker}.txt")), None)  # fmt: skip
        if table is None:
            raise LlasaError(f"{data} has no {speaker}/{speaker}.txt, which holds the texts: copy ESD again")
        said = _esd_texts(table / f"{speaker}.txt")
        clips = [path for path in clips if path.stem in said]
        for prompt, own in list(pairwise(clips))[:PAIRS]:
            text = said[own.stem]
            language = _language([text])
            name = f"{prompt.stem}-{own.stem}"
            items.append(Item(language, name, text, language, _path(prompt), said[prompt.stem], _path(own)))
    if not items:
        raise LlasaError(f"in {data} no speaker has two utterances of an emotion with a text: copy ESD again")
    return _unique(items, data)


def _esd_texts(path: Path) -> dict[str, str]:
    """The text of each utterance, from lines of name, text and emotion.

    As it is published, ESD parts them by tabs in some speakers' files and by spaces in others, and some files are
    UTF-16 or GB 18030 (github.com/HLTSingapore/Emotional-Speech-Data/issues/1).

    Raises:
        LlasaError: the file is in none of these encodings.
    """
    content = read_bytes(path)
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "gb18030"):
        with contextlib.suppress(UnicodeDecodeError):
            lines = content.decode(encoding).splitlines()
            found = (re.fullmatch(r"(\S+)\s+(.*\S)\s+\S+", line.strip()) for line in lines)
            return {row[1]: row[2] for row in found if row}
    raise LlasaError(f"{path} is neither UTF-8, UTF-16 nor GB 18030: copy ESD again")


def recordings(data: Path) -> list[Item]:
    """Recordings in any layout that `llasa data encode` reads, each its own prompt; one part for each top folder.

    Raises:
        LlasaError: there are none, or they are packed in archives.
    """
    source = find_source(str(data))
    items = []
    for found in (item for task in source.tasks for item in task.read()):
        if found.problem or not isinstance(found.audio, Path):
            raise LlasaError(f"{data} holds recordings inside of other files: unpack them")
        if not is_file(found.audio):
            raise LlasaError(f"{data} names {shown(found.audio)}, which does not exist: correct the list")
        top = found.where.split("/")[0] if source.layout == "librispeech" and found.where.count("/") > 2 else ""
        path = _path(found.audio)
        language = "zh" if found.language == "zh" or is_ideographic(found.text) else "en"
        name = Path(found.id).stem if Path(found.id).is_absolute() else found.id
        items.append(Item(top or "all", name, found.text, language, path, found.text, path))
    return _unique(items, data)


def continued(data: Path) -> list[Item]:
    """Recordings of 4 to 10 s, whose first three seconds are the prompt.

    How many of the words these hold is told from their share of the time. A word more or less does no harm: the model
    reads prompt and text as one.

    Raises:
        LlasaError: as `recordings`; or no recording has a text and such a length.
    """
    import soundfile

    items = []
    for one in recordings(data):
        assert one.recording is not None
        seconds = soundfile.info(os.fsencode(one.recording)).duration
        words = one.text.split()
        if CONTINUED[0] <= seconds <= CONTINUED[1] and len(words) >= 2:
            count = min(len(words) - 1, max(1, round(len(words) * PROMPT / seconds)))
            said, rest = " ".join(words[:count]), " ".join(words[count:])
            items.append(Item(one.part, one.id, rest, one.language, one.prompt, said, one.recording, PROMPT))
    if not items:
        low, high = CONTINUED
        raise LlasaError(
            f"{data} has no recordings of {low:g} to {high:g} s with a text: pass LibriSpeech's test-clean"
        )
    return items


def first(items: Sequence[Item], count: int) -> list[Item]:
    """The first so many items of each part."""
    kept: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if len(kept[item.part]) < count:
            kept[item.part].append(item)
    return [item for part in kept.values() for item in part]


def _fields(path: Path, counts: Sequence[int], form: str) -> Iterable[tuple[int, list[str]]]:
    """The lines of a list with their numbers, each split at its bars.

    Raises:
        LlasaError: a line has another number of fields or an empty one, or there are no lines.
    """
    empty = True
    for number, line in enumerate(read_text(path).lstrip("\ufeff").splitlines(), 1):
        if not line.strip():
            continue
        empty = False
        row = [field.strip() for field in line.split("|")]
        if len(row) not in counts:
            other = {"\t": "tabs", ";": "semicolons", ",": "commas"}
            used = next((name for mark, name in other.items() if line.count(mark) + 1 in counts), "")
            why = f"is parted by {used}" if len(row) == 1 and used else f"has {len(row)} field{'s' * (len(row) != 1)}"
            raise LlasaError(f"{path}, line {number}, {why}: write {form}")
        if not all(row) or not any(character.isalnum() for character in row[counts[0] - 1]):
            raise LlasaError(f"{path}, line {number}, has an empty field: write {form}")
        yield number, row
    if empty:
        raise LlasaError(f"{path} is empty: write {form}, one a line")


def _unique(items: list[Item], data: Path, across: bool = False) -> list[Item]:
    """Refuses an id that comes twice in a part, or with `across` in all of them."""
    (_, name), count = Counter(("" if across else item.part, item.id) for item in items).most_common(1)[0]
    if count > 1:
        raise LlasaError(f"{data} has the id {name} {count} times: give every line its own")
    return items


def _language(texts: Iterable[str]) -> str:
    return "zh" if is_ideographic("".join(texts)) else "en"


def _path(path: Path) -> str:
    return str(absolute(path))

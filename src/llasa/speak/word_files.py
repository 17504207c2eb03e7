"""Writes the times of words to files: JSON with everything that is known, or subtitles of a word each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llasa.errors import LlasaError
from llasa.files import whole

if TYPE_CHECKING:
    from llasa.speak.word_times import Word

SUFFIXES = (".json", ".srt", ".vtt")


def check_suffix(path: Path) -> None:
    """Refuses a file for word times whose name tells no format.

    Raises:
        LlasaError: it ends in none of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise LlasaError(f"cannot tell the format of the word times {path}: end its name in {', '.join(SUFFIXES)}")


def save_words(path: Path, words: Sequence["Word"], source: str | None) -> None:
    """Writes words to a file, in the format that its name tells. The file appears whole or not at all.

    Args:
        source: what told the times (`Timer.source`); it is written to JSON.

    Raises:
        LlasaError: another suffix, or the path cannot be written.
    """
    check_suffix(path)
    if path.suffix.lower() == ".json":
        text = json.dumps({"source": source, "words": plain(words)}, ensure_ascii=False, indent=2) + "\n"
    else:
        text = subtitles(words, path.suffix.lower() == ".vtt")
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def plain(words: Sequence["Word"]) -> list[dict[str, str | float]]:
    """Words as JSON has them: times to the millisecond."""
    return [
        {"word": word, "start": round(start, 3), "end": round(end, 3), "confidence": round(confidence, 3)}
        for word, start, end, confidence in words
    ]


def subtitles(words: Sequence["Word"], vtt: bool) -> str:
    """Subtitles of a word each: WebVTT, where two characters must be escaped, or SubRip."""
    texts = [one.word.replace("&", "&amp;").replace("<", "&lt;") if vtt else one.word for one in words]
    cues = [
        f"{number}\n{_time(one.start, vtt)} --> {_time(one.end, vtt)}\n{text}\n"
        for number, (one, text) in enumerate(zip(words, texts, strict=True), 1)
    ]
    return "\n".join(["WEBVTT\n", *cues] if vtt else cues)


def _time(seconds: float, vtt: bool) -> str:
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    point = "." if vtt else ","
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"

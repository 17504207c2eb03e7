"""What was heard in a recording, and how it is written down: text, JSON, subtitles."""

import json
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from llasa.speak.word_files import subtitles
from llasa.speak.word_times import Word

FORMATS = ("text", "json", "srt", "vtt")
SUFFIXES = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}


class Segment(NamedTuple):
    """What was said without a long pause.

    Attributes:
        text: the words.
        start, end: seconds from the beginning of the recording.
        confidence: from 0 to 1, the mean probability of a token (geometric).
    """

    text: str
    start: float
    end: float
    confidence: float


def repetition(text: str) -> float:
    """How much a text repeats itself, as Whisper measures it: its length by that of it compressed (zlib)."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording.

    Attributes:
        segments: in order; none if nothing was said.
        seconds: how long the recording lasts.
    """

    segments: tuple[Segment, ...]
    seconds: float

    @property
    def text(self) -> str:
        """All words on one line."""
        return " ".join(segment.text for segment in self.segments)

    def written(self, format: str) -> str:
        """The transcript in one of FORMATS, with a line break at its end."""
        if format == "text":
            return f"{self.text}\n"
        if format == "json":
            segments = [segment._asdict() | {"confidence": round(segment.confidence, 3)} for segment in self.segments]
            facts = {"text": self.text, "seconds": round(self.seconds, 3), "segments": segments}
            return json.dumps(facts, ensure_ascii=False, indent=2) + "\n"
        return subtitles([Word(*segment) for segment in self.segments], format == "vtt")

"""`llasa say --timestamps`: checks the file and the model before anything is spoken, and writes the times of words."""

from pathlib import Path
from typing import TYPE_CHECKING

from llasa.commands.common import check_writable, tell
from llasa.errors import LlasaError
from llasa.files import absolute

if TYPE_CHECKING:
    from llasa.speak.speech import Speech
    from llasa.speak.stream import Stream
    from llasa.tts import Llasa


def check_file(path: Path, candidates: Path | None) -> None:
    """Refuses a file that cannot be written, or whose name tells no format.

    Args:
        candidates: the folder of a search's candidates, which holds nothing else.
    """
    from llasa.speak.word_files import check_suffix

    check_suffix(path)
    if candidates is not None and absolute(path).is_relative_to(absolute(candidates)):
        raise LlasaError(f"{path} is in {candidates}, which is only for candidates: write it elsewhere")
    check_writable(path)


def check_model(llasa: "Llasa") -> None:
    """Refuses a model that cannot tell when words are said."""
    from llasa.speak.word_times import NO_TIMES

    if llasa.timer.source is None:
        raise LlasaError(f"{NO_TIMES}: leave --timestamps out")


def save(path: Path, speech: "Speech | Stream") -> None:
    """Writes when each word is said, and says who told."""
    from llasa.speak.word_files import save_words

    if (times := speech.words) is None:
        raise LlasaError("the recogniser does not know the letters of the text, so there are no word times")
    save_words(path, times, speech.timer.source)
    told = "" if speech.timer.source == "attention" else " by the model's recogniser, since its attention is not known"
    tell(f"{path}: the times of {len(times)} words{told}")

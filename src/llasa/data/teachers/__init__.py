"""The teachers: synthesisers whose readings the models learn from, one file each.

`teacher.py` says what a teacher is, `open_teacher` makes one by its name.
"""

from pathlib import Path

from llasa.data.teachers.teacher import RATE, Reading, Teacher, Unreadable
from llasa.errors import LlasaError

__all__ = ["NAMES", "RATE", "Reading", "Teacher", "Unreadable", "open_teacher"]

NAMES = ("flite", "kokoro", "piper")


def open_teacher(
    name: str, model: Path | None = None, voices: Path | None = None, invented: int | None = None
) -> Teacher:
    """A teacher by its name, ready to be sent to whoever lets it speak.

    Args:
        model: another model than the teacher's packages bring.
        voices: a file or folder of voices.
        invented: how many voices to make from its own, if not as many as the teacher does by itself.

    Raises:
        LlasaError: there is no such teacher, it is not installed, a file is missing or is not what it should be, or
            the teacher has no use for one of these.
    """
    if name not in NAMES:
        raise LlasaError(f"there is no teacher {name}: choose one of {', '.join(NAMES)}")
    for given, option, users in (
        (model, "a model", ("kokoro", "piper")),
        (voices, "a file of voices", ("kokoro",)),
        (invented, "a number of invented voices", ("flite", "kokoro")),
    ):
        if given is not None and name not in users:
            raise LlasaError(f"{name} takes no {option.removeprefix('a ')}: that is for {' and '.join(users)}")
    if name == "kokoro":
        from llasa.data.teachers.kokoro import MIXTURES, Kokoro

        return Kokoro(model, voices, MIXTURES if invented is None else invented)
    if name == "piper":
        from llasa.data.teachers.piper import Piper

        return Piper(model)
    from llasa.data.teachers.flite import SHIFTED, Flite

    return Flite(SHIFTED if invented is None else invented)

"""Teachers: synthesisers whose readings the models learn from, one file each.

`teacher.py` defines what a teacher is; `open_teacher` makes one by its name.
"""

from pathlib import Path

from llasa.data.teachers.teacher import RATE, Reading, Teacher, Unreadable
from llasa.errors import LlasaError

__all__ = ["NAMES", "RATE", "Reading", "Teacher", "Unreadable", "open_teacher"]

NAMES = ("flite", "kokoro", "piper")


def open_teacher(
    name: str, model: Path | None = None, voices: Path | None = None, invented: int | None = None
) -> Teacher:
    """A teacher by its name. It can be sent to another process.

    Args:
        model: a model to use instead of the one in the teacher's packages.
        voices: a file or folder of voices.
        invented: number of voices to make from its own; by default the teacher's usual number.

    Raises:
        LlasaError: there is no such teacher, it is not installed, a file is missing or wrong, or the teacher does not
            take one of these arguments.
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

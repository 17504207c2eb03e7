"""Errors and warnings whose messages are meant for the user, and the parts of such messages.

A message is one line: what is wrong, where, and what to do.
"""

import os
from pathlib import Path


class LlasaError(Exception):
    """Bad input, or a missing or broken file. The message is one line: what is wrong, and what to do about it."""


class NoRoom(LlasaError):
    """A voice or a prompt leaves no room for speech in the model's context."""


class NoSound(LlasaError):
    """The model ended without a sound."""

    def __init__(self) -> None:
        super().__init__("the model ended without a sound: try another seed or voice")


class TooLong(LlasaError):
    """A recording is longer than what is read."""


class WrongTranscript(LlasaError):
    """A recording does not say its transcript."""


class LlasaWarning(UserWarning):
    """Something that the user should know, although the work continues."""


def printable(text: str) -> str:
    """A text whose control characters, which could move the cursor or change colours, are escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(path: str | Path) -> str:
    """The path on one line, however odd or long its name."""
    name = str(path)
    name = name if name.isprintable() else ascii(name)
    return name if len(name) < 200 else f"{name[:100]}...{name[-60:]}"


def reason(error: Exception) -> str:
    """The system's own reason for an error, without the words in which libraries wrap it."""
    if number := getattr(error, "errno", None):
        return os.strerror(number).lower()
    return (getattr(error, "strerror", None) or str(error)).lower()


def need_extra(extra: str, *modules: str) -> None:
    """Checks that an optional part of the package is installed.

    Raises:
        LlasaError: a module is missing; the message says what to install.
    """
    from importlib.util import find_spec

    if missing := [module for module in modules if find_spec(module) is None]:
        raise LlasaError(f"{missing[0]} is not installed, which this needs: pip install 'llasa[{extra}]'")


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, short enough for a one-line error."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__

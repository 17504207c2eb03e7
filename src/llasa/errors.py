"""The one exception, and the one warning, whose messages are meant for the person at the keyboard.

And what such messages are made of: names and reasons on one line.
"""

import os
from pathlib import Path


class LlasaError(Exception):
    """Bad input, or a missing or broken file. The message is one line: what is wrong, and what to do about it."""


class LlasaWarning(UserWarning):
    """Something the user should know, although the work goes on."""


def shown(path: Path) -> str:
    """The path on one line, however odd or long its name."""
    name = str(path)
    name = name if name.isprintable() else ascii(name)
    return name if len(name) < 200 else f"{name[:100]}...{name[-60:]}"


def reason(error: Exception) -> str:
    """What the system says of an error; libraries that pass it on wrap it in words of their own."""
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

"""The one exception, and the one warning, whose messages are meant for the person at the keyboard."""


class LlasaError(Exception):
    """Bad input, or a missing or broken file. The message is one line: what is wrong, and what to do about it."""


class LlasaWarning(UserWarning):
    """Something the user should know, although the work goes on."""


def need_extra(extra: str, *modules: str) -> None:
    """Checks that an optional part of the package is installed.

    Raises:
        LlasaError: a module is missing; the message says what to install.
    """
    from importlib.util import find_spec

    if missing := [module for module in modules if find_spec(module) is None]:
        raise LlasaError(f"{missing[0]} is not installed, which this needs: pip install 'llasa[{extra}]'")

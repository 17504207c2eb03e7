"""The one exception whose message is meant for the person at the keyboard."""


class LlasaError(Exception):
    """Bad input, or a missing or broken file. The message is one line: what is wrong, and what to do about it."""

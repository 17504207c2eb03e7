"""Verifiers: how well speech says a text, in whose voice, with what emotion, and whether anything is wrong with it.

One file each, one protocol (`protocol.py`); `combine.py` weighs several together. They know texts and 16 kHz waveforms,
and nothing of the models being judged. A file is imported, and with it its packages, when its verifier is asked for.
"""

from importlib import import_module
from pathlib import Path

from llasa.errors import LlasaError
from llasa.verifiers.protocol import RATE, Verifier

__all__ = ["NAMES", "PROCESS", "RATE", "Verifier", "check_name", "known", "load_verifier"]

# Name: its file, and what may follow the name and a colon: a hub id or folder, an emotion, or nothing.
_KNOWN = {
    "content": ("content", ""),
    "whisper": ("whisper", "MODEL"),
    "pocketsphinx": ("sphinx", ""),
    "speaker": ("speaker", ""),
    "wavlm": ("wavlm", "MODEL"),
    "ecapa": ("ecapa", "MODEL"),
    "campplus": ("campplus", ""),
    "emotion": ("emotion", "LABEL"),
    "naturalness": ("naturalness", ""),
    "utmos": ("utmos", "MODEL"),
    "sanity": ("sanity", ""),
}
NAMES = tuple(_KNOWN)
# Those that can judge a fragment, which is asked before any of them is loaded.
PROCESS = frozenset(_KNOWN) - {"whisper", "pocketsphinx", "naturalness"}


def load_verifier(name: str, device: str = "cpu", recogniser: Path | None = None) -> Verifier:
    """A verifier, ready to score.

    Args:
        name: one of `known()`, some of which take a model or label after a colon: `whisper:openai/whisper-small`.
        device: where it computes; those that are no torch models stay on the CPU.
        recogniser: the folder of that which `content` is, instead of the embedded voice's.

    Raises:
        LlasaError: there is none of that name, a package is missing, or its weights cannot be had.
    """
    check_name(name)
    kind, _, choice = name.partition(":")
    file, option = _KNOWN[kind]
    load = import_module(f"llasa.verifiers.{file}").load
    given = [choice or None, device] if option else [device, recogniser] if kind == "content" else [device]
    verifier: Verifier = load(*given)
    return verifier


def check_name(name: str) -> None:
    """Refuses a verifier's name that `load_verifier` would not know.

    Raises:
        LlasaError: it does not.
    """
    kind, colon, choice = name.partition(":")
    if kind not in _KNOWN:
        raise LlasaError(f"there is no verifier called {name}: pass one of {', '.join(known())}")
    option = _KNOWN[kind][1]
    if colon and not (option and choice):
        raise LlasaError(f"{name} is no verifier: pass {kind}" + (f", or {kind}:{option}" if option else ""))


def known() -> list[str]:
    """Every verifier as it may be written."""
    return [f"{name}[:{option}]" if option else name for name, (_, option) in _KNOWN.items()]

"""Verifiers score speech: how well it says a text, in whose voice, with what emotion, and whether it has plain faults.

Each has its own file, and all share one protocol (`protocol.py`); `combine.py` adds their scores up. They take texts
and 16 kHz waveforms, whatever model has spoken. A verifier's file and the packages it needs are imported only when the
verifier is used.
"""

import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from llasa.errors import LlasaError
from llasa.verifiers.protocol import RATE, Batch, Likelihood, Verifier

__all__ = ["NAMES", "PROCESS", "RATE", "Batch", "Likelihood", "Verifier", "check_name", "known", "load_verifier"]

# Name: file, and the option that may follow the name and a colon: a hub id or folder, an emotion, or none.
_KNOWN = {
    "content": ("content", ""),
    "self": ("itself", ""),
    "whisper": ("whisper", "MODEL"),
    "pocketsphinx": ("sphinx", ""),
    "speaker": ("speaker", ""),
    "wavlm": ("wavlm", "MODEL"),
    "wavlm-large": ("wavlm_large", "FILE"),
    "ecapa": ("ecapa", "MODEL"),
    "campplus": ("campplus", ""),
    "emotion": ("emotion", "LABEL"),
    "naturalness": ("naturalness", ""),
    "utmos": ("utmos", "MODEL"),
    "sanity": ("sanity", ""),
}
NAMES = tuple(_KNOWN)
# Verifiers that can score a fragment. A search needs to know this before it loads them.
PROCESS = frozenset(_KNOWN) - {"self", "whisper", "pocketsphinx", "naturalness"}
_LOADING = threading.Lock()  # transformers imports its parts late, and two threads that do so at once fail


def load_verifier(
    name: str,
    device: str = "cpu",
    recogniser: Path | None = None,
    likelihood: Callable[[], Likelihood] | None = None,
) -> Verifier:
    """Loads a verifier, ready to score.

    Args:
        name: one of `known()`, some of which take a model or label after a colon: `whisper:openai/whisper-small`.
        device: where it computes; verifiers that are not torch models stay on the CPU.
        recogniser: the folder of the recogniser that `content` uses; None for the embedded voice's.
        likelihood: gives what `self` scores with, of the model that speaks; without it there is no `self`.

    Raises:
        LlasaError: no verifier has that name, a package is missing, or its weights cannot be fetched.
    """
    check_name(name)
    kind, _, choice = name.partition(":")
    file, option = _KNOWN[kind]
    own: dict[str, tuple[Any, ...]] = {"content": (recogniser,), "self": (likelihood,)}
    with _LOADING:
        load = import_module(f"llasa.verifiers.{file}").load
        given = [choice or None, device] if option else [device, *own.get(kind, ())]
        verifier: Verifier = load(*given)
    return verifier


def check_name(name: str) -> None:
    """Refuses a name that `load_verifier` would not know.

    Raises:
        LlasaError: no verifier has that name.
    """
    kind, colon, choice = name.partition(":")
    if kind not in _KNOWN:
        raise LlasaError(f"there is no verifier called {name}: pass one of {', '.join(known())}")
    option = _KNOWN[kind][1]
    if colon and not (option and choice):
        raise LlasaError(f"{name} is not a verifier: pass {kind}" + (f", or {kind}:{option}" if option else ""))


def known() -> list[str]:
    """The names of all verifiers, each with its option."""
    return [f"{name}[:{option}]" if option else name for name, (_, option) in _KNOWN.items()]

"""Loads a model that is to be served, and makes it ready, so that the first client waits no longer than the second."""

import warnings
from typing import Any

import torch

from llasa.errors import LlasaWarning
from llasa.tts import Llasa


def load(model: str, **options: Any) -> Llasa:
    """A model that is ready to be served.

    Args:
        model, options: as for `Llasa.load`.

    Raises:
        LlasaError: as `Llasa.load`.
    """
    llasa = Llasa.load(model, **options)
    llasa.voice()
    warm(llasa)
    warnings.simplefilter("ignore", LlasaWarning)  # they may quote a text
    return llasa


def warm(llasa: Llasa) -> None:
    """Speaks once, for what is only done the first time; and settles how many threads torch uses.

    Two threads compute at once here, the engine's and the codec's. If each set torch's number of threads for itself,
    one could set it while the other computes.
    """
    threads = getattr(llasa.backend, "threads", None)
    if threads:
        torch.set_num_threads(threads)
    for _ in llasa.stream("This is said once, so that all is ready.", seed=0):
        pass

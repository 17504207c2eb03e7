"""Scores how likely the model that speaks finds the text, given the sound: the same model listens to itself.

It needs a model that was trained to recognise speech too. The model is not loaded here: whoever loads the verifier
hands over the function that asks it. It is not independent of what it scores: the same weights made the sound.
"""

from collections.abc import Callable

import numpy as np

from llasa.errors import LlasaError
from llasa.verifiers.protocol import Batch, Likelihood


def load(device: str, likelihood: Callable[[], Likelihood] | None) -> "Itself":
    """Makes the verifier.

    Args:
        device: not used, for the model has its own.
        likelihood: gives the function that asks the model.

    Raises:
        LlasaError: there is no model to ask, or it was not trained to recognise speech.
    """
    if likelihood is None:
        raise LlasaError("self asks the model that speaks, and there is none here: verify with content or whisper")
    return Itself(likelihood())


class Itself:
    """The mean probability of a token of the text (geometric), as the model itself finds it; 0 for silence."""

    name = "self"
    process = False
    needs_text = True
    needs_reference = False

    def __init__(self, likelihood: Likelihood) -> None:
        self._likelihood = likelihood

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        """See `Verifier.score`.

        Raises:
            LlasaError: a text and its sound do not fit the model's context.
        """
        pairs = zip(batch.texts, batch.audios, strict=True)
        return np.array([self._likelihood(text, samples) for text, samples in pairs])

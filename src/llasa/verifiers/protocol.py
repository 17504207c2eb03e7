"""What a verifier is: something that scores speech, given its text and the reference it should sound like."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

RATE = 16000  # Hz, of all audio that a verifier hears


@runtime_checkable
class Verifier(Protocol):
    """Scores speech, higher is better, best on a scale from 0 to 1 so that weights mean something.

    Attributes:
        name: as it is asked for.
        process: whether it can judge a fragment from the beginning of an utterance, and not only the whole (outcome).
        needs_text, needs_reference: whether it listens to what was to be said, and to whom it should sound like.
    """

    name: str
    process: bool
    needs_text: bool
    needs_reference: bool

    def score(
        self,
        texts: Sequence[str],
        audios: Sequence[np.ndarray],
        references: Sequence[np.ndarray | None],
        ended: bool = True,
    ) -> np.ndarray:
        """A number (N,) for each of N utterances.

        Args:
            texts: what was to be said, whole even where the audio is a fragment.
            audios: (T_i,) float32 at `RATE`; may be empty.
            references: (R_i,) float32 at `RATE`, or None where there is none.
            ended: False says that the audios are fragments from the beginning of utterances.

        Raises:
            LlasaError: it cannot judge such texts. A search then goes on without it, and asks it again at other texts.
        """
        ...

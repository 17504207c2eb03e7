"""Defines what a verifier is: it scores speech, given the text and the reference that it should sound like."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

RATE = 16000  # Hz, the rate of all audio that verifiers score
Likelihood = Callable[[str, np.ndarray], float]  # of a text, given the samples (T,) at RATE: 0 to 1


@dataclass(frozen=True, eq=False)
class Batch:
    """N utterances to be scored.

    Attributes:
        texts: the text of each, whole even if the audio is a fragment.
        audios: (T_i,) float32; may be empty.
        references: (R_i,) float32, the recording that each should sound like, or None.
        rate: the rate of all audio, in Hz. The verifiers of this package expect `RATE`.
    """

    texts: Sequence[str]
    audios: Sequence[np.ndarray]
    references: Sequence[np.ndarray | None]
    rate: int = RATE

    def __len__(self) -> int:
        return len(self.texts)

    def pick(self, rows: Sequence[int]) -> "Batch":
        """Some of the utterances."""
        return Batch(
            [self.texts[row] for row in rows],
            [self.audios[row] for row in rows],
            [self.references[row] for row in rows],
            self.rate,
        )


@runtime_checkable
class Verifier(Protocol):
    """Scores speech; higher is better. Scores should lie between 0 and 1, so that weights are comparable.

    Attributes:
        name: the name that users write.
        process: whether it can score a fragment from the beginning of an utterance, and not only the whole (outcome).
        needs_text, needs_reference: whether its score depends on the text, and on the reference.
    """

    name: str
    process: bool
    needs_text: bool
    needs_reference: bool

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        """The scores of the utterances, (N,).

        Args:
            ended: False if the audios are fragments from the beginning of utterances.

        Raises:
            LlasaError: it cannot score such texts. A search then continues without it, and uses it again for other
                texts.
        """
        ...

"""A prompt that tells which of its tokens belong to the voice, so that a backend reads them once for all texts.

A prompt is the transcript of the reference, the text, and the reference's codes. Since the codes come last, their keys
and values depend on every text anew, although what they attend to is their own transcript. A backend may compute them
once, as they are without a text, and turn the keys to their places behind each text. Only the last codes, which lead
over to the text, are read anew. CacheBlend (arXiv 2405.16444) reuses keys and values in much the same way. It is not
quite what the model computes, so it is done only for voices that were listened to that way (`Voice.reused`).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

KEPT = 16  # references that a backend keeps
FRESH = 16  # codes at the end of a reference that are read anew; with more of them the error falls little

T = TypeVar("T")


class Prompt(list[int]):
    """Token ids of a prompt that ends with the codes of a reference.

    Attributes:
        alone: the same prompt without the text.
        codes: number of the reference's codes, more than `FRESH`.
    """

    def __init__(self, ids: Iterable[int], alone: Iterable[int], codes: int) -> None:
        super().__init__(ids)
        self.alone, self.codes = tuple(alone), codes

    @property
    def shared(self) -> int:
        """The number of tokens before the text, which do not depend on it."""
        most = min(len(self), len(self.alone)) - self.codes
        return next((place for place in range(most) if self[place] != self.alone[place]), most)

    @property
    def reused(self) -> tuple[int, int]:
        """The first place and the last + 1 of the codes that are read once for all texts."""
        return len(self) - self.codes, len(self) - FRESH

    @property
    def moved(self) -> int:
        """How many places the codes are further back than without the text."""
        return len(self) - len(self.alone)


class References(Generic[T]):
    """What a backend keeps of the references read last.

    Args:
        read: computes it for a prompt without its text.
    """

    def __init__(self, read: Callable[[Prompt], T]) -> None:
        self._read, self._kept = read, OrderedDict[tuple[int, ...], T]()

    def of(self, prompt: Prompt) -> T:
        """What is kept of a prompt's reference; it is read now if it is not there."""
        if prompt.alone not in self._kept:
            self._kept[prompt.alone] = self._read(prompt)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(prompt.alone)
        return self._kept[prompt.alone]

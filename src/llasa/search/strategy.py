"""How a search is written: `best-of:16`, `beam:4x4`, `mixed:4x4@2s+16`. Knows the words, not what they do."""

import math
import re
from dataclasses import dataclass

from llasa.errors import LlasaError

CHUNK = 50  # codes, a second, between two looks at what a beam is to keep (Llasa, section 3.3)
USUAL = 4  # samples where no number was asked for: before over-optimisation begins (benchmarks/results/search.md)
FORMS = "best-of:N, beam:KEEPxWIDTH (as beam:4x4) or mixed:KEEPxWIDTH@SECONDS+N (as mixed:4x4@2s+16)"

_BEST = re.compile(r"best-of:(\d+)")
_BEAM = re.compile(r"(?:beam|mixed):(\d+)x(\d+)(?:/(\d+))?(?:\^(\d+))?(?:@(\d+(?:\.\d+)?)s?\+(\d+))?")


@dataclass(frozen=True)
class Strategy:
    """What to search with.

    Attributes:
        samples: of best-of-n, or of the second part of a mixed search; 0 for a beam alone.
        keep, width: rows that a beam keeps, and into how many each is forked; 0 for best-of-n.
        chunk: codes between two looks.
        ahead: codes that are sampled beyond each look, for the verifier to hear, and thrown away.
        seconds: how long the beam of a mixed search goes on.
    """

    samples: int = 0
    keep: int = 0
    width: int = 0
    chunk: int = CHUNK
    ahead: int = 0
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """Rows that are under way at once."""
        return max(self.keep * self.width, 1 if self.samples else 0)

    def __str__(self) -> str:
        if not self.keep:
            return f"best-of:{self.samples}"
        beam = f"{self.keep}x{self.width}"
        beam += f"/{self.chunk}" if self.chunk != CHUNK else ""
        beam += f"^{self.ahead}" if self.ahead else ""
        return f"mixed:{beam}@{self.seconds:g}s+{self.samples}" if self.samples else f"beam:{beam}"


def parse(written: str) -> Strategy:
    """`best-of:16`; `beam:4x4`, with `/25` for looks every 25 codes and `^25` for 25 codes of look-ahead; or
    `mixed:4x4@2s+16`, a beam for two seconds and then 16 samples of what it kept.

    Raises:
        LlasaError: it is none of these, or a number in it is 0.
    """
    if found := _BEST.fullmatch(written):
        strategy = Strategy(samples=int(found[1]))
        numbers: tuple[float, ...] = (strategy.samples,)
    else:
        found = _BEAM.fullmatch(written)
        if not found or (found[6] is not None) != written.startswith("mixed"):
            raise LlasaError(f"there is no search {written!r}: write {FORMS}")
        keep, width, chunk, ahead, seconds, samples = found.groups()
        strategy = Strategy(
            int(samples or 0), int(keep), int(width), int(chunk or CHUNK), int(ahead or 0), float(seconds or 0)
        )
        numbers = (strategy.keep, strategy.width, strategy.chunk)
        numbers += (strategy.seconds, strategy.samples) if samples else ()
    if not all(numbers):
        raise LlasaError(f"a search of 0 in {written!r} finds nothing: every number must be 1 or more")
    return strategy


def choose(
    best_of: int | None, written: str | None, verified: bool, budget: float | None, greedy: bool = False
) -> Strategy | None:
    """The strategy that these arguments of `say` ask for; None without any.

    Args:
        greedy: whether sampling always takes the likeliest token.

    Raises:
        LlasaError: two strategies, a number that finds nothing, or several samples that would all be the same.
    """
    if best_of is not None and written is not None:
        raise LlasaError(f"best-of {best_of} and {written} are two searches: ask for one")
    if best_of is not None and best_of < 1:
        raise LlasaError(f"the best of {best_of} is nothing: ask for 1 or more")
    if budget is not None and not 0 < budget < math.inf:
        raise LlasaError(f"a search cannot run in a budget of {budget:g} seconds: give a number above 0")
    strategy = None
    if written is not None:
        strategy = parse(written)
    elif best_of is not None or verified or budget is not None:
        strategy = Strategy(samples=best_of or USUAL)
    if strategy and greedy and max(strategy.rows, strategy.samples) > 1:
        raise LlasaError(
            "every sample is the same at temperature 0 (and top-k 1): search at a higher one, or not at all"
        )
    return strategy

"""Reads and writes the names of searches: `best-of:16`, `beam:4x4`, `mixed:4x4@2s+16`."""

import math
import re
from dataclasses import dataclass

from llasa.errors import LlasaError

CHUNK = 50  # codes, one second, between two steps of a beam (Llasa, section 3.3)
USUAL = 4  # samples by default: few enough to avoid over-optimisation (benchmarks/results/search.md)
MOST = 10_000  # of any number in a search
ROWS = 250_000  # of a beam
FORMS = "best-of:N, beam:KEEPxWIDTH (as beam:4x4) or mixed:KEEPxWIDTH@SECONDS+N (as mixed:4x4@2s+16)"

_BEST = re.compile(r"best-of:(\d+)")
_BEAM = re.compile(r"(?:beam|mixed):(\d+)x(\d+)(?:/(\d+))?(?:\^(\d+))?(?:@(\d+(?:\.\d+)?)s?\+(\d+))?")


@dataclass(frozen=True)
class Strategy:
    """How to search.

    Attributes:
        samples: number of samples of best-of-n, or of the second part of a mixed search; 0 for a beam alone.
        keep, width: how many rows a beam keeps, and into how many each is forked; 0 for best-of-n.
        chunk: codes between two steps of a beam.
        ahead: look-ahead: codes sampled beyond each step for the verifiers to hear, then thrown away.
        seconds: seconds of speech that the beam of a mixed search makes.
    """

    samples: int = 0
    keep: int = 0
    width: int = 0
    chunk: int = CHUNK
    ahead: int = 0
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """How many rows run at once."""
        return max(self.keep * self.width, 1 if self.samples else 0)

    def __str__(self) -> str:
        if not self.keep:
            return f"best-of:{self.samples}"
        beam = f"{self.keep}x{self.width}"
        beam += f"/{self.chunk}" if self.chunk != CHUNK else ""
        beam += f"^{self.ahead}" if self.ahead else ""
        return f"mixed:{beam}@{self.seconds:g}s+{self.samples}" if self.samples else f"beam:{beam}"


def parse(written: str) -> Strategy:
    """Reads the name of a search.

    It is `best-of:16`; or `beam:4x4`, with `/25` for steps of 25 codes and `^25` for 25 codes of look-ahead; or
    `mixed:4x4@2s+16`, a beam for two seconds and then 16 samples that continue the rows it kept.

    Raises:
        LlasaError: it is none of these, or a number in it is 0.
    """
    if any(float(number) > MOST for number in re.findall(r"\d+", written)):
        raise LlasaError(f"a number in the search {written[:40]!r} is above {MOST:,}, the most that it may be")
    if found := _BEST.fullmatch(written):
        strategy = Strategy(samples=int(found[1]))
        numbers: tuple[float, ...] = (strategy.samples,)
    else:
        found = _BEAM.fullmatch(written)
        if not found or (found[6] is not None) != written.startswith("mixed"):
            raise LlasaError(f"unknown search {written!r}: write {FORMS}")
        keep, width, chunk, ahead, seconds, samples = found.groups()
        strategy = Strategy(
            int(samples or 0), int(keep), int(width), int(chunk or CHUNK), int(ahead or 0), float(seconds or 0)
        )
        numbers = (strategy.keep, strategy.width, strategy.chunk)
        numbers += (strategy.seconds, strategy.samples) if samples else ()
    if strategy.keep * strategy.width > ROWS:
        raise LlasaError(
            f"the search {written} has {strategy.keep * strategy.width:,} rows: at most {ROWS:,} are possible"
        )
    if not all(numbers):
        raise LlasaError(f"a number in the search {written!r} is 0: every number must be above 0")
    return strategy


def choose(
    best_of: int | None, written: str | None, verified: bool, budget: float | None, greedy: bool = False
) -> Strategy | None:
    """The strategy that these arguments of `say` ask for; None if they ask for none.

    Args:
        greedy: whether sampling always takes the likeliest token.

    Raises:
        LlasaError: two strategies, a number out of range, or several samples that would all be the same.
    """
    if best_of is not None and written is not None:
        raise LlasaError(f"best-of {best_of} and {written} are two searches: choose one")
    if best_of is not None and not 1 <= best_of <= MOST:
        raise LlasaError(f"best-of is {best_of}: it must be from 1 to {MOST:,}")
    if budget is not None and not 0 < budget < math.inf:
        raise LlasaError(f"the budget is {budget:g} seconds: it must be above 0 and finite")
    strategy = None
    if written is not None:
        strategy = parse(written)
    elif best_of is not None or verified or budget is not None:
        strategy = Strategy(samples=best_of or USUAL)
    if strategy and greedy and max(strategy.rows, strategy.samples) > 1:
        raise LlasaError("every sample is the same at temperature 0 or top-k 1: raise them, or do not search")
    return strategy

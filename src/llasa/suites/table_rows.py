"""The rows of a suite's table: recordings of people, one sample of the model, and searches."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llasa.errors import LlasaError
from llasa.search.strategy import parse as parse_strategy
from llasa.verifiers import combine

RECORDINGS, ONE_SAMPLE, COPIES = "recordings", "one sample", "the codec's copies"
CHUNKED = "chunked:"
CHUNK = 60  # characters that a chunk has at most where a search is chunked

# The searches of Llasa, section 4, at this package's sizes: as (name, search, by words or voice).
TABLE = (
    ("ORM, words", "best-of:16", "words"),
    ("ORM, voice", "best-of:16", "voice"),
    ("PRM, voice", "beam:4x4", "voice"),
    ("partial PRM, voice", "mixed:4x4@2s+1", "voice"),
    ("PRM + ORM, voice then words", "mixed:4x4@2s+16", "words=1,voice=1"),
    ("chunked PRM + ORM", f"{CHUNKED}mixed:4x4@2s+16", "words=1,voice=1"),
)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: unique in the table.
        search, verify: as `llasa say` has them; None for one sample. A search that is `chunked:` first cuts the text
            into chunks of up to `CHUNK` characters.
    """

    name: str
    search: str | None = None
    verify: str | None = None

    @property
    def folder(self) -> str:
        """A folder's name for it."""
        return re.sub(r"[^\w.+-]+", "-", self.name).strip("-")

    @property
    def chunked(self) -> bool:
        return self.search is not None and self.search.startswith(CHUNKED)

    @property
    def strategy(self) -> str | None:
        """The search itself, as `llasa say` reads it."""
        return self.search.removeprefix(CHUNKED) if self.search else None


def make_rows(searches: Sequence[str], verifies: Sequence[str], default: str, table: bool, voice: str) -> list[Row]:
    """One sample, each search that is asked for, and with `table` those of the paper.

    Args:
        searches, verifies: options in their order; one verifier may serve all searches.
        default: who chooses if no verifier is named; in the table, who hears words.
        voice: who hears voices in the table.

    Raises:
        LlasaError: a search or a verifier cannot be read, two rows are the same, or the numbers of options differ.
    """
    if verifies and not searches:
        raise LlasaError("--verify names who chooses in a search: add --search, such as --search best-of:16")
    if len(verifies) not in (0, 1, len(searches)):
        raise LlasaError(
            f"there are {len(searches)} searches and {len(verifies)} verifiers: give each --search its own --verify"
        )
    rows = [Row(ONE_SAMPLE)]
    for place, search in enumerate(searches):
        verify = verifies[place if len(verifies) > 1 else 0] if verifies else default
        rows.append(_checked(Row(f"{search} by {verify}", search, verify)))
    if table:
        for name, search, verify in TABLE:
            rows.append(_checked(Row(name, search, verify.replace("words", default).replace("voice", voice))))
    if repeated := [row.name for place, row in enumerate(rows) if row.name in {one.name for one in rows[:place]}]:
        raise LlasaError(f"the search {repeated[0]} is there twice: ask for it once")
    return rows


def _checked(row: Row) -> Row:
    assert row.strategy is not None
    assert row.verify is not None
    strategy = parse_strategy(row.strategy)
    combine.parse(row.verify, beam=strategy.keep > 0)
    return row


def choosers(rows: Sequence[Row]) -> set[str]:
    """The names of all verifiers that choose in a row."""
    stages = [stage for row in rows if row.verify for stage in combine.parse(row.verify)]
    return {term.name.partition(":")[0] for stage in stages for term in stage.terms}

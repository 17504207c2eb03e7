"""Holds the rows that a state consists of, the same in every backend: what they are, how they begin and are copied."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llasa.engine.sampling import Key, Sampling
from llasa.errors import LlasaError, NoRoom


@dataclass
class Row:
    """One sequence that is being generated.

    Attributes:
        prompt: number of prompt tokens.
        last: the last prompt token, which goes through the model in the first step.
        limit: the most tokens that it may generate.
        least: the fewest tokens that it must have before it may end.
        sampling: how its tokens are picked.
        key: identifies its random numbers.
        tokens: ids generated so far, without the end token.
        finished: whether it has reached the end token.
    """

    prompt: int
    last: int
    limit: int
    sampling: Sampling
    key: Key
    least: int = 0
    tokens: list[int] = field(default_factory=list)
    finished: bool = False

    @property
    def stopped(self) -> bool:
        return self.finished or len(self.tokens) >= self.limit

    @property
    def pending(self) -> int:
        """The newest token, whose keys and values are not in the cache yet."""
        return self.tokens[-1] if self.tokens else self.last

    @property
    def cached(self) -> int:
        """Number of tokens whose keys and values are in the cache."""
        return self.prompt - 1 + len(self.tokens)


class Rows:
    """What every backend's state tells of its rows."""

    rows: list[Row]

    @property
    def tokens(self) -> list[list[int]]:
        """New token ids of each row, the end token excluded."""
        return [row.tokens for row in self.rows]

    @property
    def finished(self) -> list[bool]:
        """Which rows have reached the end token."""
        return [row.finished for row in self.rows]

    @property
    def stopped(self) -> list[bool]:
        """Which rows get no more tokens: they are finished, or have reached their limit."""
        return [row.stopped for row in self.rows]


def new_rows(
    prompts: Sequence[Sequence[int]],
    samples: int,
    seeds: Sequence[int] | None,
    sampling: Sampling | None,
    max_tokens: int | None,
    min_tokens: Sequence[int] | None,
    context: int,
    vocabulary: int,
) -> list[Row]:
    """The rows that `Backend.start` begins with, its arguments checked.

    Args:
        context: the most tokens, prompt included, that a row can have.
        vocabulary: number of tokens that a prompt may hold.

    Raises:
        NoRoom, LlasaError: as `Backend.start`.
    """
    if samples < 1 or (max_tokens is not None and max_tokens < 1):
        raise LlasaError(f"samples is {samples} and max_tokens is {max_tokens}: both must be 1 or more")
    for prompt in prompts:
        _check(prompt, context, vocabulary)
    count = len(prompts) * samples
    if seeds is None:
        seeds = [secrets.randbits(63) for _ in range(count)]
    if len(seeds) != count:
        raise LlasaError(f"{len(seeds)} seeds for {count} rows: give one a row ({samples} a prompt)")
    if min_tokens is None:
        min_tokens = [0] * len(prompts)
    if len(min_tokens) != len(prompts):
        raise LlasaError(f"{len(min_tokens)} values of min_tokens for {len(prompts)} prompts: give one a prompt")
    rows = []
    for i, seed in enumerate(seeds):
        prompt = prompts[i // samples]
        room = context - len(prompt)
        limit = room if max_tokens is None else min(room, max_tokens)
        least = min_tokens[i // samples]
        rows.append(Row(len(prompt), prompt[-1], limit, sampling or Sampling(), (seed % 2**64,), least))
    return rows


def _check(prompt: Sequence[int], context: int, vocabulary: int) -> None:
    if not prompt:
        raise LlasaError("the prompt is empty: give at least one token")
    if len(prompt) >= context:
        raise NoRoom(
            f"the prompt of {len(prompt)} tokens leaves no room in a context of {context}: "
            "use a shorter text or reference"
        )
    if min(prompt) < 0 or max(prompt) >= vocabulary:
        raise LlasaError(
            f"the prompt holds token ids outside the model's vocabulary of {vocabulary}: check that model and "
            "tokenizer belong together"
        )


def places_of(prompt: Sequence[int], tokens: Sequence[int], first: int, size: int, end: int, context: int) -> list[int]:
    """The places of some tokens among the legal ones, of which the end token is the last.

    Raises:
        NoRoom, LlasaError: as `Backend.likelihoods`.
    """
    if not prompt or not tokens:
        raise LlasaError("the prompt or the tokens after it are empty: give at least one of each")
    if len(prompt) + len(tokens) > context:
        raise NoRoom(f"{len(prompt)} and {len(tokens)} tokens do not fit a context of {context}: use less")
    places = [size if token == end else token - first for token in tokens]
    if min(places) < 0 or max(places) > size:
        raise LlasaError(
            "a token is none of those that may follow here: check that model and tokenizer belong together"
        )
    return places


def copies(rows: Sequence[Row], chosen: Sequence[int], seeds: Sequence[int] | None = None) -> list[Row]:
    """Copies of the rows at these indices; the rows do not change.

    Copies of a row continue differently: the first keeps its random numbers, and the others get their own, which follow
    from the seed, the number of tokens and the number of the copy. With `seeds`, all get new random numbers.

    Raises:
        LlasaError: there is no such row, or not one seed a row.
    """
    if seeds is not None and len(seeds) != len(chosen):
        raise LlasaError(f"{len(seeds)} seeds for {len(chosen)} rows: give one a row")
    wrong = [i for i in chosen if not 0 <= i < len(rows)]
    if wrong:
        raise LlasaError(f"row {wrong[0]} was selected, but this state has rows 0 to {len(rows) - 1}")
    picked: list[Row] = []
    for place, i in enumerate(chosen):
        row = rows[i]
        copy = list(chosen[:place]).count(i)
        key: Key = (*row.key, len(row.tokens), copy) if copy else row.key
        if seeds is not None:
            key = (seeds[place] % 2**64,)
        picked.append(replace(row, tokens=list(row.tokens), key=key))
    return picked

"""The data of a study of training: nested amounts of speech, and held-out utterances.

An amount of H hours is the first H hours of the corpus, with its shards in name order, so smaller amounts lie within
larger ones.
"""

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llasa.data.shards import CODES_SCHEMA, read_codes, shard_files, write_shard
from llasa.errors import LlasaError
from llasa.files import exists
from llasa.measure.tables import write_text
from llasa.models.folder import codec_sizes, load_tokenizer
from llasa.models.hub import find_model
from llasa.text.lexicon import ALPHABET, load_lexicon
from llasa.text.wording import words
from llasa.train.lm.data import Pack, Reader, Sample, pack
from llasa.train.lm.settings import LMSettings
from llasa.vocabulary import character_tokenizer, extend_tokenizer, read_vocabulary

FACTS = "amounts.json"
CHOOSING = 4  # one held-out utterance in this many chooses the checkpoint; the others measure it
SHORTEST, LONGEST = 2.0, 10.0  # seconds of a reference voice


@dataclass(frozen=True)
class Amount:
    """An amount of the corpus: its hours, its utterances, and their tokens with prompts."""

    utterances: int
    hours: float
    tokens: int

    def plus(self, hours: float, tokens: int) -> "Amount":
        """With one more utterance."""
        return Amount(self.utterances + 1, self.hours + hours, self.tokens + tokens)


def make_reader(lm: LMSettings) -> Reader:
    """Makes samples like the training of this recipe, but without words in letters.

    Raises:
        LlasaError: there is no such codec or pretrained model.
    """
    levels, rate = codec_sizes(lm.codec)
    size = math.prod(levels)
    if lm.init:
        tokenizer = load_tokenizer(find_model(lm.init))
        extend_tokenizer(tokenizer, size)
    else:
        tokenizer = character_tokenizer(ALPHABET, size, context=lm.model.get("max_position_embeddings", 2048))
    lexicon = load_lexicon(Path(lm.data.lexicon)) if lm.data.lexicon else None
    return Reader(read_vocabulary(tokenizer), lexicon, rate)


def cut(corpus: Path, hours: Sequence[float], out: Path, lm: LMSettings) -> dict[float, Amount]:
    """Writes the first hours of a corpus as shards into `out/Hh`, once for each number of hours.

    Utterances that training leaves out, because they have no text or are too long for a sample, do not count.

    Raises:
        LlasaError: the corpus has fewer hours, or a shard cannot be read or written.
    """
    path = out / FACTS
    if exists(path):
        found = json.loads(path.read_text())
        return {float(name): Amount(**facts) for name, facts in found.items()}
    reader = make_reader(lm)
    wanted = sorted(hours)
    sums = {amount: Amount(0, 0.0, 0) for amount in wanted}
    seconds = 0.0
    for file in shard_files(corpus):
        if seconds >= wanted[-1] * 3600:
            break
        parts: dict[float, list[dict[str, Any]]] = {amount: [] for amount in wanted}
        for row, tokens in _usable(file, reader, lm.data.longest):
            length = len(row["codes"]) / reader.rate
            for amount in wanted:
                if seconds < amount * 3600:
                    parts[amount].append(row)
                    sums[amount] = sums[amount].plus(length / 3600, tokens)
            seconds += length
        for amount, rows in parts.items():
            if rows:
                place_of(out, amount).mkdir(parents=True, exist_ok=True)
                write_shard(place_of(out, amount) / file.name, rows, CODES_SCHEMA)
    if seconds < wanted[-1] * 3600:
        raise LlasaError(
            f"{corpus} has {seconds / 3600:.3g} hours that can be trained on, fewer than {wanted[-1]:g}: lower `hours`"
        )
    write_text(path, json.dumps({str(float(hours)): asdict(amount) for hours, amount in sums.items()}, indent=1) + "\n")
    return sums


def place_of(out: Path, hours: float) -> Path:
    """The folder of an amount."""
    return out / f"{hours:g}h"


def _usable(file: Path, reader: Reader, longest: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The utterances of a shard that training uses, with the number of tokens of each."""
    for row in read_codes(file):
        if row["text"]:
            tokens = len(reader.vocabulary.prompt(reader.text(row["text"]))) + len(row["codes"]) + 1
            if tokens <= longest:
                yield row, tokens


@dataclass(frozen=True)
class HeldOut:
    """Utterances that no cell has seen: some to choose the checkpoint with, others to measure it."""

    choosing: list[dict[str, Any]]
    measuring: list[dict[str, Any]]

    def to_say(self, count: int, rate: float) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Pairs of an utterance to measure and another one of its speaker that can be the reference."""
        pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for row in self.measuring:
            others = [other for other in self.measuring if other["speaker"] == row["speaker"] and other is not row]
            fit = [other for other in others if SHORTEST <= len(other["codes"]) / rate <= LONGEST]
            if fit and words(row["text"]):
                pairs.append((row, fit[len(pairs) % len(fit)]))
        return pairs[:count]


def hold_out(folder: Path, count: int, reader: Reader, longest: int) -> HeldOut:
    """The first utterances of a corpus that no cell trains on.

    Raises:
        LlasaError: there are fewer than two.
    """
    rows = [row for file in shard_files(folder) for row, _ in _usable(file, reader, longest)][:count]
    if len(rows) < 2:
        raise LlasaError(f"{folder} has {len(rows)} utterances that can be held out: a study needs at least 2")
    return HeldOut(rows[::CHOOSING], [row for place, row in enumerate(rows) if place % CHOOSING])


def packed(rows: Sequence[dict[str, Any]], reader: Reader, tokens: int) -> Iterator[Pack]:
    """Packs the utterances, in their order, into as few rows of `tokens` as possible."""
    pad = reader.vocabulary.tokenizer.pad_token_id or 0
    waiting: list[Sample] = []
    for row in rows:
        sample = reader.sample([row], random.Random(0))
        if sum(len(other.ids) for other in waiting) + len(sample.ids) > tokens:
            yield pack(waiting, tokens, reader.rate, pad)
            waiting = []
        waiting.append(sample)
    if waiting:
        yield pack(waiting, tokens, reader.rate, pad)

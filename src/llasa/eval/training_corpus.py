"""What the cells of a study of training learn from and are measured on: nested amounts of speech, held-out utterances.

Knows shards of codes and how a language model will read them; knows nothing of models. An amount of H hours is the
first H hours of the corpus, its shards in name order, so that a smaller amount lies within every larger one.
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
from llasa.eval.report import write_text
from llasa.lexicon import ALPHABET, load_lexicon
from llasa.loading import codec_sizes, find_model, load_tokenizer
from llasa.train.lm import Settings
from llasa.train.lm_data import Pack, Reader, Sample, pack
from llasa.verifiers.wording import words
from llasa.vocabulary import character_tokenizer, extend_tokenizer, read_vocabulary

FACTS = "amounts.json"
CHOOSING = 4  # one held-out utterance in so many chooses the checkpoint; the others measure what was chosen
SHORTEST, LONGEST = 2.0, 10.0  # seconds of a reference voice


@dataclass(frozen=True)
class Amount:
    """So many hours of the corpus: the utterances in them, and the tokens of those with their prompts."""

    utterances: int
    hours: float
    tokens: int

    def plus(self, hours: float, tokens: int) -> "Amount":
        """With one more utterance."""
        return Amount(self.utterances + 1, self.hours + hours, self.tokens + tokens)


def make_reader(lm: Settings) -> Reader:
    """What makes samples as the training of this recipe does, with no word spelt out.

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
    lexicon = load_lexicon(Path(lm.lexicon)) if lm.lexicon else None
    return Reader(read_vocabulary(tokenizer), lexicon, rate)


def cut(corpus: Path, hours: Sequence[float], out: Path, lm: Settings) -> dict[float, Amount]:
    """Writes the first hours of a corpus as shards into `out/Hh`, for each number of hours; once.

    Utterances that training would leave out, those without text or longer than a sample may be, are not counted.

    Raises:
        LlasaError: the corpus has fewer hours, or a shard cannot be read or written.
    """
    path = out / FACTS
    if path.exists():
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
        for row, tokens in _usable(file, reader, lm.longest):
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
        raise LlasaError(f"{corpus} has {seconds / 3600:.3g} hours that can be trained on, and not {wanted[-1]:g}")
    write_text(path, json.dumps({str(float(hours)): asdict(amount) for hours, amount in sums.items()}, indent=1) + "\n")
    return sums


def place_of(out: Path, hours: float) -> Path:
    """The folder of an amount."""
    return out / f"{hours:g}h"


def _usable(file: Path, reader: Reader, longest: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The utterances of a shard that training takes, and how many tokens each is."""
    for row in read_codes(file):
        if row["text"]:
            tokens = len(reader.vocabulary.prompt(reader.text(row["text"]))) + len(row["codes"]) + 1
            if tokens <= longest:
                yield row, tokens


@dataclass(frozen=True)
class HeldOut:
    """Utterances that no cell has seen: some to choose its checkpoint by, others to measure what was chosen."""

    choosing: list[dict[str, Any]]
    measuring: list[dict[str, Any]]

    def to_say(self, count: int, rate: float) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """The first of those measured whose speaker has another utterance that can be a reference: both of them."""
        pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for row in self.measuring:
            others = [other for other in self.measuring if other["speaker"] == row["speaker"] and other is not row]
            fit = [other for other in others if SHORTEST <= len(other["codes"]) / rate <= LONGEST]
            if fit and words(row["text"]):
                pairs.append((row, fit[len(pairs) % len(fit)]))
        return pairs[:count]


def hold_out(folder: Path, count: int, reader: Reader, longest: int) -> HeldOut:
    """The first so many utterances of a corpus that no cell trains on.

    Raises:
        LlasaError: there are fewer than one to choose by and one to measure.
    """
    rows = [row for file in shard_files(folder) for row, _ in _usable(file, reader, longest)][:count]
    if len(rows) < 2:
        raise LlasaError(f"{folder} has {len(rows)} utterances that can be held out, and a study needs 2 at least")
    return HeldOut(rows[::CHOOSING], [row for place, row in enumerate(rows) if place % CHOOSING])


def packed(rows: Sequence[dict[str, Any]], reader: Reader, tokens: int) -> Iterator[Pack]:
    """The utterances one by one, in their order, in as few rows of `tokens` as that allows."""
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

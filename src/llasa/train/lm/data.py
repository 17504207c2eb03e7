"""Makes the language model's training data: prompts with speech, packed into rows, with each frame's phone if known.

A sample is one utterance, or several of one speaker in a row. The latter teaches cloning, where the model continues in
the voice of a reference.
"""

import bisect
import functools
import itertools
import random
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llasa.data import official
from llasa.data.shards import open_codes, read_rows, shard_files
from llasa.errors import LlasaError
from llasa.text.lexicon import pronounce
from llasa.text.wording import plain
from llasa.train.lm.alignment import UNKNOWN, align, listen
from llasa.train.lm.chat import conversation, open_chat
from llasa.vocabulary import Vocabulary

Places = Sequence[int] | np.ndarray
HELD_OUT = 50  # every 50th conversation of a source is for validation


@dataclass
class Sample:
    """One training sequence.

    Attributes:
        ids: (T,) token ids: prompt, codes, end.
        first_target: index of the first token with a loss, `<|SPEECH_GENERATION_START|>`.
        pointers: (T,); at t, the index of the text token that the *next* token speaks, or UNKNOWN.
        index: its place in the corpus' endless order of samples.
        chat: for text (a conversation, or what was heard), (T,) bool: the tokens with a loss. None for speech, where
            all tokens from `first_target` on have one.
        phones: (T,); at t, the token of the phone that is heard there, or UNKNOWN; None if no phone is.
    """

    ids: np.ndarray
    first_target: int
    pointers: np.ndarray
    index: int = 0
    chat: np.ndarray | None = None
    phones: np.ndarray | None = None


@dataclass
class Pack:
    """Samples side by side in one row of a fixed length, padded at the end.

    Attributes:
        ids, labels, positions, pointers: (T,) int64. Labels are -100 where there is no loss, and already shifted:
            `labels[t]` is what position t predicts. Pointers are indices into the row.
        chat: (T,) bool: whether the label belongs to text: a conversation, or what was heard.
        bounds: where each sample starts, and where the last one ends: (n + 1,) ints. Attention must not cross them.
        starts: the same as an int32 tensor, for kernels on a GPU.
        taught: numbers of the samples that have pointers.
        seconds: seconds of speech in the row.
        waiting: indices of the samples that were made and are in no pack yet, in order.
        last: index of the last sample made. `waiting` and `last` are all that resuming with the next pack needs.
        phones: (T,) int64, the token of the phone that is heard at each place, or UNKNOWN; None if no phone is.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    pointers: torch.Tensor
    chat: torch.Tensor
    bounds: list[int]
    starts: torch.Tensor
    taught: list[int]
    seconds: float
    waiting: list[int]
    last: int
    phones: torch.Tensor | None = None


class Rows(Sequence[dict[str, Any]]):
    """Rows of several sources, one after another. Each row is read when it is needed."""

    def __init__(self) -> None:
        self.starts, self.readers = [0], list[Callable[[int], dict[str, Any]]]()

    def add(self, count: int, read: Callable[[int], dict[str, Any]]) -> np.ndarray:
        """Appends `count` rows, which `read` reads by their number from 0; returns their indices."""
        self.readers.append(read)
        self.starts.append(len(self) + count)
        return np.arange(*self.starts[-2:])

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect.bisect_right(self.starts, index) - 1
        return self.readers[part](int(index) - self.starts[part])


class Corpus:
    """All utterances of some folders of codes shards. They stay on disk; only their speakers are held in memory.

    A folder may hold upstream's rows instead, of which the corpus takes those of `split`. They are used unchanged, and
    no other utterance precedes them. The same is true of conversations (see `llasa.train.lm.chat`), of which every
    HELD_OUT-th belongs to the split `val`.

    Attributes:
        rows: the utterances that have a text.
        order: one round of training: indices into `rows`, each repeated by its folder's weight.
        speakers: the indices of each speaker's utterances.

    Args:
        folders: each folder's weight.
        limit: the most utterances of each folder or source, from the front; later shards are not opened.
        split: `train` or `val`, of upstream's rows and of conversations.
        chat: each source of conversations, with its weight.

    Raises:
        LlasaError: no utterance has a text, or a shard is damaged or holds no codes.
    """

    def __init__(
        self,
        folders: dict[Path, int],
        limit: int | None = None,
        split: str = "train",
        chat: dict[str, int] | None = None,
    ) -> None:
        rows = Rows()
        order: list[np.ndarray] = []
        speakers: dict[str, array[int]] = defaultdict(lambda: array("q"))
        for folder, weight in folders.items():
            if official.has_rows(folder):
                tokens = official.open_rows(folder, split)[:limit]
                order.append(np.tile(rows.add(len(tokens), functools.partial(_token_row, tokens)), weight))
                continue
            files, kept, row = [], array("q"), 0
            for file in shard_files(folder):
                if limit is not None and len(kept) >= limit:
                    break
                files.append(file)
                for found in read_rows(file, ["text", "speaker"]):
                    if found.get("text") and (limit is None or len(kept) < limit):
                        speakers[found.get("speaker", "")].append(len(rows) + len(kept))
                        kept.append(row)
                    row += 1
            order.append(
                np.repeat(rows.add(len(kept), functools.partial(_speech_row, open_codes(files), kept)), weight)
            )
        for source, weight in (chat or {}).items():
            conversations = open_chat(source)
            held = np.arange(len(conversations)) % HELD_OUT == HELD_OUT - 1
            places = np.flatnonzero(held if split == "val" else ~held)[:limit]
            order.append(np.tile(rows.add(len(places), functools.partial(_chat_row, conversations, places)), weight))
        self.rows: Sequence[dict[str, Any]] = rows
        self.speakers: dict[str, Places] = {**speakers}
        self.order: Places = np.concatenate([np.zeros(0, int), *order])
        if folders and not len(self.order):
            raise LlasaError(
                f"no utterance in {', '.join(map(str, folders))} has a text: name a corpus with texts in `data.corpus`"
            )


def _speech_row(table: Any, places: Places, index: int) -> dict[str, Any]:
    row = {"phones": [], "ends": [], "speaker": ""} | table[places[index]]
    return row | {"codes": np.asarray(row["codes"], np.uint16), "ends": np.asarray(row["ends"], np.float32)}


def _token_row(table: np.ndarray, index: int) -> dict[str, Any]:
    return {"tokens": table[index], "speaker": ""}


def _chat_row(table: Any, places: Places, index: int) -> dict[str, Any]:
    return {"chat": table[int(places[index])]["messages"], "speaker": ""}


class Reader:
    """Makes samples from rows: tokens and pointers.

    Args:
        lexicon: turns texts into phones; None leaves them in letters.
        spell: the share of words that stay in letters even so.
        recognition: the share of samples that are heard instead of said.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        lexicon: dict[str, str] | None,
        frames_per_second: float,
        spell: float = 0.0,
        recognition: float = 0.0,
    ) -> None:
        self.vocabulary, self.lexicon, self.rate, self.spell = vocabulary, lexicon, frames_per_second, spell
        self.recognition = recognition
        self.opening = vocabulary.tokenizer.convert_tokens_to_ids("<|TEXT_UNDERSTANDING_START|>")
        self.opened = vocabulary.tokenizer.convert_tokens_to_ids("<|SPEECH_UNDERSTANDING_START|>")

    def sample(self, rows: list[dict[str, Any]], rng: random.Random) -> Sample:
        """One sequence that says the rows one after another, or hears them."""
        if "tokens" in rows[0]:
            ids, first = official.sequence(rows[0]["tokens"], self.vocabulary)
            return Sample(ids, first, np.full(len(ids), UNKNOWN))
        if "chat" in rows[0]:
            ids, targets = conversation(rows[0]["chat"], self.vocabulary.tokenizer)
            return Sample(ids, len(ids), np.full(len(ids), UNKNOWN), chat=targets)
        if self.recognition and rng.random() < self.recognition:
            return self.heard(rows)
        texts = [self.text(row["text"], lambda word: rng.random() < self.spell) for row in rows]
        prompt = self.vocabulary.prompt(" ".join(texts))
        codes = np.concatenate([row["codes"] for row in rows])
        sequence = np.array([*prompt, *self.vocabulary.tokens(codes), self.vocabulary.end])
        pointers = np.full(len(sequence), UNKNOWN)
        offset, frame = prompt.index(self.opening) + 1, len(prompt)
        tokens = [self.vocabulary.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        one_token_a_character = all(len(ids) == len(text) for ids, text in zip(tokens, texts, strict=True))
        for text, row in zip(texts, rows, strict=True):
            count = len(row["codes"])
            if one_token_a_character and row["phones"]:
                targets = align(text, row["phones"], row["ends"], count, self.rate)
                pointers[frame - 1 : frame - 1 + count] = targets + offset
            offset += len(text) + 1
            frame += count
        return Sample(sequence, len(prompt) - 1, pointers)

    def heard(self, rows: list[dict[str, Any]]) -> Sample:
        """One sequence that hears the rows one after another, and writes down what was said.

        The prompt, and that the loss is on the text alone, are upstream's. What is written down is our choice: the text
        as it is, or for a model that reads phones, the words in plain lower-case letters (`text.wording.plain`). Where
        the phones' times are known, `alignment.listen` adds where each letter is heard, and which phone where.
        """
        texts = [row["text"] if self.lexicon is None else plain(row["text"]) for row in rows]
        codes, whole = np.concatenate([row["codes"] for row in rows]), " ".join(texts)
        encode = functools.partial(self.vocabulary.tokenizer.encode, add_special_tokens=False)
        prompt, written = self.vocabulary.heard(codes), encode(whole)
        ids = np.array([*prompt, *written, *self.vocabulary.marks("<|TEXT_GENERATION_END|>")])
        pointers, phones = np.full((2, len(ids)), UNKNOWN)
        letter, frame = len(prompt) - 1, prompt.index(self.opened) + 1
        for text, row in zip(texts, rows, strict=True):
            count = len(row["codes"])
            if self.lexicon is not None and len(written) == len(whole) and len(row["phones"]):
                found = listen(self.text(row["text"]), text, row["phones"], row["ends"], count, self.rate)
                if found:
                    pointers[letter : letter + len(text) + 1] = frame + found.places
                    phones[frame : frame + count] = encode(found.phones)
            letter += len(text) + 1
            frame += count
        targets = np.arange(len(ids)) >= len(prompt)
        return Sample(ids, len(ids), pointers, chat=targets, phones=phones if (phones >= 0).any() else None)

    def text(self, text: str, spell: Callable[[str], bool] = lambda word: False) -> str:
        """The tokenizer's input for a normalised text."""
        return text if self.lexicon is None else pronounce(text, self.lexicon, spell)


def sample_indices(saved: list[tuple[list[int], int]], row: int, rows: int) -> Iterator[int]:
    """The endless indices of the samples for one of a step's rows: each row takes every `rows`-th sample.

    Args:
        saved: `waiting` and `last` of each row's last pack; empty at the start. With the same number of rows, the
            streams continue exactly. With another number, the waiting samples are divided among the rows, and the
            streams continue after the last sample made.
    """
    if not saved:
        return itertools.count(row, rows)
    if len(saved) == rows:
        waiting, last = saved[row]
        return itertools.chain(waiting, itertools.count(last + rows, rows))
    left = sorted(index for waiting, _ in saved for index in waiting)
    behind = max(last for _, last in saved) + 1
    return itertools.chain(left[row::rows], itertools.count(behind + row, rows))


@functools.lru_cache(3)  # a few are in use at once: samples wait from the last round while the next one begins
def shuffled(seed: int, lap: int, count: int) -> np.ndarray:
    """The order of one round through the corpus."""
    return np.random.default_rng([seed, lap]).permutation(count)


def samples(
    corpus: Corpus, reader: Reader, seed: int, longest: int, joined: float, indices: Iterable[int]
) -> Iterator[Sample]:
    """The samples of the given indices, some preceded by other utterances of their speaker.

    Successive indices run through `corpus.order`, shuffled anew in each round. A sample depends on the seed and its
    index alone, so a run can resume with exactly the samples that would have come next.

    Args:
        longest: tokens; longer samples, including conversations, are skipped.
        joined: the probability that another utterance of the speaker precedes, applied again after each one.

    Raises:
        LlasaError: no sample in a whole round is short enough.
    """
    count, skipped = len(corpus.order), 0
    for index in indices:
        lap, place = divmod(index, count)
        rng = random.Random(f"{seed}-{index}")
        taken = [corpus.order[shuffled(seed, lap, count)[place]]]
        row = corpus.rows[taken[0]]
        rows = [row]
        own: Any = corpus.speakers[row["speaker"]] if row["speaker"] else []
        while len(own) > len(taken) and rng.random() < joined:
            while (chosen := rng.choice(own)) in taken:
                continue
            taken.append(chosen)
            other = corpus.rows[chosen]
            # A code takes a token, a character at most one: leave room for both.
            if sum(len(r["codes"]) + len(r["text"]) for r in [*rows, other]) > longest - 16:
                break
            rows.insert(0, other)
        sample = reader.sample(rows, rng)
        skipped = skipped + 1 if len(sample.ids) > longest else 0
        if skipped > count:
            raise LlasaError(f"every utterance takes more than `longest: {longest}` tokens: raise it")
        if not skipped:
            yield replace(sample, index=index)


def packs(source: Iterator[Sample], tokens: int, rate: float, pad: int) -> Iterator[Pack]:
    """Endless rows of `tokens` tokens, filled with the waiting samples that fit best."""
    waiting: list[Sample] = []
    last = 0
    while True:
        chosen: list[Sample] = []
        room = tokens
        while True:
            while len(waiting) < 32:
                waiting.append(next(source))
                last = max(last, waiting[-1].index)
            fitting = [s for s in waiting if len(s.ids) <= room]
            if not fitting:
                break
            # The oldest sample first while there is room, so that long and short ones mix; then the longest that fits.
            best = fitting[0] if room > tokens // 4 else max(fitting, key=lambda s: len(s.ids))
            waiting = [s for s in waiting if s is not best]
            chosen.append(best)
            room -= len(best.ids)
        yield replace(pack(chosen, tokens, rate, pad), waiting=[s.index for s in waiting], last=last)


def pack(chosen: list[Sample], tokens: int, rate: float, pad: int) -> Pack:
    """Packs samples into one row of `tokens` tokens."""
    ids = torch.full((tokens,), pad)
    labels, pointers = torch.full((tokens,), -100), torch.full((tokens,), UNKNOWN)
    chat = torch.zeros(tokens, dtype=torch.bool)
    positions, bounds, speech = torch.zeros(tokens, dtype=torch.long), [0], 0
    for sample in chosen:
        start, size = bounds[-1], len(sample.ids)
        ids[start : start + size] = torch.from_numpy(sample.ids)
        first = sample.first_target
        if sample.chat is None:
            labels[start + first - 1 : start + size - 1] = ids[start + first : start + size]
            speech += size - first - 2
        else:
            targets = torch.from_numpy(sample.chat)[1:]
            labels[start : start + size - 1] = torch.where(targets, ids[start + 1 : start + size], -100)
            chat[start : start + size - 1] = targets
        where = torch.from_numpy(sample.pointers)
        pointers[start : start + size] = torch.where(where >= 0, where + start, UNKNOWN)
        positions[start : start + size] = torch.arange(size)
        bounds.append(start + size)
    if bounds[-1] < tokens:
        positions[bounds[-1] :] = torch.arange(tokens - bounds[-1])
        bounds.append(tokens)
    phones = None
    if any(sample.phones is not None for sample in chosen):
        phones = torch.full((tokens,), UNKNOWN)
        for start, sample in zip(bounds, chosen, strict=False):
            if sample.phones is not None:
                phones[start : start + len(sample.ids)] = torch.from_numpy(sample.phones)
    starts = torch.tensor(bounds, dtype=torch.int32)
    taught = [i for i, sample in enumerate(chosen) if (sample.pointers >= 0).any()]
    return Pack(ids, labels, positions, pointers, chat, bounds, starts, taught, speech / rate, [], 0, phones)

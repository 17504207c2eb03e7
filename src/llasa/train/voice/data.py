"""Prepares recordings for fine-tuning: encodes them, holds some out, and chooses one as the reference.

Clips are cut and levelled like references, and their texts are normalised like texts to be spoken. No language model is
loaded here.
"""

import math
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llasa.codec.convert import read as read_codec
from llasa.data.encode import EncodeJob, encode, prepare
from llasa.data.filters import Limits
from llasa.data.report import Report
from llasa.data.shards import read_rows, shard_files
from llasa.data.sources import LISTED, Source, find_source
from llasa.errors import LlasaError
from llasa.files import absolute, is_folder
from llasa.models.folder import context_length, find_codec, is_lora, load_tokenizer, read_config
from llasa.models.hub import EMBEDDED, HUB_ID, find_model
from llasa.speak.plan import Planner
from llasa.speak.speech import LEVEL
from llasa.text.lexicon import load_lexicon
from llasa.train.lm.data import Corpus, Pack, Reader, Sample, pack
from llasa.vocabulary import Vocabulary, read_vocabulary
from llasa.voice import Voice

FEWEST = 5  # clips
SHARD = 50  # clips; a stop loses the encoding of at most so many
SHORTEST, BEST, LONGEST = 3.0, 5.0, 8.0  # seconds of a reference
CLIP, REFERENCE = 0.7, 0.3  # the largest share of a model's context for the codes of a clip, and of a reference


@dataclass(frozen=True)
class Base:
    """The model to start from, as its folder describes it.

    Attributes:
        name: the name under which another folder refers to it: an embedded name, a hub id, or an absolute path.
        rate: codes a second.
        sampling_rate: the rate of audio, in Hz.
        context: longest sequence, in tokens.
    """

    name: str
    folder: Path
    codec: Path
    config: dict[str, Any]
    vocabulary: Vocabulary
    lexicon: dict[str, str] | None
    rate: float
    sampling_rate: int
    context: int

    def clean(self, text: str) -> str:
        """A text as the model reads it when it speaks, before it becomes phones."""
        planner = Planner(self.vocabulary, self.lexicon, self.rate, self.context)
        return planner.cleaner(text)(text)


def read_base(name: str) -> Base:
    """Reads a model's folder without its weights.

    Raises:
        LlasaError: the model is missing or damaged, is a LoRA, or does not speak; or its codec is missing or does not
            fit.
    """
    folder = find_model(name)
    if is_lora(folder):
        raise LlasaError(f"{name} is a LoRA: make a model of it first, with `llasa merge {name} FOLDER`")
    config = read_config(folder)
    vocabulary = read_vocabulary(load_tokenizer(folder))
    codec = find_codec(folder)
    found, _ = read_codec(codec)
    if (size := math.prod(found.quantization_levels)) != vocabulary.size:
        raise LlasaError(
            f"the model in {folder} has {vocabulary.size} speech tokens and its codec {codec} {size} codes: correct "
            "`codec` in its config.json"
        )
    on_hub = HUB_ID.fullmatch(name) and not is_folder(name)
    called = name if name in EMBEDDED or on_hub else str(absolute(folder))
    sampling_rate, context = found.sampling_rate, context_length(config)
    codes, lexicon = sampling_rate / found.hop_length, load_lexicon(folder)
    return Base(called, folder, codec, config, vocabulary, lexicon, codes, sampling_rate, context)


def find_recordings(data: str, layout: str | None) -> Source:
    """Lists recordings. If this does not need to open archives, their texts and speakers are checked at once.

    Raises:
        LlasaError: there are no recordings or too few, none has a text, or they are of several speakers.
    """
    source = find_source(data, layout, SHARD)
    if source.layout in LISTED:
        items = [item for task in source.tasks for item in task.read()]
        _check(data, source.layout, [item.speaker for item in items if item.text], len(items))
    return source


def _check(data: str, layout: str, speakers: list[str], count: int) -> None:
    """Refuses recordings that no voice can be learnt from, given the speaker of every clip that has a text.

    In a plain folder, the name of a clip's own folder counts as its speaker, so several speakers are allowed there.
    """
    if not speakers:
        raise LlasaError(
            f"none of the {count} recordings in {data} has a text: put NAME.txt beside NAME.wav, or a metadata.csv of "
            "name|text lines beside them all"
        )
    if len(speakers) < FEWEST:
        raise LlasaError(
            f"{data} has {len(speakers)} recordings with a text, too few to learn a voice from: give {FEWEST} or more, "
            "better some minutes; or clone the voice without training, with `llasa say --voice`"
        )
    if layout != "folder" and len(names := sorted(set(speakers))) > 1:
        shown = ", ".join(repr(name) for name in names[:3])
        raise LlasaError(
            f"{data} has {len(names)} speakers ({shown}{', ...' * (len(names) > 3)}): give recordings of only one"
        )


def encode_recordings(
    source: Source, base: Base, out: Path, device: str, advance: Callable[[float, float, float], None]
) -> Report:
    """Encodes the recordings with the model's codec; shards from an earlier call are kept.

    Args:
        advance: called with the number of finished shards and of all, and the seconds of audio encoded by this call.

    Raises:
        LlasaError: as `data.encode.encode`.
    """
    limits = Limits(longest=min(Limits.longest, CLIP * base.context / base.rate))
    job = EncodeJob(out, str(base.codec), device, limits, workers=2, level=LEVEL)
    shards = len(source.tasks)
    return encode(source, job, lambda ready, seconds, _: advance(ready, shards, seconds), lambda line: None)


@dataclass(frozen=True)
class Clips:
    """The clips for fine-tuning.

    Attributes:
        corpus: all clips, of one speaker; its `order` holds those to train on.
        held_out: the other clips, for validation.
        reference: the clip that becomes the voice's reference, one of those to train on.
    """

    corpus: Corpus
    held_out: list[dict[str, Any]]
    reference: dict[str, Any]

    @property
    def trained(self) -> list[dict[str, Any]]:
        return [self.corpus.rows[index] for index in self.corpus.order]


def read_clips(codes: Path, data: str, layout: str, base: Base, name: str) -> Clips:
    """Reads the codes, holds clips out and chooses the reference. The choice is the same every time.

    Raises:
        LlasaError: the filters left too few clips.
    """
    rows = [row for file in shard_files(codes) for row in read_rows(file, ["text", "speaker"])]
    if not rows:
        raise LlasaError(f"the filters dropped every recording in {data}: see {codes / 'report.json'} for the reasons")
    _check(data, layout, [row["speaker"] for row in rows if row["text"]], len(rows))
    corpus = Corpus({codes: 1})
    corpus.rows = [row | {"text": base.clean(row["text"]), "speaker": name} for row in corpus.rows]
    readable = [index for index, row in enumerate(corpus.rows) if any(map(str.isalnum, row["text"]))]
    if len(readable) < FEWEST:
        raise LlasaError(
            f"this model can read only {len(readable)} texts in {data}: check that they are in the model's language"
        )
    # Held-out clips are spread over the recordings, whose sound may change from the first to the last.
    count = min(24, max(2, len(readable) // 12))
    held = {readable[(2 * i + 1) * len(readable) // (2 * count)] for i in range(count)}
    corpus.order = [index for index in readable if index not in held]
    corpus.speakers = {name: corpus.order}
    reference = choose_reference([corpus.rows[index] for index in corpus.order], base)
    return Clips(corpus, [corpus.rows[index] for index in sorted(held)], reference)


def choose_reference(rows: list[dict[str, Any]], base: Base) -> dict[str, Any]:
    """The best reference among some clips: a complete, plain sentence of usual length, at the speaker's usual pace."""
    longest = min(LONGEST, REFERENCE * base.context / base.rate)
    paces = [len(row["codes"]) / max(1, len(row["text"])) for row in rows]
    usual = float(np.median(paces))

    def unfit(index: int) -> tuple[bool, bool, bool, float]:
        row, seconds = rows[index], len(rows[index]["codes"]) / base.rate
        whole = re.search(r"[.!?。！？]$", row["text"]) is not None and not row["text"][0].islower()
        plain = re.search(r"[\d\"()\[\]:;]", row["text"]) is None
        oddness = abs(math.log(paces[index] / usual)) + abs(math.log(seconds / min(BEST, longest)))
        return not min(SHORTEST, longest / 2) <= seconds <= longest, not whole, not plain, oddness

    return rows[min(range(len(rows)), key=unfit)]


def make_voice(source: Source, clips: Clips, base: Base, name: str, codec_id: str) -> Voice:
    """The reference as a voice, with its recording."""
    row = clips.reference
    item = next(item for task in source.tasks for item in task.read() if item.id == row["id"])
    found, codes = prepare(item, base.sampling_rate, Limits(), LEVEL), np.asarray(row["codes"], np.uint16)
    return Voice(name, " ".join(item.text.split()), codes, codec_id, found.samples, base.sampling_rate)


def validation_packs(clips: Clips, reader: Reader, base: Base, tokens: int) -> list[Pack]:
    """The held-out clips, each after the reference as in use. The loss is on the clip alone."""
    pad = base.vocabulary.tokenizer.pad_token_id or 0
    packs: list[Pack] = []
    waiting: list[Sample] = []
    for sample in sorted(_after_reference(clips, reader, base.context), key=lambda sample: len(sample.ids)):
        if sum(len(other.ids) for other in waiting) + len(sample.ids) > tokens and waiting:
            packs.append(_packed(waiting, tokens, base.rate, pad))
            waiting = []
        waiting.append(sample)
    return [*packs, _packed(waiting, tokens, base.rate, pad)]


def _packed(samples: list[Sample], tokens: int, rate: float, pad: int) -> Pack:
    return pack(samples, max(tokens, sum(len(sample.ids) for sample in samples)), rate, pad)


def _after_reference(clips: Clips, reader: Reader, context: int) -> Iterable[Sample]:
    for row in clips.held_out:
        sample = reader.sample([clips.reference, row], random.Random(0))
        if len(sample.ids) > context:  # a long clip leaves no room for the reference
            yield reader.sample([row], random.Random(0))
        else:
            yield replace(sample, first_target=len(sample.ids) - 1 - len(row["codes"]))

"""Makes the sound of one item in one row: says it, continues it, copies it, or reads what a person said."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from llasa import audio
from llasa.codec import Codec, load_codec
from llasa.errors import NoSound
from llasa.models.defaults import check_device
from llasa.reference import condition
from llasa.speak.speech import Speech, Utterance, join
from llasa.suites.lists import Item
from llasa.suites.table_rows import CHUNK, Row
from llasa.text.splitting import chunks
from llasa.tts import Llasa
from llasa.verifiers import RATE
from llasa.voice import Voice


@dataclass
class Made:
    """What a row makes of an item.

    Attributes:
        samples: (N,) float32.
        rate: Hz.
        begin: seconds at its start that are the prompt, which only recognisers hear.
        notes: what the reader of the report should know.
        codes, codebook: of a codec's copy, and how many codes there are.
        tokens: how many the language model sampled.
    """

    samples: np.ndarray
    rate: int
    begin: float = 0.0
    notes: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    codebook: int = 0
    tokens: int = 0


Maker = Callable[[Row, Item, int], Made]


def recording(item: Item) -> Made:
    """What a person said."""
    assert item.recording is not None
    return Made(audio.load(item.recording), RATE, item.cut)


def reference(item: Item) -> np.ndarray | None:
    """(N,) at 16 kHz: the recording that judges compare with, if there is one."""
    if item.prompt is None:
        return None
    samples = audio.load(item.prompt)
    return samples[: round(item.cut * RATE)] if item.cut else samples


def speaker(model: str, voice: str | None) -> Maker:
    """Says items with a model, in each item's own voice, or in one of the model's where an item has none."""
    tts = Llasa.load(model)
    default = tts.voice(voice)

    def make(row: Row, item: Item, seed: int) -> Made:
        own = default if item.prompt is None else _voice(tts, item)
        began = np.empty(0, np.float32)
        if item.cut and own is not None:
            began = tts.codec.decode(own.codes)
        try:
            speeches = [tts.say(text, own, seed, search=row.strategy, verify=row.verify) for text in _texts(row, item)]
        except NoSound:
            return Made(began, tts.rate, item.cut, ["it ended without a sound"])
        samples = join([_paused(one, each) for each in speeches for one in each.utterances], tts.rate)
        tokens = sum(each.search.tokens if each.search else len(each.codes) for each in speeches)
        samples = np.concatenate([began, samples])
        return Made(samples, tts.rate, len(began) / tts.rate, _notes(speeches), tokens=tokens)

    def quietly(row: Row, item: Item, seed: int) -> Made:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters of them is in the notes
            return make(row, item, seed)

    return quietly


def copier(model: str) -> Maker:
    """Sends recordings through a codec, which may be a codec's folder or a model's."""
    codec: Codec = load_codec(model, check_device(None))

    def make(_: Row, item: Item, __: int) -> Made:
        assert item.recording is not None
        original = audio.load(item.recording, codec.rate)
        codes = codec.encode(original)
        return Made(
            codec.decode(codes)[: len(original)], codec.rate, codes=codes.tolist(), codebook=codec.codebook_size
        )

    return make


def _texts(row: Row, item: Item) -> list[str]:
    return [chunk.text for chunk in chunks(item.text, CHUNK, str.strip)] if row.chunked else [item.text]


def _voice(tts: Llasa, item: Item) -> Voice:
    """The prompt as a voice. A prompt that is continued is used as it is, any other as `llasa say` would use it.

    Raises:
        LlasaError: it cannot be a reference.
    """
    assert item.prompt is not None
    samples = audio.load(item.prompt, tts.rate)
    samples = samples[: round(item.cut * tts.rate)] if item.cut else condition(samples, tts.rate)
    return Voice(item.id, item.prompt_text, tts.codec.encode(samples), tts.codec_id, samples, tts.rate)


def _paused(utterance: Utterance, speech: Speech) -> Utterance:
    """The utterance, with a pause after the last one of a chunk as well."""
    return replace(utterance, pause=0.15) if utterance is speech.utterances[-1] else utterance


def _notes(speeches: list[Speech]) -> list[str]:
    notes = []
    if cut := sum(not finished for each in speeches for finished in each.finished):
        notes.append(f"{cut} of {sum(len(each.finished) for each in speeches)} chunks did not end and were cut off")
    for each in speeches:
        notes += each.search.notes if each.search else []
    return list(dict.fromkeys(notes))

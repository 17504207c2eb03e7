"""Speaks a request without a search: all chunks follow the same voice, and as many run at once as fit.

Chunks do not depend on one another, so a chunk that fails is simply spoken again, and the audio depends on the seed
alone. A chunk fails if it is nearly silent, or if the model's recogniser hears a word more often or less often than the
text has it. Words that repeat and texts of few words are miscounted often enough to listen for that. A word that comes
once too often in every take is cut out.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from llasa import audio
from llasa.codec import Codec
from llasa.engine import Backend
from llasa.errors import LlasaWarning
from llasa.speak.plan import Piece
from llasa.speak.request import Request
from llasa.speak.speech import Utterance, is_faint
from llasa.speak.takes import ATTEMPTS, Take, takes
from llasa.text.wording import miscounts, words

SILENCE = 1e6  # nats: more than any doubt
HEARD = 16000  # Hz, the rate that recognisers take


def utterances(
    backend: Backend, codec: Codec, request: Request, listen: Callable[[], Any] | None = None
) -> Iterator[Utterance]:
    """Yields the chunks in order, each as soon as it and all before it are done.

    Args:
        listen: gives the model's own recogniser (`verifiers.content.CtcContent`); called only for texts that need it.
    """
    first, spoken = 0, 0  # chunks, codes
    while first < len(request.chunks):
        last = first + 1 if request.needs_voice else len(request.chunks)
        pieces = request.pieces(first, last)
        results = takes(backend, request, pieces, first, spoken)
        for index, piece in enumerate(pieces, first):
            utterance = _decode(codec, piece, results)
            if request.sampling.temperature > 0:
                recogniser = listen() if listen and miscounts(words(piece.text)) else None
                utterance = _best(backend, codec, request, piece, index, spoken, utterance, recogniser)
            spoken += len(utterance.codes)
            yield utterance
        request = request.after(piece, utterance.codes, utterance.finished)
        first = last


def _decode(codec: Codec, piece: Piece, results: Iterator[Take]) -> Utterance:
    """The next take, which is of this piece, with its sound."""
    began = time.perf_counter()
    take = next(results)
    generated = time.perf_counter()
    samples = codec.decode(take.codes) if len(take.codes) else np.empty(0, np.float32)
    work = {"generate": generated - began, "decode": time.perf_counter() - generated}
    return Utterance(piece.text, take.codes, samples, piece.pause, take.finished, work)


def _fault(codec: Codec, recogniser: Any | None, spoken: Utterance) -> float:
    """How wrong a chunk sounds: 0 if nothing is wrong with it, above `SILENCE` if it is nearly silent."""
    if is_faint(spoken.samples, codec.rate):
        return SILENCE - audio.loudness(spoken.samples, codec.rate)
    if recogniser is None:
        return 0.0
    return min(SILENCE, max(0.0, recogniser.doubt(spoken.text, _heard(codec, spoken))))


def _heard(codec: Codec, spoken: Utterance) -> np.ndarray:
    return audio.resample(spoken.samples, codec.rate, HEARD)


def _without_surplus(codec: Codec, recogniser: Any, spoken: Utterance) -> Utterance | None:
    """A chunk without the word or phrase that it says once too often; None if that is not what is wrong with it."""
    span = recogniser.surplus(spoken.text, _heard(codec, spoken))
    if span is None:
        return None
    first, last = (round(seconds * codec.rate / codec.hop) for seconds in span)
    codes = np.concatenate([spoken.codes[:first], spoken.codes[last:]])
    return replace(spoken, codes=codes, samples=codec.decode(codes)) if len(codes) else None


def _best(
    backend: Backend, codec: Codec, request: Request, piece: Piece, index: int, spoken: int, first: Utterance,
    recogniser: Any | None,
) -> Utterance:  # fmt: skip
    """Speaks a piece again if it sounds wrong, and keeps the best; if all are nearly silent, with a warning.

    If none is right, a word that comes once too often is cut out.

    Args:
        index: its number in the text.
        spoken: codes of the chunks before it.
        first: how it came out.
        recogniser: hears how often words are said, if that is to be heard.
    """
    fault = partial(_fault, codec, recogniser)
    tried, faults = [first], [fault(first)]
    while len(tried) < ATTEMPTS and min(faults) > 0:
        results = takes(backend, request, [piece], index, spoken, len(tried) * ATTEMPTS)
        tried.append(_decode(codec, piece, results))
        faults.append(fault(tried[-1]))
    if recogniser and 0 < min(faults) < SILENCE:
        heard = [one for one, wrong in zip(tried, faults, strict=True) if wrong < SILENCE]
        shorter = [cut for one in heard if (cut := _without_surplus(codec, recogniser, one))]
        tried, faults = [*tried, *shorter], [*faults, *map(fault, shorter)]
    if min(faults) > SILENCE:
        warnings.warn(
            f"every take of {piece.text[:40]!r} is nearly silent: try another seed or voice", LlasaWarning, stacklevel=2
        )
    work = {what: sum(one.work[what] for one in tried[:ATTEMPTS]) for what in first.work}
    return replace(tried[faults.index(min(faults))], work=work)

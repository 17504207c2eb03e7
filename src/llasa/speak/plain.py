"""Speaks a request without a search: all chunks follow the same voice, and as many run at once as fit.

Chunks do not depend on one another, so a chunk that fails is simply spoken again, and the audio depends on the seed
alone.
"""

import time
import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from llasa import audio
from llasa.codec import Codec
from llasa.engine import Backend
from llasa.errors import LlasaWarning
from llasa.speak.plan import Piece
from llasa.speak.request import Request
from llasa.speak.speech import Utterance, is_faint
from llasa.speak.takes import ATTEMPTS, Take, takes


def utterances(backend: Backend, codec: Codec, request: Request) -> Iterator[Utterance]:
    """Yields the chunks in order, each as soon as it and all before it are done."""
    first, spoken = 0, 0  # chunks, codes
    while first < len(request.chunks):
        last = first + 1 if request.needs_voice else len(request.chunks)
        pieces = request.pieces(first, last)
        results = takes(backend, request, pieces, first, spoken)
        for index, piece in enumerate(pieces, first):
            utterance = _decode(codec, piece, results)
            if is_faint(utterance.samples, codec.rate) and request.sampling.temperature > 0:
                utterance = _again(backend, codec, request, piece, index, spoken, utterance)
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


def _again(
    backend: Backend, codec: Codec, request: Request, piece: Piece, index: int, spoken: int, faint: Utterance
) -> Utterance:
    """Speaks a piece again that came out nearly silent; if it always does, the loudest is kept, with a warning.

    Args:
        index: its number in the text.
        spoken: codes of the chunks before it.
        faint: how it came out.
    """
    tried = [faint]
    for attempt in range(1, ATTEMPTS):
        tried.append(_decode(codec, piece, takes(backend, request, [piece], index, spoken, attempt * ATTEMPTS)))
        if not is_faint(tried[-1].samples, codec.rate):
            break
    else:
        warnings.warn(
            f"every take of {piece.text[:40]!r} is nearly silent: try another seed or voice", LlasaWarning, stacklevel=2
        )
    work = {what: sum(one.work[what] for one in tried) for what in faint.work}
    return replace(max(tried, key=lambda one: audio.loudness(one.samples, codec.rate)), work=work)

"""Speaks a request as a stream: one row at a time, decoded while it grows.

Audio that the listener has got cannot be taken back, so there is no second attempt: a piece that runs away is cut off.
"""

from collections.abc import Iterator

import numpy as np

from llasa.codec import Codec
from llasa.engine import Backend
from llasa.errors import NoSound
from llasa.speak.plan import Piece
from llasa.speak.request import Request, take_seed
from llasa.speak.speech import silence
from llasa.speak.stretch import Stretcher

# Codes per array of audio: few at first for a quick start, more later, because larger arrays cost less.
FIRST_CODES, SECOND_CODES, MORE_CODES = 16, 16, 50


def stream(backend: Backend, codec: Codec, request: Request) -> Iterator[np.ndarray]:
    """The audio of all chunks with their pauses, at the request's speed, in arrays (N,) float32 of any length but 0.

    Raises:
        NoSound: the model ended every chunk without a sound.
    """
    stretcher = Stretcher(codec.rate, request.speed)
    for samples in _spoken(backend, codec, request):
        if len(ready := stretcher.push(samples)):
            yield ready
    if len(rest := stretcher.finish()):
        yield rest


def _spoken(backend: Backend, codec: Codec, request: Request) -> Iterator[np.ndarray]:
    """The audio at speed 1, in arrays (N,) float32 of any length."""
    decoder = codec.decode_stream()
    count = 0
    for index in range(len(request.chunks)):
        piece = request.piece(index)
        codes = np.empty(0, np.uint16)
        for new in stream_take(backend, request, piece, index):
            codes = np.concatenate([codes, new])
            request.report(count + len(codes), piece.expected - len(codes), index + 1)
            yield decoder.push(new)
        count += len(codes)
        request.report(count, 0.0, index + 1)
        yield np.concatenate([decoder.finish(), silence(piece.pause, codec.rate)])
        request = request.after(piece, codes, len(codes) < piece.limit)
    if not count:
        raise NoSound


def stream_take(backend: Backend, request: Request, piece: Piece, index: int) -> Iterator[np.ndarray]:
    """Yields the codes of one piece as they are sampled, in arrays (T,) uint16.

    Args:
        piece: a piece of the request.
        index: its number in the text, from which its seed follows.
    """
    vocabulary, seed = request.planner.vocabulary, take_seed(request.seed, index, 0)
    state = backend.start([piece.prompt], 1, [seed], request.sampling, piece.limit, [piece.least])
    state = backend.extend(state, FIRST_CODES)
    given, step = 0, SECOND_CODES
    while True:
        tokens = state.tokens[0]
        if len(tokens) > given:
            yield vocabulary.codes(tokens[given:])
            given = len(tokens)
        if state.stopped[0]:
            return
        state = backend.extend(state, step)
        step = MORE_CODES

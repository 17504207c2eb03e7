"""A stream's samples are those of decoding whole, as near as the decoder's global statistics allow."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llasa.codec import load_codec, streaming
from llasa.codec.streaming import StreamDecoder, crossfade
from llasa.errors import LlasaError


class Echo:
    """Stands for a codec whose samples depend on their own code alone, which shows every code lost or moved."""

    hop = 4
    codebook_size = 1000

    def __init__(self) -> None:
        self.longest = 0

    def decode_window(self, codes: np.ndarray) -> np.ndarray:
        self.longest = max(self.longest, len(codes))
        return np.repeat(codes.astype(np.float32), self.hop)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 20), st.integers(0, 12), st.integers(0, 30))
def test_every_code_comes_out_once_in_order(pushes: list[int], context: int, lookahead: int, before: int) -> None:
    codec = Echo()
    stream = StreamDecoder(codec, context, lookahead, np.full(before, 999))  # type: ignore[arg-type]
    codes = np.arange(sum(pushes))
    pieces, done = [], 0
    for count in pushes:
        pieces.append(stream.push(codes[done : done + count]))
        done += count
        assert sum(map(len, pieces)) == max(0, done - lookahead) * codec.hop
    pieces.append(stream.finish())
    np.testing.assert_allclose(np.concatenate(pieces), np.repeat(codes, codec.hop), atol=1e-3)
    assert codec.longest <= context + lookahead + 40


def test_a_finished_stream_is_as_new(codec_folder: Path) -> None:
    codec = load_codec(codec_folder)
    codes = np.random.default_rng(0).integers(0, 64, 60)
    stream = codec.decode_stream()
    first = [stream.push(codes[:30]), stream.push(codes[30:]), stream.finish()]
    second = [stream.push(codes[:30]), stream.push(codes[30:]), stream.finish()]
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(second))
    assert stream.finish().shape == (0,)


def test_what_came_before_is_context_but_not_heard(codec_folder: Path) -> None:
    codec = load_codec(codec_folder)
    codes = np.random.default_rng(3).integers(0, 64, 120)
    stream = codec.decode_stream(before=codes[:60])
    samples = stream.push(codes[60:])
    np.testing.assert_allclose(samples, codec.decode(codes)[60 * 320 : -10 * 320], atol=1e-5)
    stream.finish()
    np.testing.assert_array_equal(stream.push(codes[60:]), samples)
    with pytest.raises(LlasaError, match="outside"):
        codec.decode_stream(before=np.array([64]))


def test_one_push_is_decoding_whole(codec_folder: Path) -> None:
    codec = load_codec(codec_folder)
    codes = np.random.default_rng(0).integers(0, 64, 60)
    stream = codec.decode_stream()
    samples = np.concatenate([stream.push(codes), stream.finish()])
    np.testing.assert_allclose(samples, codec.decode(codes), atol=1e-5)


def test_a_large_push_is_decoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PIECE", 30)
    codec = Echo()
    stream = StreamDecoder(codec, 10, 5)  # type: ignore[arg-type]
    samples = np.concatenate([stream.push(np.arange(500)), stream.finish()])
    np.testing.assert_allclose(samples, np.repeat(np.arange(500), 4), atol=1e-3)
    assert codec.longest == 45


def test_streaming_stays_close_to_decoding_whole(codec_folder: Path) -> None:
    codec = load_codec(codec_folder)
    codes = np.random.default_rng(2).integers(0, 64, 400)
    whole = codec.decode(codes)
    stream = codec.decode_stream()
    samples = np.concatenate([*(stream.push(codes[i : i + 25]) for i in range(0, 400, 25)), stream.finish()])
    assert samples.shape == whole.shape
    settled = slice(100 * 320, None)  # from where the context is full
    error = np.sqrt(np.mean((samples[settled] - whole[settled]) ** 2) / np.mean(whole[settled] ** 2))
    assert 0 < error < 0.3


def test_crossfade_keeps_what_both_agree_on() -> None:
    piece = np.linspace(0, 1, 50, dtype=np.float32)
    np.testing.assert_allclose(crossfade(piece[:20], piece), piece, atol=1e-6)
    faded = crossfade(np.zeros(10, dtype=np.float32), np.ones(30, dtype=np.float32))
    assert np.all(np.diff(faded) >= 0)
    assert 0 < faded[0] < 0.1
    assert faded[10] == 1

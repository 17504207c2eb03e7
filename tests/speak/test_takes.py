"""Takes: their order, their seeds, which are tried again, and that several at once are what each is alone."""

from dataclasses import replace

import numpy as np
import psutil
import pytest
from small_models import ALPHABET, make_lm

from llasa.engine import Sampling
from llasa.engine.torch_engine import Engine
from llasa.errors import LlasaError
from llasa.speak import takes as speaking
from llasa.speak.plan import Piece, Planner
from llasa.speak.request import Progress, Request, draw_seed, make_request, take_seed
from llasa.speak.rows import Rows
from llasa.speak.stream import SIZES, Part, Reading
from llasa.speak.takes import Take, row_count, takes
from llasa.vocabulary import character_tokenizer, read_vocabulary

VOCABULARY = read_vocabulary(character_tokenizer(ALPHABET, 64, context=512))
MODEL = make_lm(len(VOCABULARY.tokenizer))
ENGINE = Engine(MODEL, VOCABULARY.first, VOCABULARY.size, VOCABULARY.end)
HOT = Sampling(temperature=1.0)


def make_pieces(count: int, expected: float = 20, limit: int = 60) -> list[Piece]:
    """Pieces of different texts; the random model ends at random, after about 60 codes."""
    texts = [f"word {'abcdefghijklmnopqrstuvwxyz'[i]}" for i in range(count)]
    return [Piece(text, VOCABULARY.prompt(text), expected, limit, 0, 0.0) for text in texts]


def request(seed: int = 7, sampling: Sampling = HOT, on_progress: Progress | None = None) -> Request:
    """What a text's pieces have in common; the pieces themselves are made apart."""
    planner = Planner(VOCABULARY, None, 50, 512)
    return Request("", (), (), planner, None, seed, sampling, on_progress=on_progress)


def speak(pieces: list[Piece], seed: int = 7, first: int = 0) -> list[Take]:
    return list(takes(ENGINE, request(seed), pieces, first))


def test_each_take_is_what_it_is_alone_whatever_else_is_spoken(monkeypatch: pytest.MonkeyPatch):
    pieces = make_pieces(7)
    together = speak(pieces)
    monkeypatch.setattr(speaking, "ROWS", 2)
    pairs = speak(pieces)
    monkeypatch.setattr(speaking, "ROWS", 1)
    alone = speak(pieces)
    assert len(together) == 7
    for others in (pairs, alone):
        for a, b in zip(together, others, strict=True):
            np.testing.assert_array_equal(a.codes, b.codes)
            assert a.finished == b.finished
    single = speak(pieces[3:4], first=3)
    np.testing.assert_array_equal(single[0].codes, together[3].codes)


def test_the_seed_decides():
    pieces = make_pieces(2)
    first, again, other = speak(pieces, seed=1), speak(pieces, seed=1), speak(pieces, seed=2)
    np.testing.assert_array_equal(first[1].codes, again[1].codes)
    assert [t.codes.tolist() for t in first] != [t.codes.tolist() for t in other]
    assert len({take_seed(s, p, a) for s in range(3) for p in range(3) for a in range(3)}) == 27


def test_an_implausible_take_is_tried_again_and_the_best_kept(monkeypatch: pytest.MonkeyPatch):
    pieces = make_pieces(12, expected=50, limit=60)
    seeds: list[int] = []
    start = Engine.start

    def counting(self, prompts, samples, given, *rest):
        seeds.extend(given)
        return start(self, prompts, samples, given, *rest)

    monkeypatch.setattr(Engine, "start", counting)
    best = speak(pieces)
    again = [i for i in range(12) if take_seed(7, i, 1) in seeds]
    third = [i for i in range(12) if take_seed(7, i, 2) in seeds]
    assert 0 < len(third) < len(again) < 12
    assert len(seeds) == 12 + len(again) + len(third)  # none is tried a fourth time
    monkeypatch.setattr(speaking, "ATTEMPTS", 1)
    first = speak(pieces)
    for i, piece in enumerate(pieces):
        plausible = piece.is_plausible(len(first[i].codes), first[i].finished)
        assert plausible == (i not in again)
        if plausible:
            np.testing.assert_array_equal(best[i].codes, first[i].codes)
        before, after = (piece.distance(len(t.codes), t.finished) for t in (first[i], best[i]))
        assert after <= before
    assert sum(t.finished for t in best) > sum(t.finished for t in first)


def test_what_never_ends_is_cut_at_its_own_limit():
    mute = make_lm(len(VOCABULARY.tokenizer))
    mute.lm_head.weight.data[VOCABULARY.end] = 0  # as unlikely as it gets with logits of both signs
    engine = Engine(mute, VOCABULARY.first, VOCABULARY.size, VOCABULARY.end)
    pieces = [replace(piece, limit=limit) for piece, limit in zip(make_pieces(3), (5, 33, 60), strict=True)]
    result = list(takes(engine, request(1, Sampling(temperature=1.0, top_k=5)), pieces))
    assert [len(take.codes) for take in result] == [5, 33, 60]
    assert not any(take.finished for take in result)


def test_greedy_takes_are_not_repeated(monkeypatch: pytest.MonkeyPatch):
    calls = []
    start = Engine.start
    monkeypatch.setattr(Engine, "start", lambda self, *rest: calls.append(rest) or start(self, *rest))
    list(takes(ENGINE, request(1, Sampling(temperature=0.0)), make_pieces(2, expected=1000, limit=30)))
    assert len(calls) == 1


def test_takes_come_in_order_as_soon_as_they_can(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speaking, "ROWS", 1)
    pieces = make_pieces(6)
    reported: list[tuple[float, float]] = []
    stream = takes(ENGINE, request(on_progress=lambda *both: reported.append(both)), pieces)
    next(stream)
    assert reported[-1][0] < 2  # one row: the others have not begun
    rest = list(stream)
    spoken, expected = reported[-1]
    assert len(rest) == 5
    assert spoken == expected
    assert all(so_far <= total for so_far, total in reported)


def reading(text: str) -> tuple[Reading, list[Piece]]:
    """A text that is to be read as a stream, and its pieces."""
    planner = Planner(VOCABULARY, None, 50, 512)
    made = make_request(planner, HOT, text, None, 7, {"speaker": "anna", "max_seconds": 4.0})
    return Reading(made), made.pieces(0, len(made.chunks))


def read(stream: Reading, step: int | None = None) -> list[list[Part]]:
    """The parts of every piece, generated `step` codes at a time, or as many as the next part needs."""
    rows, found = Rows(ENGINE), list[list[Part]]()
    while stream.line is not None:
        if not rows.lines:
            rows.start([stream.line])
            found.append([])
        rows.extend(step or stream.missing)
        found[-1] += stream.parts()
    return found


def test_a_stream_is_the_take_in_parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speaking, "ATTEMPTS", 1)
    text = "It was late. The lamp had burned low, and nobody spoke for some time.\n\nThen a dog ran by."
    stream, pieces = reading(text)
    whole = speak(pieces)
    assert len(pieces) > 1
    found = read(stream)
    for parts, take in zip(found, whole, strict=True):
        np.testing.assert_array_equal(np.concatenate([part.codes for part in parts]), take.codes)
        sizes = [len(part.codes) for part in parts[:-1]]
        assert sizes == [*SIZES, *[SIZES[-1]] * len(sizes)][: len(sizes)]
        assert [part.pause for part in parts[:-1]] == [None] * len(sizes)
    assert [parts[-1].pause for parts in found] == [piece.pause for piece in pieces]


@pytest.mark.parametrize("step", [1, 7, 400])
def test_parts_do_not_depend_on_how_many_codes_come_at_once(step: int):
    text = "It was late. The lamp had burned low, and nobody spoke for some time."
    for ours, theirs in zip(read(reading(text)[0]), read(reading(text)[0], step), strict=True):
        assert [part.codes.tolist() for part in ours] == [part.codes.tolist() for part in theirs]


def test_seeds():
    assert draw_seed(5) == 5
    assert draw_seed(None) != draw_seed(None)
    with pytest.raises(LlasaError, match="must be 0 or more"):
        draw_seed(-1)


@pytest.mark.parametrize(
    ("free", "width", "rows"), [(2**30, 512, 16), (2**22, 512, 4), (2**22, 1024, 2), (2**21, 1024, 1), (0, 512, 1)]
)
def test_rows_are_bounded_by_a_share_of_the_free_memory(
    free: int, width: int, rows: int, monkeypatch: pytest.MonkeyPatch
):
    memory = psutil.virtual_memory()._replace(available=free)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    # Two layers, keys and values, two heads of 16, of four bytes: 512 a token.
    assert row_count(ENGINE, width) == rows


def test_no_take_ends_before_its_least() -> None:
    pieces = [replace(piece, least=15) for piece in make_pieces(20, expected=20, limit=60)]
    assert min(len(take.codes) for take in takes(ENGINE, request(), pieces)) >= 15

"""The strategies with exact toy verifiers, on a small model: what they choose, what they compute, what they tell.

The beam is compared with a second writing of it here that prefills and samples every hypothesis anew.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from llasa.engine.state import State
from llasa.errors import LlasaError
from llasa.search import beam, pool, score
from llasa.search.chunks import search_chunk
from llasa.search.pool import Pool, Rows
from llasa.search.strategy import parse
from llasa.search.task import Task, Tools
from llasa.speak import takes
from llasa.speak.account import Account, Candidate
from llasa.speak.request import take_seed
from llasa.text.splitting import chunks
from llasa.tts import Llasa
from llasa.verifiers import Batch
from llasa.verifiers.combine import Scorer, Stage, Term

TEXT = "It was late at night."
# No take of it ends within two seconds.
LONGER = "It was late in the evening, and nobody in the old house by the river spoke, for all of them had walked."


class Toy:
    """A verifier that is a function of the sound; keeps what it was given."""

    needs_text = needs_reference = False

    def __init__(self, measure: Callable[[np.ndarray], float], process: bool = True, name: str = "toy") -> None:
        self.name, self.measure, self.process = name, measure, process
        self.fragments: list[list[np.ndarray]] = []

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        if not ended:
            self.fragments.append(list(batch.audios))
        return np.array([self.measure(audio) for audio in batch.audios])


def brightness(samples: np.ndarray) -> float:
    """Something that differs between any two takes and has nothing to do with their length."""
    return float(np.abs(np.diff(samples)).mean() / (np.abs(samples).mean() + 1e-9))


@pytest.fixture(scope="module")
def llasa(lm_folder: Path) -> Llasa:
    """A small random model, whose takes end by chance after a second or two, and all of them otherwise."""
    return Llasa.load(lm_folder, device="cpu", dtype="float32")


def tools_for(llasa: Llasa, *verifiers: Toy) -> Tools:
    scorer = Scorer([Stage(None, [Term(v.name) for v in verifiers])], {v.name: v for v in verifiers})
    return Tools(llasa.backend, llasa.vocabulary, llasa.codec, scorer, Account("", ""))


def task_for(llasa: Llasa, text: str = TEXT, **changes: Any) -> Task:
    piece = llasa._planner.pieces(chunks(text), llasa.voice())[0]
    return replace(Task(piece, 0, None, 7, llasa.defaults), **changes)


def run(llasa: Llasa, strategy: str, *toys: Toy, **changes: Any) -> tuple[Candidate, Account]:
    tools = tools_for(llasa, *toys)
    chosen, interrupted = search_chunk(tools, task_for(llasa, **changes), parse(strategy))
    assert chosen is not None
    assert not interrupted
    return chosen, tools.account


@pytest.fixture
def counted(llasa: Llasa, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts prefills, and tokens computed by the engine, ends apart."""
    counts = {"prefills": 0, "tokens": 0}
    backend: Any = llasa.backend
    prefill, step = backend._prefill, backend._run

    def counting_prefill(*arguments: Any) -> None:
        counts["prefills"] += 1
        prefill(*arguments)

    def counting_step(state: State, active: list[int], tokens: int) -> int:
        steps = step(state, active, tokens)
        counts["tokens"] += steps * len(active) - sum(state.rows[i].finished for i in active)
        return steps

    monkeypatch.setattr(llasa.backend, "_prefill", counting_prefill)
    monkeypatch.setattr(llasa.backend, "_run", counting_step)
    return counts


@pytest.mark.parametrize("rows", [16, 3])
def test_best_of_n_is_the_best_of_what_say_would_have_said(
    llasa: Llasa, counted: dict[str, int], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takes, "ROWS", rows)
    chosen, account = run(llasa, "best-of:6", Toy(brightness))
    assert counted["prefills"] == 1
    assert [candidate.number for candidate in account.candidates] == list(range(6))
    sound = [candidate for candidate in account.candidates if candidate.condemned is None]
    assert len(sound) > 1
    for candidate in sound:
        assert candidate.scores == {"toy": brightness(candidate.samples)}
        np.testing.assert_array_equal(candidate.samples, llasa.codec.decode(candidate.codes))
    assert chosen is max(sound, key=lambda candidate: brightness(candidate.samples))
    assert [candidate for candidate in account.candidates if candidate.chosen] == [chosen]
    assert account.tokens == sum(len(candidate.codes) for candidate in account.candidates)
    assert account.rows == 6
    assert counted["tokens"] == account.tokens  # each was computed once
    task = task_for(llasa)
    for candidate in account.candidates[:2]:
        seed = take_seed(7, 0, candidate.number)
        state = llasa.backend.start([task.piece.prompt], 1, [seed], task.sampling, task.piece.limit, [task.piece.least])
        state = llasa.backend.extend(state, len(candidate.codes))
        np.testing.assert_array_equal(llasa.vocabulary.codes(state.tokens[0]), candidate.codes)


def test_seeds_reproduce_every_strategy(llasa: Llasa) -> None:
    for written in ("best-of:2", "mixed:1x2@1s+2"):  # which begins with a beam
        first, again, other = (run(llasa, written, Toy(brightness), seed=seed)[0] for seed in (7, 7, 8))
        np.testing.assert_array_equal(first.codes, again.codes)
        assert not np.array_equal(first.codes, other.codes)


def naive_beam(llasa: Llasa, keep: int, width: int, measure: Callable[[np.ndarray], float]) -> np.ndarray:
    """The codes that a beam should find, all of it in one list and every sound decoded anew."""
    task = task_for(llasa)
    backend, piece = llasa.backend, task.piece
    seeds = [take_seed(7, 0, i) for i in range(keep * width)]
    state = backend.start([piece.prompt], keep * width, seeds, task.sampling, piece.limit, [piece.least])
    ended: list[tuple[float, np.ndarray]] = []
    while True:
        state = backend.extend(state, 50)
        pool: list[tuple[float, np.ndarray, int]] = [(score, codes, -1) for score, codes in ended]
        for row, tokens in enumerate(state.tokens):
            codes = llasa.vocabulary.codes(tokens)
            pool.append((measure(codes), codes, -1 if state.finished[row] else row))
        pool.sort(key=lambda entry: entry[0], reverse=True)
        pool = pool[:keep]
        ended = [(score, codes) for score, codes, row in pool if row < 0]
        kept = [row for _, _, row in pool if row >= 0]
        if not kept:
            return max(ended, key=lambda entry: entry[0])[1]
        state = backend.select(state, [row for row in kept for _ in range(width)])


def test_a_beam_finds_what_a_plain_writing_of_it_finds(
    llasa: Llasa, monkeypatch: pytest.MonkeyPatch, counted: dict[str, int]
) -> None:
    def spread(codes: np.ndarray) -> float:
        return float(np.unique(codes).size / max(1, codes.size))

    known: dict[bytes, np.ndarray] = {}

    class OfCodes(Toy):
        """Scores the codes themselves, which it finds by their sound."""

        def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
            return np.array([spread(known[audio.tobytes()]) for audio in batch.audios])

    def remember(candidate: Candidate) -> None:
        known[candidate.samples.tobytes()] = candidate.codes

    plain = score.score

    def scoring(tools: Tools, task: Task, candidates: list[Candidate], *rest: Any, **more: Any) -> None:
        for candidate in candidates:
            remember(candidate)
        plain(tools, task, candidates, *rest, **more)

    for module in (beam, pool):
        monkeypatch.setattr(module, "score", scoring)
    monkeypatch.setattr(score, "judge_sound", lambda *sound: None)
    monkeypatch.setattr(pool, "repeats", lambda codes: False)
    chosen, account = run(llasa, "beam:2x3", OfCodes(brightness))
    assert counted["prefills"] == 1
    assert counted["tokens"] == account.tokens
    np.testing.assert_array_equal(chosen.codes, naive_beam(llasa, 2, 3, spread))


def test_a_beam_hears_fragments_of_a_second_more_each_time(llasa: Llasa) -> None:
    toy = Toy(brightness)
    chosen, account = run(llasa, "beam:2x2", toy, text=LONGER)
    lengths = [{len(samples) for samples in fragments} for fragments in toy.fragments]
    assert lengths == [{16000 * (look + 1)} for look in range(len(lengths))]
    assert chosen.finished
    left = [candidate for candidate in account.candidates if not candidate.finished and not candidate.condemned]
    assert left
    assert len({candidate.number for candidate in account.candidates}) == len(account.candidates)


def test_fragments_sound_like_the_whole() -> None:
    """Of the embedded codec, whose pulses would have another phase if it began later."""
    llasa = Llasa.load("tiny", device="cpu", dtype="float32")
    toy = Toy(brightness)
    _, account = run(llasa, "beam:2x2", toy, text="It was late in the evening, and nobody spoke.")
    left = [c for c in account.candidates if not c.finished and not c.condemned and len(c.codes) > 50]
    assert left
    for candidate in left:
        whole = llasa.codec.decode(candidate.codes)
        assert len(whole) == len(candidate.samples)
        assert np.corrcoef(whole, candidate.samples)[0, 1] > 0.99


def test_look_ahead_is_heard_and_thrown_away(llasa: Llasa, counted: dict[str, int]) -> None:
    toy = Toy(brightness)
    told: list[int] = []
    _, account = run(llasa, "beam:2x2/50^25", toy, text=LONGER, on_tokens=told.append)
    assert counted["prefills"] == 1
    assert counted["tokens"] == account.tokens
    # Four rows of 50, and 25 more of each that are forgotten; then 50 more of those that were kept and their forks.
    assert [told[0], told[1] - told[0], told[2] - told[1]] == [200, 100, 200]
    assert {len(samples) for samples in toy.fragments[0]} == {75 * 320}
    assert all(
        len(candidate.codes) % 50 == 0
        for candidate in account.candidates
        if not (candidate.finished or candidate.condemned)
    )
    assert account.tokens > sum(len(candidate.codes) for candidate in account.candidates if candidate.finished)


def test_mixed_opens_with_a_beam_and_closes_with_samples(llasa: Llasa, counted: dict[str, int]) -> None:
    toy = Toy(brightness)
    chosen, account = run(llasa, "mixed:2x2@1s+6", toy, text=LONGER)
    assert len(toy.fragments) == 1
    assert counted["prefills"] == 1
    # Four rows of a second, and the ends of six.
    rests = sum(len(c.codes) - 50 for c in account.candidates if len(c.codes) > 50)
    assert counted["tokens"] == account.tokens == 4 * 50 + rests
    assert account.rows == 4 + 4  # two of the six are the rows that were kept
    sound = [c for c in account.candidates if c.finished and c.condemned is None]
    assert chosen is max(sound, key=lambda candidate: brightness(candidate.samples))
    ended = [c for c in account.candidates if len(c.codes) > 50]
    assert len(ended) <= 6
    assert len({c.codes[:50].tobytes() for c in ended}) <= 2  # what the beam kept
    assert len({c.codes.tobytes() for c in ended}) == len(ended)


def test_a_mixed_search_in_parts_says_nothing_twice(llasa: Llasa, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(llasa, "mixed:1x1@1s+8", Toy(brightness), text=LONGER)[1].candidates
    monkeypatch.setattr(takes, "ROWS", 3)
    parts = run(llasa, "mixed:1x1@1s+8", Toy(brightness), text=LONGER)[1].candidates
    assert len({candidate.codes.tobytes() for candidate in parts}) == len(parts) == 8
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one.codes, other.codes)


def failing_after(looks: int, measure: Callable[[np.ndarray], float] = brightness, name: str = "failing") -> Toy:
    """A verifier that answers so many times."""

    class Failing(Toy):
        calls = 0

        def score(self, *given: Any, **more: Any) -> np.ndarray:
            self.calls += 1
            if self.calls > looks:
                raise RuntimeError("out of order")
            return super().score(*given, **more)

    return Failing(measure, name=name)


def test_a_beam_whose_verifier_fails_goes_on_without_it(llasa: Llasa) -> None:
    tools = tools_for(llasa, failing_after(1))
    first, _ = search_chunk(tools, task_for(llasa), parse("beam:2x2"))
    assert first is not None
    assert first.sound
    second, _ = search_chunk(tools, task_for(llasa, number=1), parse("beam:2x2"))
    assert second is not None
    assert second.sound
    assert [c.number for c in tools.account.candidates if c.chunk == 1] == [0, 1, 2, 3]
    assert tools.account.notes == [
        "failing failed (out of order): the search continues without it",
        "no verifier that can score fragments is left: the search continues as best-of:4, not beam:2x2",
    ]


def test_scores_of_a_verifier_that_fails_in_a_later_batch_count_for_none(
    llasa: Llasa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takes, "ROWS", 3)
    chosen, account = run(llasa, "best-of:6", Toy(brightness), failing_after(1, lambda samples: 100 / len(samples)))
    sound = [candidate for candidate in account.candidates if candidate.condemned is None]
    assert {frozenset(c.scores) for c in sound} == {frozenset({"toy", "failing"}), frozenset({"toy"})}
    assert chosen is max(sound, key=lambda candidate: candidate.scores["toy"])
    assert all(candidate.key == (1, 0, candidate.scores["toy"]) for candidate in sound)


def test_scores_of_a_verifier_that_fails_count_for_no_row_of_a_beam(
    llasa: Llasa, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ended before it failed does not stay ahead by its scores."""
    split = Pool.split

    def first_ends(self: Pool, rows: Rows) -> Any:
        assert isinstance(rows.state, State)
        rows.state.rows[0].finished |= rows.numbers == [0, 1]
        return split(self, rows)

    class Restless(Toy):
        def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
            return np.full(len(batch), float(not ended))

    class Partial(Toy):
        def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
            if not ended:
                raise RuntimeError("out of order")
            return np.full(len(batch), 100.0)

    monkeypatch.setattr(Pool, "split", first_ends)
    chosen, account = run(llasa, "beam:1x2", Restless(brightness), Partial(brightness, name="partial"))
    assert account.notes == ["partial failed (out of order): the search continues without it"]
    assert account.candidates[0].scores["partial"] == 100
    assert chosen is not account.candidates[0]


def test_a_silent_fragment_is_left_behind(llasa: Llasa, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = beam.decode_prefix

    def hush(tools: Tools, codes: list[np.ndarray]) -> list[np.ndarray]:
        sounds = decode(tools, codes)
        if codes and len(codes[0]) <= 100:  # candidate 0 comes first for as long as it is kept
            sounds[0] = np.zeros_like(sounds[0])
        return sounds

    monkeypatch.setattr(beam, "decode_prefix", hush)
    chosen, account = run(llasa, "beam:2x2", Toy(lambda samples: -float(np.abs(samples).mean())), text=LONGER)
    silent = account.candidates[0]
    assert (silent.number, silent.condemned, len(silent.codes)) == (0, "silent", 100)
    assert chosen.sound


def test_where_every_fragment_is_condemned_the_best_go_on(llasa: Llasa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "judge_sound", lambda text, samples, pace, ended: None if ended else "silent")
    chosen, account = run(llasa, "beam:2x2", Toy(brightness))
    assert chosen.sound
    assert not account.notes


def test_a_beam_that_does_not_fit_is_refused(llasa: Llasa, monkeypatch: pytest.MonkeyPatch) -> None:
    free = psutil.virtual_memory()._replace(available=2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(
        LlasaError, match=r"a beam of 9x9 has 81 rows of \d+ tokens, and the free memory holds the KV caches of \d+:"
    ):
        run(llasa, "beam:9x9", Toy(brightness))


def test_a_failing_verifier_is_left_out_and_told(llasa: Llasa) -> None:
    def fail(samples: np.ndarray) -> float:
        raise ValueError("no more")

    for measure, words in ((fail, "no more"), (lambda samples: float("nan"), "not a finite number")):
        for strategy in ("best-of:2", "mixed:1x2@1s+2"):
            chosen, account = run(llasa, strategy, Toy(measure))
            assert chosen.finished
            assert len(account.notes) == 1
            assert words in account.notes[0]


def test_where_all_are_condemned_the_likeliest_is_kept_with_a_note(
    llasa: Llasa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "judge_sound", lambda *sound: "silent")
    chosen, account = run(llasa, "best-of:3", Toy(brightness))
    assert chosen.samples.any()
    assert account.notes == [f"all 3 candidates are faulty, kept the likeliest (silent): {TEXT!r}"]
    lengths = [abs(np.log((len(c.codes) + 1) / (task_for(llasa).piece.expected + 1))) for c in account.candidates]
    assert chosen is account.candidates[int(np.argmin(lengths))]
    assert chosen.scores.keys() == {"toy"}


def test_a_loop_is_dropped_while_it_runs(llasa: Llasa, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def first_loops(codes: np.ndarray) -> bool:
        seen.append(len(codes))
        return len(seen) == 1

    monkeypatch.setattr(pool, "repeats", first_loops)
    monkeypatch.setattr(pool, "STEP", 10)
    chosen, account = run(llasa, "best-of:2", Toy(brightness))
    dropped = account.candidates[0]
    assert dropped.condemned == "repeats itself"
    assert len(dropped.codes) == 10
    assert not dropped.samples.size
    assert chosen is account.candidates[1]


def test_ctrl_c_keeps_the_best_of_what_was_scored(llasa: Llasa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takes, "ROWS", 4)
    calls: list[int] = []

    def interrupting(samples: np.ndarray) -> float:
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return brightness(samples)

    tools = tools_for(llasa, Toy(interrupting))
    chosen, interrupted = search_chunk(tools, task_for(llasa), parse("best-of:12"))
    assert interrupted
    first = [c for c in tools.account.candidates if c.scores]
    assert [c.number for c in first] == [0, 1, 2, 3]
    assert chosen is max(first, key=lambda candidate: candidate.scores["toy"])


class Stop:
    """Ctrl-C once so many tokens have been sampled, and as often after that as is said."""

    def __init__(self, tokens: int, times: int = 1) -> None:
        self.tokens, self.times = tokens, times

    def __call__(self, count: int) -> None:
        if count >= self.tokens and self.times:
            self.times -= 1
            raise KeyboardInterrupt


def test_ctrl_c_in_a_beam_finishes_its_best_row(llasa: Llasa) -> None:
    toy = Toy(brightness)
    tools = tools_for(llasa, toy)
    task = task_for(llasa, LONGER, on_tokens=Stop(8 * 50))
    chosen, interrupted = search_chunk(tools, task, parse("beam:2x2"))
    assert interrupted
    assert chosen is not None
    assert chosen.sound
    (fragments,) = toy.fragments  # of the one look that there was
    scores = [brightness(samples) for samples in fragments]
    assert chosen.number == int(np.argmax(scores))
    assert chosen.scores.keys() == {"toy"}
    assert llasa.codec.decode(chosen.codes[:50]).shape == fragments[0].shape
    # Eight stretches of a second, of which the chosen one has two, and its rest.
    assert tools.account.tokens == 8 * 50 + len(chosen.codes) - 100


def test_ctrl_c_in_the_second_half_of_a_mixed_search_finishes_a_row(llasa: Llasa) -> None:
    tools = tools_for(llasa, Toy(brightness))
    task = task_for(llasa, LONGER, on_tokens=Stop(4 * 50 + 50))
    chosen, interrupted = search_chunk(tools, task, parse("mixed:2x2@1s+6"))
    assert interrupted
    assert chosen is not None
    assert chosen.sound


def test_a_second_ctrl_c_ends_it_all(llasa: Llasa) -> None:
    task = task_for(llasa, LONGER, on_tokens=Stop(4 * 50, times=2))
    assert search_chunk(tools_for(llasa, Toy(brightness)), task, parse("beam:2x2")) == (None, True)


def test_time_that_is_up_leaves_one_look(llasa: Llasa) -> None:
    late = time.perf_counter()
    chosen, account = run(llasa, "best-of:64", Toy(brightness), deadline=late)
    assert chosen.finished
    assert len(account.candidates) == pool.FIRST
    toy = Toy(brightness)
    chosen, account = run(llasa, "beam:2x2", toy, text=LONGER, deadline=late)
    assert chosen.finished or chosen.condemned
    assert len(toy.fragments) == 1
    toy = Toy(brightness)
    chosen, account = run(llasa, "mixed:2x2@1s+16", toy, text=LONGER, deadline=late)
    assert len(toy.fragments) == 1
    assert len([candidate for candidate in account.candidates if len(candidate.codes) > 50]) == 1


def test_the_second_half_of_a_mixed_search_ends_with_the_time(llasa: Llasa) -> None:
    """Time is up as soon as its first two samples are judged."""
    start = time.perf_counter()
    clock = {"now": 0.0}

    def judged(samples: np.ndarray) -> float:
        clock["now"] = 100.0 * (len(samples) > 16000)
        return brightness(samples)

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return start + clock["now"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "time", Clock)
        patch.setattr("llasa.search.task.time", Clock)
        _, account = run(llasa, "mixed:2x2@1s+16", Toy(judged), text=LONGER, deadline=start + 50)
    ended = [candidate for candidate in account.candidates if len(candidate.codes) > 50]
    assert len(ended) == pool.FIRST
    assert account.rows == 4  # both were there before

"""Scorers: what is written, read and written again; sums, thresholds, cascades and failures of exact toy verifiers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llasa.errors import LlasaError
from llasa.verifiers import Batch
from llasa.verifiers.combine import Scorer, Stage, Term, Verdict, format_stages, make_scorer, parse

NAMES = ["content", "pocketsphinx", "speaker", "naturalness", "whisper:openai/whisper-small", "emotion:happy"]
numbers = st.floats(0, 100).map(lambda value: float(f"{value:g}"))
terms = st.lists(st.builds(Term, st.sampled_from(NAMES), numbers, st.none() | numbers), min_size=1, max_size=4).filter(
    lambda found: len({term.name for term in found}) == len(found)
)


class Toy:
    """Knows a score for every length of audio; counts what it is asked."""

    needs_text = False

    def __init__(self, name: str, scores: dict[int, float], process: bool = False, reference: bool = False) -> None:
        self.name, self.scores, self.process, self.needs_reference = name, scores, process, reference
        self.asked: list[list[int]] = []

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        self.asked.append([len(audio) for audio in batch.audios])
        return np.array([self.scores[len(audio)] for audio in batch.audios])


def scorer_of(written: str, *toys: Toy) -> Scorer:
    return Scorer(parse(written), {toy.name: toy for toy in toys})


def verdicts(scorer: Scorer, count: int = 4) -> list[Verdict]:
    sounds = [np.zeros(i, np.float32) for i in range(count)]
    return scorer.score(Batch([""] * count, sounds, [None] * count))


def ranks(found: list[Verdict]) -> list[int]:
    """Candidates from the best to the worst."""
    return sorted(range(len(found)), key=lambda i: found[i].key, reverse=True)


def toy(name: str, *scores: float, process: bool = False, reference: bool = False) -> Toy:
    return Toy(name, dict(enumerate(scores)), process, reference)


@given(st.lists(terms, min_size=1, max_size=3))
def test_what_is_written_is_read_back(sums: list[list[Term]]) -> None:
    stages = [Stage(None if i == 0 else 9 - i, found) for i, found in enumerate(sums)]
    assert parse(format_stages(stages)) == stages


def test_weights_and_thresholds_have_one_canonical_form() -> None:
    assert format_stages(parse(" content , speaker>=0.70 = .5")) == "content=1,speaker>=0.7=0.5"
    assert format_stages(parse("speaker>=0.7")) == "speaker>=0.7=1"
    written = "content=1/4/whisper:openai/whisper-small=1,speaker=0.5"
    assert format_stages(parse("content/4/whisper:openai/whisper-small,speaker=0.5")) == written
    assert format_stages(parse(["content/4/speaker", "naturalness=2"])) == "content=1/4/speaker=1,naturalness=2"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "a verifier is missing"),
        ("content,,speaker", "a verifier is missing"),
        ("content/4/", "a verifier is missing"),
        ("kontent", "no verifier called kontent: pass one of content"),
        ("content=loud", "the weight of content is 'loud', which is not a number"),
        ("content=", "the weight of content is '', which is not a number"),
        ("content=nan", "not a number"),
        ("content=inf", "not a number"),
        ("content=-1", "must not be negative"),
        ("speaker>=much", "the threshold of speaker is 'much'"),
        ("speaker>0.7", "cannot read 'speaker>0.7'"),
        ("content=1=2", "cannot read"),
        ("content=1,content=2", "content is named twice"),
        ("content/0/speaker", "keep at least 1"),
        ("content/2/speaker/4/naturalness", "a stage keeps 4 candidates, the one before it only 2"),
        ([], "there is no verifier"),
        ([3], "3 is not a verifier"),
        (3, "3 is not a verifier: pass a name, a function, or a verifiers.Verifier"),
    ],
)
def test_what_cannot_be_read_is_one_line(written: Any, message: str) -> None:
    with pytest.raises(LlasaError, match=message) as caught:
        make_scorer(written)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("whisper:/models/2024/whisper", [["whisper:/models/2024/whisper"]]),
        ("whisper:./a,b/2024/w=1/4/speaker,sanity", [["whisper:./a,b/2024/w"], ["speaker", "sanity"]]),
        ("content,whisper:faster:~/7/w, speaker=2", [["content", "whisper:faster:~/7/w", "speaker"]]),
        ("emotion:happy:/m/7/e>=0.5,wavlm:/m/8/w", [["emotion:happy:/m/7/e", "wavlm:/m/8/w"]]),
        ("whisper:openai/whisper-small/4/speaker", [["whisper:openai/whisper-small"], ["speaker"]]),
    ],
)
def test_a_path_is_neither_a_cascade_nor_a_list(written: str, names: list[list[str]]) -> None:
    stages = parse(written)
    assert [[term.name for term in stage.terms] for stage in stages] == names
    assert parse(format_stages(stages)) == stages


def test_a_beam_needs_a_verifier_of_fragments() -> None:
    for fine in ("whisper,speaker=0.1", "whisper/4/content", ["naturalness", toy("mine", 1, process=True)]):
        assert parse(fine, beam=True)
    for unfit in ("whisper=1,naturalness=1", lambda *given: [0.0], toy("mine", 1)):
        with pytest.raises(LlasaError, match=r"a beam needs a verifier that can score fragments, which .* cannot"):
            parse(unfit, beam=True)


def test_an_object_of_the_protocol_is_a_verifier() -> None:
    mine = toy("mine", 0, 2, 1, 0, process=True)
    scorer = make_scorer(["sanity=0", mine])
    assert scorer.written == "sanity=0,mine=1"
    assert ranks(verdicts(scorer))[0] == 1
    assert scorer.process is not None
    assert make_scorer(mine).verifiers == {"mine": mine}


def test_what_cannot_judge_a_text_is_asked_again_at_the_next() -> None:
    class English(Toy):
        def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
            if "你" in batch.texts[0]:
                raise LlasaError("it knows English alone")
            return super().score(batch, ended)

    scorer = scorer_of("content,speaker", English("content", {0: 1, 1: 0}), toy("speaker", 0.5, 0.6))
    sounds = [np.zeros(i, np.float32) for i in range(2)]
    for text, best in (("hello", 0), ("你好", 1), ("你们好", 1), ("hello", 0)):
        assert ranks(scorer.score(Batch([text] * 2, sounds, [None] * 2)))[0] == best
    assert scorer.failures == ["content cannot score this text (it knows English alone)"]


def test_scores_of_what_has_failed_count_no_more() -> None:
    scorer = scorer_of(
        "content,speaker>=0.5/4/naturalness", toy("content", 1), toy("speaker", 1), toy("naturalness", 1)
    )
    scores = {"content": 0.2, "speaker": 0.7, "naturalness": 3.0}
    assert scorer.key(scores, 2) == (2, 1, 3.0)
    assert scorer.key(scores, 1) == (1, 1, pytest.approx(0.9))
    del scorer.verifiers["speaker"]
    assert scorer.key(scores, 2) == (2, 0, 3.0)
    del scorer.verifiers["naturalness"]
    assert scorer.key(scores, 2) == (1, 0, 0.2)


def test_a_sum_is_weighted() -> None:
    found = verdicts(scorer_of("content=1,speaker=0.5", toy("content", 0, 1, 0.5, 1), toy("speaker", 1, 0, 1, 0.2)))
    assert [verdict.key[-1] for verdict in found] == [0.5, 1, 1, 1.1]
    assert found[2].scores == {"content": 0.5, "speaker": 1}
    assert ranks(found)[0] == 3


def test_who_misses_a_threshold_ranks_below_all_who_meet_it() -> None:
    found = verdicts(
        scorer_of("content,speaker>=0.7=0", toy("content", 0.1, 1, 0.2, 0), toy("speaker", 0.7, 0.69, 1, 0))
    )
    assert ranks(found) == [2, 0, 1, 3]


def test_a_cascade_shows_the_best_to_the_next_stage_only() -> None:
    first, second = toy("content", 0.9, 0.1, 0.8, 0.7), toy("speaker", 0.2, 1, 0.3, 0.1)
    found = verdicts(scorer_of("content/2/speaker", first, second))
    assert first.asked == [[0, 1, 2, 3]]
    assert second.asked == [[0, 2]]
    assert ranks(found) == [2, 0, 3, 1]
    assert found[1].scores == {"content": 0.1}
    assert found[2] == Verdict({"content": 0.8, "speaker": 0.3}, 2, (2, 0, 0.3))


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda n: [0.5] * (n - 1) + [float("nan")], "not a finite number"),
        (lambda n: [float("inf")] * n, "not a finite number"),
        (lambda n: [0.5] * (n + 1), r"shape \(5,\) for 4"),
        (lambda n: None, "."),
        (lambda n: 1 / 0, "division by zero"),
    ],
)
def test_a_verifier_that_fails_is_left_out_from_then_on(answer: Any, problem: str) -> None:
    asked = []

    def mine(batch: Batch) -> Any:
        asked.append(len(batch))
        return answer(len(batch))

    scorer = make_scorer(["sanity", mine])
    assert scorer.written == "sanity=1,mine=1"
    scorer.verifiers["sanity"] = toy("sanity", 0, 0.5, 1, 0)
    for _ in range(2):
        found = verdicts(scorer)
        assert [verdict.key[-1] for verdict in found] == [0, 0.5, 1, 0]
        assert ranks(found)[0] == 2
    assert asked == [4]
    (line,) = scorer.failures
    assert line.startswith("mine failed (")
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(line)


def test_with_no_verifier_left_all_are_equal() -> None:
    scorer = make_scorer(lambda batch: 1 / 0)
    assert {verdict.key for verdict in verdicts(scorer)} == {(0, 0, 0.0)}
    assert len(scorer.failures) == 1


def test_an_interruption_passes_through() -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    scorer = make_scorer(interrupted)
    with pytest.raises(KeyboardInterrupt):
        verdicts(scorer)
    assert not scorer.failures


def test_fragments_are_for_those_who_can_judge_them() -> None:
    able, unable = toy("content", 1, 0, 0, 0, process=True), toy("naturalness", 0, 1, 1, 1, reference=True)
    scorer = scorer_of("naturalness=3/2/content=2", able, unable)
    process = scorer.process
    assert process is not None
    assert process.written == "content=2"
    process.check(reference=False)
    with pytest.raises(LlasaError, match="naturalness compares with a reference"):
        scorer.check(reference=False)
    assert ranks(verdicts(process))[0] == 0
    assert not unable.asked
    assert scorer_of("naturalness", unable).process is None


def test_what_fails_on_fragments_has_failed() -> None:
    class Broken(Toy):
        def score(self, *_: Any, **__: Any) -> np.ndarray:
            raise RuntimeError("out of memory\nat line 3")

    scorer = scorer_of("content", Broken("content", {}, process=True))
    process = scorer.process
    assert process is not None
    verdicts(process)
    assert scorer.failures == ["content failed (out of memory)"]
    assert scorer.process is None


def test_a_reference_is_asked_for_before_the_search() -> None:
    scorer = scorer_of("content,speaker", toy("content", 1), toy("speaker", 1, reference=True))
    scorer.check(reference=True)
    with pytest.raises(LlasaError, match="speaker compares with a reference voice, and there is none: pass --voice"):
        scorer.check(reference=False)


def test_functions_have_names_of_their_own() -> None:
    def content(batch: Batch) -> list[float]:
        return [1.0] * len(batch)

    with pytest.raises(LlasaError, match="content is named twice"):
        parse(["content", content])
    assert make_scorer(content).score(Batch(["a"], [np.zeros(3, np.float32)], [None]))[0].scores == {"content": 1}


def test_real_verifiers_agree_on_the_right_reading(spoken: Any) -> None:
    scorer = make_scorer("content=1,speaker>=0.7=0.5")
    clips = [spoken.slt[0], spoken.rms[1], spoken.rms[0]]
    found = scorer.score(Batch(spoken.texts[:1] * 3, clips, [spoken.rms[2]] * 3))
    assert ranks(found)[0] == 2
    assert not scorer.failures

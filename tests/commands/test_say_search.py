"""`llasa say --best-of` and its kin, by the embedded model, on the command line and from Python."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands.runner import Run, fails, read_wav

from llasa.errors import LlasaError
from llasa.models.hub import find_model
from llasa.speak.speech import Interrupted
from llasa.tts import Llasa, LlasaWarning
from llasa.verifiers import Batch, content
from llasa.voice import Voice

LINES = "It was late. Nobody spoke for some time, and the lamp had burned low."


@pytest.fixture(scope="module")
def tiny() -> Llasa:
    return Llasa.load("tiny", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def small(lm_folder: Path) -> Llasa:
    """A random model without a recogniser, for verifiers of the test's own."""
    return Llasa.load(lm_folder, device="cpu", dtype="float32")


@pytest.fixture
def say(run: Run, tiny: Llasa, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(Llasa, "load", lambda name, **options: tiny)
    return lambda *arguments, stdin=b"": run("say", *arguments, stdin=stdin)


def test_the_best_of_a_few_and_all_of_them_kept(say: Run, tmp_path: Path) -> None:
    result = say(
        "It was late.", "--best-of", 3, "--seed", 1, "-o", tmp_path / "a.wav", "--keep-candidates", tmp_path / "kept"
    )
    assert result.code == 0, result.err
    assert "best-of:3 by content=1: 3 candidates" in result.err
    assert "kept/index.html" in result.err
    assert (tmp_path / "kept/index.html").exists()
    assert len(list((tmp_path / "kept").glob("*.wav"))) == 3


def test_sounds_do_not_pile_up(small: Llasa) -> None:
    account = small.say("It was late.\n\nNobody spoke.", seed=1, search="beam:2x2", verify=Length()).search
    assert account is not None
    assert {candidate.chunk for candidate in account.candidates} == {0, 1}
    assert not any(candidate.samples.size for candidate in account.candidates)


def test_a_search_is_reproducible_and_accounts_for_itself(tiny: Llasa) -> None:
    speech = tiny.say("It was late.", seed=3, best_of=3)
    again = tiny.say("It was late.", seed=3, best_of=3)
    np.testing.assert_array_equal(speech.samples, again.samples)
    account = speech.search
    assert account is not None
    assert (account.strategy, account.verify) == ("best-of:3", "content=1")
    assert sum(candidate.chosen for candidate in account.candidates) == 1
    assert all(set(c.scores) == {"content"} for c in account.candidates if c.condemned is None)
    assert set(speech.timings) == {"generate", "decode", "verify", "total"}
    assert sum(account.seconds.values()) <= speech.timings["total"]
    # One sample is what is said without a search, where that is fine at once.
    single = tiny.say("It was late.", seed=3, best_of=1)
    np.testing.assert_array_equal(single.codes, tiny.say("It was late.", seed=3).codes)


def test_every_way_to_ask_for_a_search(tiny: Llasa, small: Llasa) -> None:
    def length(batch: Batch) -> list[int]:
        assert all(isinstance(reference, np.ndarray) for reference in batch.references)
        return [-len(audio) for audio in batch.audios]

    shortest = tiny.say("It was late.", seed=1, best_of=4, verify=length)
    assert shortest.search is not None
    sound = [len(c.codes) for c in shortest.search.candidates if c.condemned is None]
    assert len(shortest.codes) == min(sound)
    beam = small.say("It was late.", seed=1, search="beam:2x2", verify=Length()).search
    assert beam is not None
    assert beam.strategy == "beam:2x2"
    for alone in ({"verify": "content"}, {"budget": 100.0}):
        usual = tiny.say("It was late.", seed=1, **alone).search  # type: ignore[arg-type]
        assert usual is not None
        assert len(usual.candidates) == 4
        assert usual.strategy == "best-of:4"
    hurried = small.say("It was late.", seed=1, budget=0.001, best_of=64, verify=Length()).search
    assert hurried is not None
    assert len(hurried.candidates) < 8
    assert small.say("It was late.", seed=1).search is None


def test_chunks_follow_one_another_in_the_prompt(tiny: Llasa, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[list[int]] = []
    start = tiny.backend.start

    def watching(texts: Sequence[list[int]], *rest: object, **more: object) -> object:
        prompts.extend(texts)
        return start(texts, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(tiny.backend, "start", watching)
    speech = tiny.say("It was late.\n\nNobody spoke.", seed=1, best_of=2)
    assert speech.finished == [True, True]
    assert speech.search is not None
    assert [candidate.chunk for candidate in speech.search.candidates] == [0, 0, 1, 1]
    first = [tiny.vocabulary.first + int(code) for code in speech.utterances[0].codes]
    assert prompts[1][-len(first) :] == first


class Length:
    """A verifier of the user's own: the longer, the better."""

    name, process, needs_text, needs_reference = "length", True, False, False

    def __init__(self) -> None:
        self.fragments = 0

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        assert all(audio.dtype == np.float32 for audio in batch.audios)
        self.fragments += len(batch) * (not ended)
        return np.array([len(audio) / batch.rate for audio in batch.audios])


def test_a_verifier_of_ones_own_guides_a_beam(tiny: Llasa, small: Llasa) -> None:
    mine = Length()
    account = small.say("It was late, and nobody spoke.", seed=1, search="beam:2x2/25", verify=mine).search
    assert account is not None
    assert account.verify == "length=1"
    assert mine.fragments >= 4
    assert tiny.say("It was late.", seed=1, best_of=2, verify=["content", mine]).search.verify == "content=1,length=1"  # type: ignore[union-attr]
    with pytest.raises(LlasaError, match="3 is not a verifier"):
        tiny.say("It was late.", verify=3)  # type: ignore[arg-type]


def test_verifiers_are_loaded_once_however_they_are_asked_for(tiny: Llasa, monkeypatch: pytest.MonkeyPatch) -> None:
    def length(batch: Batch) -> list[int]:
        return [len(audio) for audio in batch.audios]

    tiny.say("It was late.", seed=1, best_of=1, verify=["content", length])
    monkeypatch.setattr(content, "load", None)
    for verify in ("content", ["content=2", length]):
        tiny.say("It was late.", seed=1, best_of=1, verify=verify)


def test_a_model_is_judged_by_its_own_recogniser(tmp_path: Path) -> None:
    for part in ("lm", "codec"):
        (tmp_path / part).symlink_to(find_model("tiny").parent / part)
    (tmp_path / "recogniser").mkdir()
    model = Llasa.load(tmp_path / "lm", device="cpu", dtype="float32")
    for options in ({"verify": "content"}, {"best_of": 2}):
        with pytest.raises(LlasaError, match=f"{tmp_path / 'recogniser'} has no vocab.json"):
            model.say("It was late.", **options)  # type: ignore[arg-type]
    (tmp_path / "recogniser").rmdir()
    model = Llasa.load(tmp_path / "lm", device="cpu", dtype="float32")
    assert len(model.say("It was late.", seed=1, best_of=1, verify="content").codes)


def test_a_search_at_temperature_0_is_refused(tiny: Llasa) -> None:
    for greedy in ({"temperature": 0.0}, {"top_k": 1}):
        for search in ({"best_of": 2}, {"search": "beam:1x2"}, {"budget": 1.0}):
            with pytest.raises(LlasaError, match="every sample is the same"):
                tiny.say("It was late.", **greedy, **search)  # type: ignore[arg-type]
    assert len(tiny.say("It was late.", temperature=0.0, best_of=1).codes)


def test_a_failing_function_is_a_warning(tiny: Llasa) -> None:
    def broken(batch: Batch) -> list[float]:
        raise RuntimeError("out of order")

    with pytest.warns(LlasaWarning, match="broken failed .out of order.: the search continues without it"):
        assert len(tiny.say("It was late.", seed=1, best_of=2, verify=broken).codes)


def test_ctrl_c_keeps_what_was_best(small: Llasa) -> None:
    calls: list[int] = []

    def stops(batch: Batch) -> list[float]:
        calls.append(len(batch))
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stop:
        small.say(LINES, seed=1, best_of=2, verify=stops)
    assert len(calls) == 1
    assert len(stop.value.speech.utterances) == 1
    assert stop.value.speech.search is not None


def test_a_beam_that_lost_its_verifier_says_the_rest_too(small: Llasa) -> None:
    class Tired(Length):
        def score(self, *given: Any, **more: Any) -> np.ndarray:
            if self.fragments:
                raise RuntimeError("tired")
            return super().score(*given, **more)

    with pytest.warns(LlasaWarning) as told:
        speech = small.say("It was late.\n\nNobody spoke.", seed=1, search="beam:2x2/20", verify=Tired())
    assert speech.finished == [True, True]
    assert [str(warning.message).split(":")[0] for warning in told] == [
        "length failed (tired)",
        "no verifier that can score fragments is left",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--best-of", 0], "best-of is 0: it must be from 1 to 10,000"),
        (["--best-of", 2, "--search", "beam:2x2"], "two searches"),
        (["--search", "tree:4"], "unknown search 'tree:4'"),
        (["--verify", "beauty"], "no verifier called beauty"),
        (["--verify", "content=lots"], "not a number"),
        (["--budget", "soon"], "the budget is 'soon', which is not a number of seconds: write 10s"),
        (["--budget", "0s"], "the budget is 0 seconds: it must be above 0"),
        (["--best-of", 2, "--budget", "inf"], "the budget is inf seconds: it must be above 0"),
        (["--best-of", 2, "--temperature", 0], "every sample is the same"),
        (["--search", "beam:2x2", "--verify", "naturalness"], "can score fragments, which naturalness=1 cannot"),
        (["--best-of", 2, "--keep-candidates", "kept", "-o", "kept/a.wav"], "is only for candidates"),
        (["--best-of", 2, "--stream"], "search without --stream"),
        (["--keep-candidates", "kept"], "add --best-of"),
    ],
)
def test_what_cannot_be_searched_is_one_line_before_anything_is_loaded(
    run: Run, options: list[object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Llasa, "load", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()
    fails(run("say", "It was late.", *options), words)


def test_a_voice_is_needed_to_sound_like_it(run: Run, lm_folder: Path) -> None:
    result = run("say", "Hello there.", "--model", lm_folder, "--verify", "speaker", "--best-of", 2)
    fails(result, "speaker compares with a reference voice, and there is none: pass --voice")


def test_a_missing_package_names_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pocketsphinx", "resemblyzer"):
        monkeypatch.setitem(sys.modules, package, None)
    for name, words in (("pocketsphinx", "pip install 'llasa[verify]'"), ("speaker", "--no-deps Resemblyzer")):
        fails(run("say", "Hello there.", "--verify", name, "--best-of", 2), words)


def test_a_search_to_standard_output(python: list[str], tmp_path: Path) -> None:
    command = [*python, "-m", "llasa", "say", "It was late.", "--budget", "1s", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"LLASA_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert len(read_wav(done.stdout)) > 1000


def test_voices_without_a_recording_are_heard_through_the_codec(tiny: Llasa) -> None:
    preset = tiny.voice("bruno")
    assert preset is not None
    bare = Voice("bare", preset.text, preset.codes, preset.codec)
    heard: list[np.ndarray] = []

    def listen(batch: Batch) -> list[float]:
        heard.extend(reference for reference in batch.references if reference is not None)
        return [0.0] * len(batch)

    tiny.say("It was late.", voice=bare, seed=1, best_of=1, verify=listen)
    np.testing.assert_array_equal(heard[0], tiny.codec.decode(preset.codes))
    with pytest.raises(LlasaError, match="best-of is -1"):
        tiny.say("It was late.", best_of=-1)

"""`llasa say --best-of` and its kin, by the embedded model, on the command line and from Python."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from commands.runner import Run, fails, read_wav

from llasa.errors import LlasaError
from llasa.speech import Interrupted
from llasa.tts import Llasa, LlasaWarning
from llasa.voice import Voice

LINES = "It was late. Nobody spoke for some time, and the lamp had burned low."


@pytest.fixture(scope="module")
def tiny() -> Llasa:
    return Llasa.load("tiny", device="cpu", dtype="float32")


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
    assert "kept/index.html: all 3 candidates" in result.err
    assert (tmp_path / "kept/index.html").exists()
    assert len(list((tmp_path / "kept").glob("*.wav"))) == 3


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


def test_every_way_to_ask_for_a_search(tiny: Llasa) -> None:
    def length(texts: Sequence[str], audios: Sequence[np.ndarray], references: Sequence[object]) -> list[int]:
        assert all(isinstance(reference, np.ndarray) for reference in references)
        return [-len(audio) for audio in audios]

    shortest = tiny.say("It was late.", seed=1, best_of=4, verify=length)
    assert shortest.search is not None
    sound = [len(c.codes) for c in shortest.search.candidates if c.condemned is None]
    assert len(shortest.codes) == min(sound)
    assert tiny.say("It was late.", seed=1, search="beam:2x2").search.strategy == "beam:2x2"  # type: ignore[union-attr]
    usual = tiny.say("It was late.", seed=1, verify="content").search
    assert usual is not None
    assert usual.strategy == "best-of:4"
    hurried = tiny.say("It was late.", seed=1, budget=0.01).search
    assert hurried is not None
    assert len(hurried.candidates) < 8
    assert tiny.say("It was late.", seed=1).search is None


def test_chunks_follow_one_another_in_the_prompt(tiny: Llasa, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[list[int]] = []
    start = tiny.engine.start

    def watching(texts: Sequence[list[int]], *rest: object, **more: object) -> object:
        prompts.extend(texts)
        return start(texts, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(tiny.engine, "start", watching)
    speech = tiny.say("It was late.\n\nNobody spoke.", seed=1, best_of=2)
    assert len(speech.utterances) == 2
    assert speech.search is not None
    assert [candidate.chunk for candidate in speech.search.candidates] == [0, 0, 1, 1]
    first = [tiny.vocabulary.first + int(code) for code in speech.utterances[0].codes]
    if speech.utterances[0].finished:
        assert prompts[1][-len(first) :] == first


def test_a_failing_function_is_a_warning(tiny: Llasa) -> None:
    def broken(texts: object, audios: object, references: object) -> list[float]:
        raise RuntimeError("the judge has left")

    with pytest.warns(LlasaWarning, match="broken failed .the judge has left.: the search goes on without it"):
        assert len(tiny.say("It was late.", seed=1, best_of=2, verify=broken).codes)


def test_ctrl_c_keeps_what_was_best(tiny: Llasa) -> None:
    calls: list[int] = []

    def stops(texts: Sequence[str], audios: Sequence[np.ndarray], references: object) -> list[float]:
        calls.append(len(texts))
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stop:
        tiny.say(LINES, seed=1, best_of=2, verify=stops)
    assert len(calls) == 1
    assert len(stop.value.speech.utterances) == 1
    assert stop.value.speech.search is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--best-of", 0], "the best of 0 is nothing"),
        (["--best-of", 2, "--search", "beam:2x2"], "two searches"),
        (["--search", "tree:4"], "there is no search 'tree:4'"),
        (["--verify", "beauty"], "no verifier called beauty"),
        (["--verify", "content=lots"], "no number"),
        (["--budget", "soon"], "soon is no time: write seconds, as 10s"),
        (["--budget", "0s"], "no time to search"),
        (["--best-of", 2, "--stream"], "search without --stream"),
        (["--keep-candidates", "kept"], "add --best-of"),
    ],
)
def test_what_cannot_be_searched_is_one_line(run: Run, options: list[object], words: str) -> None:
    fails(run("say", "It was late.", *options), words)


def test_a_voice_is_needed_to_sound_like_it(run: Run, lm_folder: Path) -> None:
    result = run("say", "Hello there.", "--model", lm_folder, "--verify", "speaker", "--best-of", 2)
    fails(result, "needs" if "needs" in result.err else "pass --voice")


def test_a_missing_package_names_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pocketsphinx", "resemblyzer"):
        monkeypatch.setitem(sys.modules, package, None)
    for name, words in (("pocketsphinx", "pip install 'llasa[verify]'"), ("speaker", "--no-deps Resemblyzer")):
        fails(run("say", "Hello there.", "--verify", name, "--best-of", 2), words)


def test_a_search_to_standard_output(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llasa.cli", "say", "It was late.", "--budget", "1s", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"LLASA_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert len(read_wav(done.stdout)) > 1000


def test_voices_without_a_recording_are_heard_through_the_codec(tiny: Llasa) -> None:
    preset = tiny.voice("slt")
    assert preset is not None
    bare = Voice("bare", preset.text, preset.codes, preset.codec)
    heard: list[np.ndarray] = []

    def listen(texts: object, audios: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> list[float]:
        heard.extend(references)
        return [0.0] * len(audios)

    tiny.say("It was late.", voice=bare, seed=1, best_of=1, verify=listen)
    np.testing.assert_array_equal(heard[0], tiny.codec.decode(preset.codes))
    with pytest.raises(LlasaError, match="the best of -1"):
        tiny.say("It was late.", best_of=-1)

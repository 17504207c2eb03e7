"""`llasa voices`: list, add, remove."""

from pathlib import Path

import numpy as np
import pytest
from commands.runner import Run, fails

from llasa.voice import Voice


def test_voices_are_added_listed_used_and_removed(run: Run, say: Run, reference: Path, lm_folder: Path):
    listed = run("voices", "list", "--model", lm_folder)
    assert (listed.code, listed.out) == (0, b"")
    assert "add one with `llasa voices add`" in listed.err
    added = run("voices", "add", "anna", reference, "--text", "What Anna says.", "--model", lm_folder)
    assert added.code == 0
    fails(run("voices", "add", "anna", reference, "--text", "Again.", "--model", lm_folder), "pass --force")
    assert run("voices", "add", "anna", reference, "--text", "Again.", "--model", lm_folder, "--force").code == 0
    assert run("voices", "list", "--model", lm_folder).out.decode().split() == ["anna", "yours", "Again."]
    by_name = say("Hello.", "--voice", "anna", "--seed", 1)
    assert by_name.out == say("Hello.", "--voice", reference, "--voice-text", "Again.", "--seed", 1).out
    fails(say("Hello.", "--voice", "ana"), "no voice called ana: did you mean anna?")
    fails(say("Hello.", "--voice", "anna", "--voice-text", "Words."), "--voice-text is the transcript of a recording")
    fails(run("voices", "remove", "hanna"), "no voice of yours called hanna: did you mean anna?")
    assert run("voices", "remove", "anna").code == 0
    assert run("voices", "--help").code == 0
    fails(say("Hello.", "--voice", "anna"), "no voice called anna, nor any other")


def test_a_broken_voice_is_told_in_its_line(run: Run, tmp_path: Path, lm_folder: Path, say: Run):
    folder = tmp_path / "home" / "voices"
    Voice("good", "Words.", np.arange(9, dtype=np.uint16)).save(folder / "good.safetensors")
    (folder / "bad.safetensors").write_bytes(b"nonsense")
    lines = run("voices", "list", "--model", lm_folder).out.decode().splitlines()
    assert lines[0].startswith("bad   yours   error: ")
    assert lines[1] == "good  yours   Words."
    fails(say("Hello.", "--voice", "bad"), "damaged or not a voice file")
    fails(say("Hello.", "--voice", "good"), "made for another codec and holds no audio")
    fails(say("Hello.", "--voice", tmp_path / "gone.safetensors"), "there is no voice file")


@pytest.mark.parametrize("name", ["../up", "a/b", ".x"])
def test_a_name_that_is_no_name(run: Run, reference: Path, name: str):
    fails(run("voices", "add", name, reference, "--text", "Words."), "cannot name a voice")
    fails(run("voices", "remove", name), "cannot name a voice")

"""Judges from the hub, on tiny random models of the same classes, heard as a suite hears them."""

from pathlib import Path

import numpy as np
import pytest
from tiny_listeners import make_wavlm, make_whisper, wavlm_large_weights

from llasa.errors import LlasaError
from llasa.suites.judges import RECOGNISED, Heard, loaded, make_judge, make_judges


@pytest.fixture
def heard(voiced: np.ndarray) -> Heard:
    return Heard("Say this.", voiced, voiced, "en")


def test_a_whisper_writes_in_the_language_of_the_item(tmp_path: Path, heard: Heard) -> None:
    judge = make_judge(f"whisper:{make_whisper(tmp_path / 'whisper')}")
    assert (judge.words, judge.as_published) == (True, "")
    transcript = loaded(judge)(heard)
    assert transcript == loaded(judge)(heard)
    assert transcript.replace(" ", "").isalpha()
    assert make_judge("whisper").as_published == "wer"
    assert make_judge("whisper").label == "WER, Whisper-large-v3"


def test_speaker_encoders_find_a_sound_like_itself(tmp_path: Path, heard: Heard) -> None:
    import torch

    torch.save(wavlm_large_weights(), tmp_path / "large.pth")
    for written, published in (
        (f"wavlm:{make_wavlm(tmp_path / 'wavlm')}", ""),
        (f"wavlm-large:{tmp_path / 'large.pth'}", "sim"),
    ):
        judge = make_judge(written)
        assert (judge.speaker, judge.as_published) == (True, published)
        assert loaded(judge)(heard) == pytest.approx(1, abs=1e-4)
        assert judge.hears("zh", True)
        assert not judge.hears("zh", False)


def test_formulas_find_a_sound_like_itself(heard: Heard) -> None:
    found = {name: loaded(make_judge(name))(heard) for name in ("stoi", "pesq-wb", "pesq-nb")}
    assert found["stoi"] == pytest.approx(1, abs=1e-3)
    assert found["pesq-wb"] > 4.5
    assert found["pesq-nb"] > 4.4


def test_beside_a_paraformer_a_whisper_hears_english_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llasa.suites.judges.need_extra", lambda *names: None)
    alone, (beside, chinese) = make_judge("whisper"), make_judges(("whisper", "paraformer"))
    assert alone.languages == ("en", "zh")
    assert (beside.languages, chinese.languages) == (RECOGNISED["whisper"], ("zh",))
    assert chinese.as_published == "cer"


def test_a_judge_that_is_not_installed_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LlasaError, match=r"funasr is not installed.*llasa\[emotion\]"):
        make_judge("paraformer")
    with pytest.raises(LlasaError, match=r"funasr is not installed.*llasa\[emotion\]"):
        make_judge("emotion")
    with pytest.raises(LlasaError, match=r"jiwer is not installed.*llasa\[verify\]"):
        make_judge("whisper-tiny")


def test_a_judge_of_emotion_compares_and_is_the_papers_only_by_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llasa.suites.judges.need_extra", lambda *names: None)
    assert [make_judge(name).as_published for name in ("emotion", "emotion:mine", "utmos", "utmos:mine")] == [
        "emotion", "", "utmos", "",
    ]  # fmt: skip
    with pytest.raises(LlasaError, match="emotion:happy does not compare with a recording: write emotion, or"):
        make_judge("emotion:happy")

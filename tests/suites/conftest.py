"""A list in Seed-TTS-Eval's form, of two of flite's speakers: each says a sentence, and then another."""

from pathlib import Path

import pytest
import soundfile

from llasa.data.teachers.flite import Speaker, speak
from llasa.suites import judges

RATE = 16000
SENTENCES = (
    "The old man walked slowly down to the river.",
    "There was nothing left in the house but a table and two chairs.",
    "She wrote a long letter to her brother in the city.",
    "We waited for the morning train until the rain came.",
)


@pytest.fixture(scope="session")
def spoken_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four lines, whose recordings are the prompts' speakers; `sounds/VOICE-N.wav` are all sentences by both."""
    folder = tmp_path_factory.mktemp("suite") / "en"
    (folder / "sounds").mkdir(parents=True)
    for voice in ("rms", "slt"):
        for number, text in enumerate(SENTENCES):
            samples, _, _ = speak(text, Speaker(voice, voice))
            soundfile.write(folder / "sounds" / f"{voice}-{number}.wav", samples, RATE)
    lines = [
        f"{voice}-{number}|{SENTENCES[number]}|sounds/{voice}-{number}.wav|{SENTENCES[number + 2]}"
        f"|sounds/{voice}-{number + 2}.wav\n"
        for voice in ("rms", "slt") for number in (0, 1)
    ]  # fmt: skip
    (folder / "meta.lst").write_text("".join(lines))
    return folder


@pytest.fixture
def one_judge(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A judge that hears the level and is quick, in the place of DNSMOS; how often it was asked, by text."""
    asked: dict[str, int] = {}

    def hear(heard: judges.Heard) -> float:
        asked[heard.text] = asked.get(heard.text, 0) + 1
        return float(abs(heard.sound).mean())

    monkeypatch.setitem(judges._MAKERS, "dnsmos", lambda written: judges.Judge(written, "level", lambda: hear))
    judges.loaded.cache_clear()
    return asked

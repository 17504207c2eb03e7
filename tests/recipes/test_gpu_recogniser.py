"""The recogniser's GPU stage on whatever is here, at toy size: it learns, is told to stop, and can be heard with."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from llasa.data.shards import AUDIO_SCHEMA, write_shard
from llasa.data.synthesis import flac
from llasa.data.teachers.flite import Speaker, speak
from llasa.train.recogniser.stage import edit_distance
from llasa.verifiers import Batch, content

SCRIPT = Path(__file__).parents[2] / "recipes" / "tiny" / "gpu" / "recogniser.py"
TEXTS = [
    "The old man walked down.", "In 1984, it rained.", "they wrote a long letter", "We waited for the train.",
    "A table and two chairs.", "Nobody knew the answer.", "it was cold that night", "She opened the window.",
]  # fmt: skip


def row(text: str, voice: str) -> dict[str, Any]:
    samples, _, _ = speak(text, Speaker(voice, voice))
    return {
        "id": f"{voice}-{text}", "text": text, "audio": flac(samples), "speaker": f"{voice}1", "language": "en",
        "seconds": len(samples) / 16000, "phones": [], "ends": [],
    }  # fmt: skip


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two voices to learn from and a third that stays unheard; rows that are no use among them."""
    folder = tmp_path_factory.mktemp("corpora")
    rows = [row(text, voice) for text in TEXTS for voice in ("rms", "slt")]
    bad = [rows[0] | {"text": ""}, rows[1] | {"audio": b"torn"}, rows[2] | {"seconds": 60.0}, rows[3] | {"text": "?!"}]
    for name, some in (("robots", rows + bad), ("strangers", [row(text, "awb") for text in TEXTS[:3]])):
        (folder / name).mkdir()
        write_shard(folder / name / "0.parquet", some, AUDIO_SCHEMA)
    return folder


def start(python: list[str], corpora: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [*python, str(SCRIPT), "--corpus", f"{corpora / 'robots'}=2", "--corpus", f"{corpora}/strangers=0"]
    command += ["--corpus", f"{corpora}/none", "--out", str(out), "--batch-seconds", "8", "--hidden", "64", *more]
    command += ["--layers", "2", "--device", "cpu", "--processes", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def test_it_learns_until_it_is_stopped(python: list[str], corpora: Path, tmp_path: Path) -> None:
    process = start(python, corpora, tmp_path, "--minutes", "6", "--validate-every", "1", "--lr", "4e-3")
    log = tmp_path / "log.jsonl"
    for _ in range(3000):
        rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        losses = [row["ctc"] for row in rows if "ctc" in row]
        if process.poll() is not None or (losses and losses[-1] < 0.5 * losses[0]):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert "left out a corpus: no .parquet shards in" in printed
    assert printed.count("left out a corpus") == 1
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [row["ctc"] for row in rows if "ctc" in row]
    assert losses[-1] < 0.5 * losses[0]
    figures = [row for row in rows if "letters/all" in row]
    assert figures[-1]["step"] == rows[-1]["step"]
    assert {"letters/strangers/awb", "words/strangers/awb"} <= set(figures[-1])
    assert rows[0]["hours of robots/rms"] > 0
    judge = content.load(folder=tmp_path / "recogniser")
    scores = judge.score(Batch(TEXTS[:1], [speak(TEXTS[0], Speaker("slt", "slt"))[0]], [None]))
    assert 0 < scores[0] < 1
    assert (tmp_path / "recogniser" / "model.safetensors").stat().st_size < 2**20


def test_minutes_count_from_the_start(python: list[str], corpora: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    process = start(python, corpora, tmp_path, "--minutes", "0.06", "--positions", "rotary", "--muon-lr", "1e-3")
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 0, printed
    assert time.monotonic() - begun < 60
    assert (tmp_path / "recogniser" / "vocab.json").is_file()


def test_nothing_to_learn_from_is_one_line(python: list[str], tmp_path: Path) -> None:
    process = start(python, tmp_path, tmp_path, "--minutes", "1")
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "no recording of these corpora can be used" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_distance_of_letters_and_of_words(a: str, b: str, wanted: int) -> None:
    assert edit_distance(a, b) == wanted
    assert edit_distance(list(a), list(b)) == wanted

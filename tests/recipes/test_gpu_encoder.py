"""The training that lets a codec hear through noise, at toy size on a CPU: `recipes/tiny/gpu/encoder.py`."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from data.corpora import sound_file
from small_models import make_codec_folder, make_harmonic_codec

from llasa.codec import load_codec
from llasa.data.shards import AUDIO_SCHEMA, write_shard

SCRIPT = Path(__file__).parents[2] / "recipes" / "tiny" / "gpu" / "encoder.py"


@pytest.fixture
def corpus(tmp_path: Path, voiced: np.ndarray) -> Path:
    """Recordings of three seconds, of which some hum, and one that is too short."""
    hum = 0.05 * np.sin(2 * np.pi * 60 * np.arange(voiced.size) / 16000)
    sounds = [(0.5 + 0.1 * i) * voiced + (hum if i % 2 else 0) for i in range(4)]
    (tmp_path / "corpus").mkdir()
    rows = [
        {"id": str(i), "text": "ah", "audio": sound_file(sound), "speaker": "a", "language": "en", "seconds": 3.0}
        | {"phones": None, "ends": None}
        for i, sound in enumerate([*sounds, voiced[:4000]])
    ]
    write_shard(tmp_path / "corpus" / "0.parquet", rows, AUDIO_SCHEMA)
    return tmp_path / "corpus"


@pytest.fixture
def run(python: list[str], corpus: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(codec: Path, out: Path, minutes: float) -> subprocess.CompletedProcess[str]:
        command = [*python, str(SCRIPT), str(corpus), "--codec", str(codec), "--out", str(out)]
        command += ["--minutes", str(minutes), "--lr", "0.002"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_the_encoder_learns_and_the_decoder_stays(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    make_harmonic_codec().half().save_pretrained(tmp_path / "codec")
    done = run(tmp_path / "codec", tmp_path / "out", 0.05)
    assert done.returncode == 0, done.stderr
    assert "4 utterances, 0.00 hours; 2 that rumble are filtered" in done.stdout
    before, after = (load_codec(tmp_path / name).model for name in ("codec", "out/model"))
    assert not torch.equal(before.encoder.out.weight, after.encoder.out.weight)
    same = dict(before.decoder.state_dict())
    assert all(torch.equal(same[name], value) for name, value in after.decoder.state_dict().items())
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert log[0]["step"] == 1
    assert log[0]["clean"] > 0.95 > log[0]["before"]

    done = run(tmp_path / "codec", tmp_path / "out", 0.08)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stdout


def test_what_it_cannot_teach_is_one_line(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    done = run(make_codec_folder(tmp_path / "upstream"), tmp_path / "out", 0.05)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("has no harmonic head: give a codec that gpu/codec.py made")

"""The codec's training by the clock, at toy size on a CPU: `recipes/tiny/gpu/codec.py`."""

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from llasa.codec import load_codec

SCRIPT = Path(__file__).parents[2] / "recipes" / "tiny" / "gpu" / "codec.py"
SIZES = {"encoder_hidden": 16, "encoder_layers": 1, "decoder_hidden": 16, "decoder_layers": 1}
SIZES |= {"fine_hidden": 16, "fine_layers": 1}


def corpus(folder: Path) -> Path:
    """Eight buzzing tones of two seconds and their fundamentals, and a clip that is damaged."""
    folder.mkdir()
    rows = []
    for number in range(8):
        pitch = 100 + 20 * number
        wave = 0.1 * sum(np.sin(2 * np.pi * pitch * k * np.arange(32000) / 16000) / k for k in range(1, 12))
        audio = io.BytesIO()
        soundfile.write(audio, wave, 16000, format="FLAC")
        track = np.full(400, pitch, np.float16).tobytes()
        rows.append({"id": str(number), "text": "Buzz.", "audio": audio.getvalue(), "speaker": "a", "f0": track})
        rows[-1] |= {"language": "en", "phones": ["pau", "z"], "ends": [0.5, 2.0]}
    rows.append(rows[0] | {"id": "damaged", "audio": b"no sound"})
    pq.write_table(pa.Table.from_pylist(rows), folder / "0.parquet")
    return folder


@pytest.fixture
def run(python: list[str]) -> Callable[..., str]:
    def run(folder: Path, out: Path, *options: str) -> str:
        command = [*python, str(SCRIPT), str(folder), "--out", str(out), "--seconds", "4", "--workers", "1"]
        command += ["--config", json.dumps(SIZES), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_trains_encodes_finishes_and_goes_on(run: Callable[..., str], tmp_path: Path) -> None:
    folder, out = corpus(tmp_path / "corpus"), tmp_path / "out"
    printed = run(folder, out, "--minutes", "0.05")
    assert "damaged left out" in printed
    assert "8 utterances" in printed
    rows = [row for file in sorted((out / "codes").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert [row["id"] for row in rows] == [str(number) for number in range(8)]
    codec = load_codec(out / "model").model
    before = codec.encoder.out.weight.clone(), codec.decoder.out.weight.clone()
    with torch.inference_mode():
        sound = codec.decode(torch.tensor(rows[0]["codes"])[None])
    assert sound.shape == (1, 320 * len(rows[0]["codes"]))
    assert sound.isfinite().all()

    printed = run(folder, out, "--minutes", "0.05", "--finish", "0.05")
    assert '"stage": "together"' not in printed  # it was done
    assert '"stage": "finish"' in printed
    codec = load_codec(out / "model").model
    assert torch.equal(codec.encoder.out.weight, before[0])  # codes are frozen
    assert not torch.equal(codec.decoder.out.weight, before[1])
    assert "resuming at step" in run(folder, out, "--minutes", "0.05", "--finish", "0.06")


def test_copies_are_the_same_words_in_other_codes(run: Callable[..., str], tmp_path: Path) -> None:
    folder, out = corpus(tmp_path / "corpus"), tmp_path / "out"
    run(folder, out, "--minutes", "0.03", "--copies")
    rows = {row["id"]: row for file in (out / "codes").glob("*.parquet") for row in pq.read_table(file).to_pylist()}
    assert len(rows) == 4 * 8
    plain, later, slower, faster = rows["0"], rows["0-160-1.0"], rows["0-80-1.09"], rows["0-240-0.92"]
    assert plain["codes"] != later["codes"][: len(plain["codes"])]
    assert len(faster["codes"]) < len(plain["codes"]) < len(slower["codes"])
    assert [row["speaker"] for row in (plain, later, slower, faster)] == ["a", "a", "a@1.09", "a@0.92"]
    for row, begun, ratio in ((later, 0.01, 1.0), (slower, 0.005, 1.09), (faster, 0.015, 0.92)):
        assert row["text"] == "Buzz."
        assert row["ends"] == pytest.approx([max(0, end - begun) * ratio for end in plain["ends"]], abs=1e-3)
        assert row["seconds"] == pytest.approx(len(row["codes"]) / 50)

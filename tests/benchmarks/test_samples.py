"""A sample of each preset, by a small model that has two."""

import re
import subprocess
from pathlib import Path

import numpy as np
import soundfile
from small_models import make_codec_folder, make_lm_folder

from llasa.codec import load_codec
from llasa.models.folder import fingerprint
from llasa.voice import Voice

SCRIPT = Path(__file__).parents[2] / "benchmarks/samples.py"


def test_every_preset_says_a_sentence(python: list[str], tmp_path: Path) -> None:
    codec = make_codec_folder(tmp_path / "codec")
    lm = make_lm_folder(tmp_path / "lm", codec)
    codes = load_codec(codec).encode(0.1 * np.sin(np.arange(32000, dtype=np.float32) * 0.05))
    for name in ("anna", "bert"):
        Voice(name, "It was late.", codes, fingerprint(codec)).save(lm / "voices" / f"{name}.safetensors")
    out = tmp_path / "out"
    command = [*python, str(SCRIPT), "--out", str(out), "--model", str(lm), "--best-of", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    links = re.findall(r"\| \[(\w+)\]\((\w+\.ogg)\) \| (.+) \|", (out / "README.md").read_text())
    assert [name for name, _, _ in links] == ["anna", "bert"]
    assert links[0][2] != links[1][2]
    for _, file, _ in links:
        assert soundfile.info(out / file).duration > 0.1


def test_an_unknown_model_is_one_line(python: list[str], tmp_path: Path) -> None:
    command = [*python, str(SCRIPT), "--out", str(tmp_path), "--model", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*nowhere.*\n", done.stderr)

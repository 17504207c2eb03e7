"""The page of samples, of two sentences by the embedded voice."""

import re
import subprocess
import sys
from pathlib import Path

import soundfile

ROOT = Path(__file__).parents[2]
SCRIPT = [sys.executable, str(ROOT / "benchmarks/samples.py")]


def test_each_sentence_is_heard_from_the_voice_and_from_its_teacher(tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("It was <late>.\nNobody spoke.\n")
    command = [*SCRIPT, str(tmp_path / "out"), "--sentences", str(tmp_path / "two.txt"), "--voice", "slt"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out/index.html").read_text()
    assert "It was &lt;late&gt;." in page
    names = re.findall(r'src="([^"]+)"', page)
    assert len(names) == 5
    assert all((tmp_path / "out" / name).exists() for name in names)
    for name in names[1:]:
        samples, rate = soundfile.read(tmp_path / "out" / name)
        assert rate == 16000
        assert 0.3 < len(samples) / rate < 6


def test_an_unknown_model_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run([*SCRIPT, str(tmp_path), "--model", "nowhere"], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*nowhere.*\n", done.stderr)

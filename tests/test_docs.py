"""Every command in the README and in docs/ is run here, with the embedded model, as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from llasa.data.synthesis import RATE, Speaker, speak

ROOT = Path(__file__).parents[1]
# train.md's commands run at toy size in tests/train/test_pipeline.py; make's are run by .ci/run.
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").glob("*.md") if p.name != "train.md")]
BLOCKS = [
    (page, kind, body)
    for page in PAGES
    for kind, body in re.findall(r"^```(sh|python)\n(.*?)^```", page.read_text(), re.S | re.M)
    if not body.startswith("state = ")  # three lines that show a shape
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a chapter to read and a recording of the user."""
    path = tmp_path_factory.mktemp("user")
    (path / "chapter.txt").write_text("It was late. The lamp had burned low.\n\nNobody spoke for some time.\n")
    samples, _, _ = speak("The words that are spoken in the recording.", Speaker("awb", "awb"))
    soundfile.write(path / "me.wav", samples, RATE)
    return path


@pytest.mark.parametrize(
    ("page", "kind", "body"), BLOCKS, ids=[f"{page.stem}-{i}" for i, (page, _, _) in enumerate(BLOCKS)]
)
def test_a_block_runs(page: Path, kind: str, body: str, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", body] if kind == "sh" else [sys.executable, "-c", body]
    environment = os.environ | {"PATH": path, "LLASA_HOME": str(folder / "home")}
    done = subprocess.run(command, cwd=folder, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    for name in re.findall(r"(?:-o|>) (\S+\.(?:wav|flac))", body):
        assert soundfile.info(folder / name).duration > 0.2


def test_there_are_blocks_on_every_page() -> None:
    assert {page for page, _, _ in BLOCKS} | {ROOT / "docs/how-it-works.md"} == set(PAGES)

"""Every command in the README and in docs/ is run here, as it stands: with the embedded model, and, where it names an
official one, with a small random model of that layout from a hub on this machine.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import yaml
from encoders import make_listener_folder, make_semantic_folder
from eval.grids import make_corpus, small_study
from hub import of_folder, serve
from official import make_official_folder, make_official_lora
from train.codec_recipes import small_recipe

from llasa.data.synthesis import RATE
from llasa.data.teachers.flite import Speaker, speak

ROOT = Path(__file__).parents[1]
# train.md's commands run at toy size in tests/train; make's are run by .ci/run.
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").glob("*.md") if p.name != "train.md")]
BLOCKS = [
    (page, kind, body)
    for page in PAGES
    for kind, body in re.findall(r"^```(sh|python)\n(.*?)^```", page.read_text(), re.S | re.M)
    if not body.startswith("state = ")  # three lines that show a shape
]

SAID = ["It was late.", "The lamp was low.", "Nobody spoke.", "A dog ran by.", "Rain fell on the roof."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, codec_folder: Path) -> Path:
    """A user's folder: a chapter to read, recordings of the user, and a small study's recipe and corpus."""
    path = tmp_path_factory.mktemp("user")
    (path / "chapter.txt").write_text("It was late. The lamp had burned low.\n\nNobody spoke for some time.\n")
    samples, _, _ = speak("The words that are spoken in the recording.", Speaker("awb", "awb"))
    soundfile.write(path / "me.wav", samples, RATE)
    make_corpus(path / "runs")
    (path / "recipes/tiny").mkdir(parents=True)
    (path / "recipes/tiny/study.yaml").write_text(yaml.safe_dump(small_study(codec_folder, path / "runs")))
    (path / "recipes/xcodec2").mkdir()
    for recipe in (ROOT / "recipes/xcodec2").glob("*.yaml"):
        (path / "recipes/xcodec2" / recipe.name).write_text(yaml.safe_dump(small_recipe(recipe)))
    (path / "my-recordings").mkdir()
    for i, text in enumerate(SAID):
        samples, _, _ = speak(text, Speaker("awb", "awb"))
        soundfile.write(path / "my-recordings" / f"{i}.wav", samples, RATE)
        (path / "my-recordings" / f"{i}.txt").write_text(text)
    make_official_lora(path / "my-lora", "HKUSTAudio/Llasa-1B")
    return path


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, codec_folder: Path) -> Iterator[str]:
    """The address of a hub with an official model, its codec, and what a codec is trained with."""
    folder = tmp_path_factory.mktemp("official")
    repositories = {
        "HKUSTAudio/Llasa-1B": make_official_folder(folder / "lm"),
        "HKUSTAudio/xcodec2-hf": codec_folder,
        "facebook/w2v-bert-2.0": make_semantic_folder(folder / "w2v-bert"),
        "facebook/wav2vec2-large-xlsr-53": make_listener_folder(folder / "xlsr"),
    }
    with serve({name: of_folder(where) for name, where in repositories.items()}) as address:
        yield address


@pytest.mark.parametrize(
    ("page", "kind", "body"), BLOCKS, ids=[f"{page.stem}-{i}" for i, (page, _, _) in enumerate(BLOCKS)]
)
def test_a_block_runs(page: Path, kind: str, body: str, folder: Path, hub: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", body] if kind == "sh" else [sys.executable, "-c", body]
    homes = {"LLASA_HOME": str(folder / "home"), "HF_HOME": str(folder / "hub")}
    environment = os.environ | homes | {"PATH": path, "HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    for name in re.findall(r"(?:-o|>) (\S+\.(?:wav|flac))", body):
        assert soundfile.info(folder / name).duration > 0.2


def test_there_are_blocks_on_every_page() -> None:
    assert {page for page, _, _ in BLOCKS} | {ROOT / "docs/how-it-works.md"} == set(PAGES)

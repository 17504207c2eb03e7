"""Every command in the README and in docs/ is run here, as it stands: with the embedded model, and, where it names an
official one, with a small random model of that layout from a hub on this machine.

The commands fork from a process that has done the long imports.
"""

import os
import re
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import yaml
from encoders import make_listener_folder, make_semantic_folder
from hub import of_folder, serve
from official import make_official_folder, make_official_lora
from small_models import make_lm_folder
from studies.grids import make_corpus, small_study
from train.codec_recipes import small_recipe
from warm import warm

from llasa.data.teachers.flite import Speaker, speak
from llasa.data.teachers.teacher import RATE

ROOT = Path(__file__).parents[1]
# The commands of these run at toy size in tests/train; make's are run by .ci/run.
TRAINING = ("train.md", "train-rl.md")
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").glob("*.md") if p.name not in TRAINING)]
BLOCKS = [
    (page, kind, body)
    for page in PAGES
    for kind, body in re.findall(r"^```(sh|python)\n(.*?)^```", page.read_text(), re.S | re.M)
    # Not three lines that show a shape, nor what is run, and listened to, in test_export.py.
    if not body.startswith("state = ") and "AutoModelForCausalLM" not in body
]

SAID = ["It was late.", "The lamp was low.", "Nobody spoke.", "A dog ran by.", "Rain fell on the roof."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, codec_folder: Path) -> Path:
    """A user's folder: a chapter to read, recordings of the user, and a small study's recipe and corpus."""
    path = tmp_path_factory.mktemp("user")
    (path / "chapter.txt").write_text("It was late.\n\nNobody spoke.\n")
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
    make_lm_folder(path / "my-listener", codec_folder, recognition=True)
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


@pytest.fixture(scope="module")
def environment(folder: Path, hub: str) -> dict[str, str]:
    """What all commands know of the machine."""
    homes = {"LLASA_HOME": str(folder / "home"), "HF_HOME": str(folder / "hub")}
    return os.environ | homes | {"HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1"}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[list[str]]:
    """The beginning of a command that runs Python code; beside it lies a `llasa`."""
    with warm(tmp_path_factory.mktemp("bin"), environment) as command:  # of its own: the hub is read when imported
        yield command


@pytest.mark.parametrize(
    ("page", "kind", "body"), BLOCKS, ids=[f"{page.stem}-{i}" for i, (page, _, _) in enumerate(BLOCKS)]
)
def test_a_block_runs(
    page: Path, kind: str, body: str, folder: Path, environment: dict[str, str], python: list[str]
) -> None:
    if "llamacpp" in body:
        pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: run make test-llamacpp")
    if "vllm" in body:
        pytest.importorskip("vllm", reason="vLLM is not installed: run make test-vllm")
    command = ["bash", "-euo", "pipefail", "-c", body] if kind == "sh" else [*python, "-c", body]
    path = f"{Path(python[-1]).parent}{os.pathsep}{os.environ['PATH']}"  # where `llasa` is
    done = subprocess.run(command, cwd=folder, capture_output=True, env=environment | {"PATH": path})
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    for name in re.findall(r"(?:-o|>) (\S+\.(?:wav|flac))", body):
        assert soundfile.info(folder / name).duration > 0.2


def test_there_are_blocks_on_every_page() -> None:
    to_read = {ROOT / "docs" / f"{name}.md" for name in ("architecture", "how-it-works", "index")}
    assert {page for page, _, _ in BLOCKS} | to_read == set(PAGES)


def test_the_architecture_page_names_files_that_exist() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    names = re.findall(r"`([\w./-]+(?:\.py|/))`", page)
    assert len(names) > 40
    assert not sorted(
        name for name in set(names) if not any((top / name).exists() for top in (ROOT / "src/llasa", ROOT))
    )


def test_links_lead_to_files_and_headings() -> None:
    for page in [
        *PAGES,
        *(ROOT / "docs" / name for name in TRAINING),
        *ROOT.glob("recipes/*/*.md"),
        ROOT / "src/llasa/assets/tiny/README.md",
    ]:
        for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
            path = (page.parent / target) if target else page
            assert path.exists(), f"{page} links to {target}"
            if heading:
                titles = re.findall(r"^#+ (.*)", path.read_text(), re.M)
                assert heading in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]


def test_the_index_names_every_page() -> None:
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)\)", (ROOT / "docs/index.md").read_text()))
    assert linked == {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 700


def test_pictures_are_what_their_script_draws() -> None:
    draw = runpy.run_path(str(ROOT / "docs/pictures/draw.py"))
    for name, svg in draw["pictures"]().items():
        assert (ROOT / "docs/pictures" / name).read_text() == svg, "run: python docs/pictures/draw.py"

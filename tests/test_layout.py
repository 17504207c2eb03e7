"""How the source is laid out: what the wheel holds, how long files are, what modules and tests are called."""

import re
from collections import defaultdict
from pathlib import Path
from zipfile import ZipFile

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "llasa"
MODULES = [path for path in SOURCE.rglob("*.py") if path.name != "__init__.py"]
# Parts that are the same part of several things: the files of a training stage, and a verb and what it runs.
STAGES = ("lm", "codec", "recogniser", "voice", "rl")
LONGEST = 400  # lines


def test_the_wheel_holds_the_package_and_its_weights_alone(tmp_path: Path) -> None:
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with ZipFile(built) as wheel:
        names = set(wheel.namelist())
    inside = {name for name in names if name.startswith("llasa/")}
    assert {name.split("/")[0].split("-")[0] for name in names} == {"llasa"}
    assert not any(part in name for name in inside for part in ("benchmarks", "tests", "recipes", "/bars/"))
    assert {"llasa/assets/tiny/lm/model.safetensors", "llasa/assets/tiny/codec/model.safetensors"} <= inside
    assert {f"llasa/{path.relative_to(SOURCE)}" for path in MODULES} <= inside
    assert Path(built).stat().st_size < 64 * 2**20


def test_no_file_is_too_long_to_read() -> None:
    files = [*MODULES, *(ROOT / "benchmarks").rglob("*.py")]
    long = {str(path): count for path in files if (count := len(path.read_text().splitlines())) > LONGEST}
    assert not long


def test_no_two_modules_have_one_name() -> None:
    """But for the files of training's stages, which are alike on purpose, and for the verbs of the command line."""
    places = defaultdict(list)
    for path in MODULES:
        inside = path.relative_to(SOURCE)
        if inside.parts[0] != "commands" and not (inside.parts[0] == "train" and inside.parts[1] in STAGES):
            places[path.name].append(str(inside))
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_tests_lie_where_what_they_test_lies() -> None:
    folders = {path.relative_to(ROOT / "tests").parent for path in (ROOT / "tests").rglob("test_*.py")}
    elsewhere = [folder for folder in folders if not any((root / folder).is_dir() for root in (SOURCE, ROOT))]
    assert not elsewhere


def test_paths_are_asked_about_in_one_place() -> None:
    """`Path.is_dir` and its like raise in a folder of another user; `files.py` says what is wrong."""
    asks = re.compile(r"\.(is_dir|is_file|exists|resolve)\(\)")
    assert not [str(path) for path in MODULES if path.name != "files.py" and asks.search(path.read_text())]

"""Every verb that writes, told to write where nobody can: one line, and soon, before the work."""

from pathlib import Path

import pytest
from commands.runner import Run
from hostile import Ground, commands

OUTPUTS = ("out", "o.wav", "o.npy")
PLACES = ("/proc/x", "n" * 300, f"{'d/' * 3000}x", "/dev/null/x", "/dev/full/x", "a\x00b")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("ground"))


@pytest.mark.parametrize(
    "verb", ["say", "encode", "decode", "convert", "export", "data-list", "data-export", "lexicon", "synth", "finetune"]
)
def test_an_output_that_cannot_be_written_is_one_line(
    verb: str, ground: Ground, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    good = commands(ground)[verb][0]
    assert set(OUTPUTS) & set(good)
    for place in PLACES:
        result = run(*(place + Path(given).suffix if given in OUTPUTS else given for given in good))
        assert result.code in (1, 2), place
        errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 or "Usage: " in result.err, (place, result.err)
        assert "Traceback" not in result.err
    assert not list(tmp_path.rglob("*.tmp"))

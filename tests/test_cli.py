"""The command line as a whole; each verb has its tests in tests/commands."""

import subprocess
import sys

import pytest

import llasa
from llasa.cli import main


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = (
        "import sys\nfrom llasa.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'soundfile') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    for verb in ("say", "voices", "encode", "decode", "convert", "info"):
        assert verb in done.stdout


@pytest.mark.parametrize(
    "verb", [["say"], ["voices"], ["voices", "add"], ["encode"], ["decode"], ["convert"], ["data", "synth"]]
)
def test_every_verb_teaches_by_example(capsys: pytest.CaptureFixture[str], verb: list[str]):
    with pytest.raises(SystemExit) as stop:
        main([*verb, "--help"])
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert f"llasa {' '.join(verb)}" in shown
    assert "Example" in shown


def test_version_and_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert not stop.value.code
    assert capsys.readouterr().out == f"{llasa.__version__}\n"
    with pytest.raises(SystemExit) as stop:
        main(["say", "--no-such-option"])
    assert stop.value.code == 2
    with pytest.raises(SystemExit):
        main([])
    assert "Usage" in capsys.readouterr().out

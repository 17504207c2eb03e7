"""The command line as a whole; each verb has its tests in tests/commands."""

import errno
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stopping import interrupted

import llasa
from llasa import cli
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


VERBS = [["say", "A sentence of five words."], ["info"], ["voices"], ["--version"], ["--help"]]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
@pytest.mark.parametrize("redirection", [">&-", "> /dev/full"])
def test_an_output_that_is_closed_or_full_is_one_line(verb: list[str], redirection: str):
    command = shlex.join([sys.executable, "-m", "llasa", *verb])
    done = subprocess.run(f"{command} {redirection}", shell=True, capture_output=True, text=True)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "cannot write to standard output" in lines[0]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_what_goes_to_a_closed_standard_error_does_not_end_up_in_the_audio():
    command = shlex.join([sys.executable, "-m", "llasa", *VERBS[0], "--format", "pcm"])
    done = subprocess.run(f"{command} 2>&-", shell=True, capture_output=True)
    assert done.returncode == 0
    assert b"seed" not in done.stdout
    assert len(done.stdout) % 2 == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    "module", ["typer", "llasa.commands.say", "dataclasses", "torch", "llasa.tts", "llasa.engine.torch_engine"]
)
def test_a_signal_before_speech_ends_the_command(tmp_path: Path, number: int, code: int, module: str):
    text = "This is a sentence of a long text. " * 200
    status, told = interrupted(["say", text, "-o", tmp_path / "out.wav"], number, module)
    assert status in (code, -number)
    assert "Traceback" not in told
    assert set(os.listdir(tmp_path)) <= {"out.wav"}


def test_control_characters_in_names_are_escaped(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["encode", "a\x1b[31mred\x07.wav"])
    assert capsys.readouterr().err == "error: there is no file a\\x1b[31mred\\x07.wav\n"


def test_errors_of_the_system_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Whatever a verb forgets to translate."""
    with pytest.raises(RuntimeError) as beyond:
        torch.empty(10**18)
    for error, told in (
        (PermissionError(errno.EACCES, "", "/some/file"), "cannot use /some/file: permission denied"),
        (OSError(errno.EIO, ""), "cannot write to standard output or a temporary file: input/output error"),
        (MemoryError(), "there is not enough memory: close other programs, or pass something smaller"),
        (beyond.value, "there is not enough memory: close other programs, or pass something smaller"),
    ):

        def fail(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(cli, "app", fail)
        with pytest.raises(SystemExit) as stop:
            main([])
        assert stop.value.code == 1
        assert capsys.readouterr().err == f"error: {told}\n"


def test_speaking_starts_without_transformers(tmp_path: Path):
    """Its import takes longer than that of torch."""
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "llasa",
        "say",
        "A sentence of five words.",
        "-o",
        tmp_path / "a.wav",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "torch" in imported
    assert not imported & {"transformers", "torch._dynamo", "scipy", "sympy", "librosa"}

"""A short run of the fuzzer; `make fuzz` is the long one."""

from collections import Counter
from pathlib import Path

import pytest
from fuzzing import Verdict, run
from hostile import Case


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("raise ValueError('a bug')", "traceback"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crash"),
        ("print('error: one line', file=sys.stderr); raise SystemExit(1)", ""),
        ("raise SystemExit(1)", "message"),
        ("bytearray(4 << 30)[::4096] = bytes(1 << 20)", "memory"),
        ("print('fine')", ""),
    ],
)
def test_the_fuzzer_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, fault: str):
    import sys

    import llasa.cli

    monkeypatch.setattr(llasa.cli, "main", lambda arguments: exec(code, {"sys": sys}))
    assert run(Case("made", ()), tmp_path).fault == fault


def test_what_the_fuzzer_holds_itself_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import mmap

    import fuzzing

    import llasa.cli

    monkeypatch.setattr(fuzzing, "MEMORY", 200 << 20)
    code = "b = bytearray(100 << 20); b[::4096] = bytes(100 << 8)"
    monkeypatch.setattr(llasa.cli, "main", lambda arguments: exec(code))
    with mmap.mmap(-1, 16 << 30, prot=mmap.PROT_READ):  # more addresses than a command may ask for
        held = bytearray(150 << 20)
        held[::4096] = bytes(150 << 8)
        found = run(Case("made", ()), tmp_path)
    assert found.fault == "", found.told
    assert 50 << 20 < found.memory < 200 << 20


@pytest.mark.parametrize("patience", [0.0, 0.01])  # before the child has done anything, and later
def test_a_hang_is_noticed(patience: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import time

    import fuzzing

    import llasa.cli

    monkeypatch.setattr(fuzzing, "PATIENCE", patience)
    monkeypatch.setattr(llasa.cli, "main", lambda arguments: time.sleep(100))
    assert run(Case("made", ()), tmp_path).fault == "hang"


def test_nothing_of_a_short_run_ends_badly():
    from fuzzing import fuzz

    verdicts: list[Verdict] = fuzz(seed=7, count=25)
    assert Counter(verdict.fault for verdict in verdicts) == {"": 25}

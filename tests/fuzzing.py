"""Runs hostile commands in child processes with a limit of time and memory, and counts what ends badly.

`make fuzz MINUTES=20` runs this for long. A command may fail, but only with one line: a traceback, a crash, a hang or
more than 3 GB of memory is a fault. `hostile.py` makes the commands; a seed decides all of them.
"""

import argparse
import os
import re
import resource
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hostile import Case, Ground, cases

MEMORY = 3 << 30  # bytes that one command may add to what the fuzzer holds itself; more is a fault
ROOM = 12 << 30  # bytes of addresses that it may add: a bomb ends here, whatever the machine has
SECONDS = 60.0  # of the processor, for one command
PATIENCE = 4.0  # times as long on the clock, since other work may run


@dataclass(frozen=True)
class Verdict:
    """What became of a command: `fault` is empty, or one of traceback, crash, hang, memory, message."""

    case: Case
    fault: str
    told: str
    seconds: float
    memory: int


def run(case: Case, scratch: Path) -> Verdict:
    """Runs one command in a forked child, where the heavy imports are done already."""
    printed = scratch / "printed"
    printed.touch()
    sys.stdout.flush()
    sys.stderr.flush()
    began = time.monotonic()
    addresses, resident, shared = _memory(os.getpid())
    held = resident - shared  # a fork begins with its parent's own pages, and maps those of files again when it reads
    child = os.fork()
    if not child:
        _become(case, scratch, printed, addresses + ROOM)
    status, usage, fault = 0, None, ""
    while usage is None:
        done, status, found = os.wait4(child, os.WNOHANG)
        if done:
            usage = found
        elif time.monotonic() - began > SECONDS * PATIENCE:
            fault = "hang"
            _kill(child)
            usage = os.wait4(child, 0)[2]
        elif _memory(child)[1] - held > MEMORY:
            fault = "memory"
            _kill(child)
            usage = os.wait4(child, 0)[2]
        else:
            time.sleep(0.01)
    told = printed.read_bytes()[-20_000:].decode("utf-8", "replace")
    memory = max((usage.ru_maxrss << 10) - held, 0)
    if not fault:
        fault = "memory" if memory > MEMORY else _judge(status, told)
    return Verdict(case, fault, told, time.monotonic() - began, memory)


def _kill(child: int) -> None:
    """Kills a child and what it started, or the child alone while it has no group of its own yet."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(child, signal.SIGKILL)


def _become(case: Case, scratch: Path, printed: Path, room: int) -> None:
    """Turns a forked child into the command. Never returns."""
    code = 70
    try:
        os.setsid()
        limits = {resource.RLIMIT_CPU: int(SECONDS), resource.RLIMIT_AS: room, resource.RLIMIT_CORE: 0}
        for what, limit in limits.items():
            resource.setrlimit(what, (limit, limit))
        out = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        empty = os.open(case.stdin or os.devnull, os.O_RDONLY)
        for target, file in ((0, empty), (1, os.open(os.devnull, os.O_WRONLY)), (2, out)):
            os.dup2(file, target)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, "r" if n == 0 else "w", closefd=False) for n in range(3))
        os.chdir(scratch)
        os.environ["LLASA_HOME"] = str(scratch.parent / "home")
        from llasa.cli import main

        main(list(case.arguments))
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _judge(status: int, told: str) -> str:
    if os.WIFSIGNALED(status):
        return "hang" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else "crash"
    if "Traceback (most recent call last)" in told:
        return "traceback"
    code = os.WEXITSTATUS(status)
    if code == 1 and not re.search(r"(?m)^error: ", told):
        return "message"
    return "" if code in (0, 1, 2) else "crash"


def _memory(process: int) -> tuple[int, int, int]:
    """The bytes of a process's addresses, of its memory and of the part of it that files share; none once it ended."""
    try:
        addresses, resident, shared = Path(f"/proc/{process}/statm").read_text().split()[:3]
    except (OSError, ValueError):
        return 0, 0, 0
    page = resource.getpagesize()
    return int(addresses) * page, int(resident) * page, int(shared) * page


def fuzz(seed: int, count: int | None = None, minutes: float | None = None, verbose: bool = False) -> list[Verdict]:
    """Runs so many commands, or for so long."""
    import torch

    import llasa.cli
    import llasa.search.best_of
    import llasa.train.lm.run
    import llasa.tts  # noqa: F401 - imported once, for all the children

    torch.set_num_threads(1)
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory() as name:
        ground, ends = Ground(Path(name)), time.monotonic() + 60 * (minutes or 1e9)
        for case in cases(ground, seed):
            if len(verdicts) == count or time.monotonic() > ends:
                break
            with tempfile.TemporaryDirectory(dir=name) as scratch:
                case.prepare(Path(scratch))
                verdicts.append(found := run(case, Path(scratch)))
            if found.fault or verbose:
                last = found.told.strip().splitlines()[-1:] or [""]
                print(
                    f"{found.fault or 'held'}: {case.says}: {shlex.join(case.arguments)[:300]}: {last[0][:200]} "
                    f"({found.seconds:.1f} s, {found.memory >> 20} MB)",
                    flush=True,
                )
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="also show the commands that held")
    given = parser.parse_args()
    verdicts = fuzz(given.seed, given.count, None if given.count else given.minutes, given.verbose)
    found = Counter(verdict.fault for verdict in verdicts)
    print(
        f"{len(verdicts)} inputs: {found['traceback']} tracebacks, {found['crash']} crashes, {found['hang']} hangs, "
        f"{found['memory']} over 3 GB, {found['message']} failures without a message; the longest took "
        f"{max(v.seconds for v in verdicts):.0f} s, the largest {max(v.memory for v in verdicts) >> 20} MB"
    )
    sys.exit(any(verdict.fault for verdict in verdicts))


if __name__ == "__main__":
    main()

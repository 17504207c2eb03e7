"""A `llasa` that starts at once: a process that has done the long imports forks for every command.

Each command has its own process, with the arguments, the folder, the environment and the open files of whoever runs
it, so pipes and exit statuses are those of a shell. SIGINT and SIGTERM reach it, and it is killed with whoever runs it.
What a module reads from the environment when it is imported is as it was in the first process.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Hands a command over, passes signals on, and ends as it ends.
CLIENT = """
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: server.send(bytes([number])))
    told = json.dumps([os.getcwd(), dict(os.environ), *sys.argv[2:]]).encode()
    socket.send_fds(server, [len(told).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(told)
    sys.exit(ord(server.recv(1) or b"\\1"))
"""


@contextmanager
def warm(folder: Path, environment: dict[str, str]) -> Iterator[list[str]]:
    """Puts a `llasa` and a `python` into `folder`, and yields the beginning of a command.

    It takes `-c CODE`, `-m llasa ...` or `SCRIPT ...` as Python would.
    """
    place, client = folder / "socket", folder / "client.py"
    client.write_text(CLIENT)
    command = [sys.executable, "-IS", str(client), str(place)]
    for name, first in (("llasa", "-m llasa"), ("python", "")):
        (folder / name).write_text(f'#!/bin/sh\nexec {" ".join(command)} {first} "$@"\n')
        (folder / name).chmod(0o755)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen()
        process = subprocess.Popen(
            [sys.executable, __file__, str(server.fileno())], env=environment, pass_fds=[server.fileno()]
        )
    try:
        yield command
    finally:
        process.kill()
        process.wait()


def kill(process: subprocess.Popen[str]) -> None:
    """Kills a command, whose standard error is a pipe, and waits until its fork is gone too.

    The fork ends a moment after the process that handed the command over; then nobody holds the pipe any more.
    """
    process.kill()
    assert process.stderr is not None
    process.stderr.read()
    process.wait()


# What commands import only when they need it.
LATER = (
    "datasets", "matplotlib.pyplot", "pyarrow.parquet", "rich.console", "scipy.signal", "torch.utils.tensorboard",
    "transformers.models.wav2vec2_bert.modeling_wav2vec2_bert", "typer._adapters", "yaml",
    "llasa.engine.torch_engine", "llasa.search.best_of", "llasa.train.codec.run", "llasa.train.lm.run",
    "llasa.train.recogniser.run", "llasa.tts", "llasa.verifiers.content",
)  # fmt: skip


def serve(server: socket.socket) -> None:
    """Forks for every command; a fork returns when its command has ended."""
    status = 1

    def report() -> None:  # after all else that runs at the end of a process
        sys.stdout.flush()
        sys.stderr.flush()
        if caller:
            caller.send(bytes([status]))

    caller = None
    atexit.register(report)
    import llasa.cli

    for name in LATER:
        importlib.import_module(name)
    gc.freeze()  # else a collection in a fork copies all that was imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a command here
    while True:
        connection, _ = server.accept()
        if not os.fork():
            break
        connection.close()
    caller = connection
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored, for all that follow
    server.close()
    size, files, *_ = socket.recv_fds(caller, 4, 3)
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    folder, environment, *arguments = json.loads(caller.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=obey, args=[caller], daemon=True).start()
    try:
        if arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            exec(arguments[1], {"__name__": "__main__"})
        elif arguments[0] == "-m":
            llasa.cli.main(arguments[2:])
        else:
            sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent)
            runpy.run_path(arguments[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)


def obey(caller: socket.socket) -> None:
    """Sends this process the signals that the caller got; without a caller, the last one."""
    while number := caller.recv(1):
        os.kill(os.getpid(), number[0])
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))

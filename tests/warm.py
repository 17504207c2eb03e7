"""A `llasa` that starts at once: a process that has done the long imports forks for every command.

Each command has its own process, with the arguments, the folder and the open files of whoever runs it, so pipes and
exit statuses are those of a shell. The environment is that of the first process.
"""

import atexit
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Hands a command over and ends as it ends.
CLIENT = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    socket.send_fds(server, [json.dumps([os.getcwd(), *sys.argv[2:]]).encode()], [0, 1, 2])
    sys.exit(ord(server.recv(1) or b"\\1"))
"""


@contextmanager
def warm(folder: Path, environment: dict[str, str]) -> Iterator[list[str]]:
    """Puts a `llasa` into `folder`, and yields the beginning of a command that runs `-c CODE` as Python would."""
    place, client = folder / "socket", folder / "client.py"
    client.write_text(CLIENT)
    command = [sys.executable, "-IS", str(client), str(place)]
    (folder / "llasa").write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
    (folder / "llasa").chmod(0o755)
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


# What commands import only when they need it.
LATER = (
    "rich.console", "transformers.models.wav2vec2_bert.modeling_wav2vec2_bert",
    "llasa.engine.torch_engine", "llasa.search.best_of", "llasa.train.lm.run", "llasa.tts", "llasa.verifiers.content",
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
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a command here
    while True:
        connection, _ = server.accept()
        if not os.fork():
            break
        connection.close()
    caller = connection
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    server.close()
    told, files, *_ = socket.recv_fds(caller, 1 << 16, 3)
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    folder, *arguments = json.loads(told)
    os.chdir(folder)
    if arguments[:1] == ["serve"]:  # which ends only when it is told to, as by a signal to the command
        threading.Thread(target=lambda: caller.recv(1) or os.kill(os.getpid(), signal.SIGTERM), daemon=True).start()
    try:
        if arguments[:1] == ["-c"]:
            exec(arguments[1], {"__name__": "__main__"})
        else:
            llasa.cli.main(arguments)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))

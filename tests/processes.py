"""Commands on several processes, without a launcher: forked from one that has done the long imports once."""

import contextlib
import multiprocessing
import os
import socket
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")


def start(arguments: list[str], count: int, printed: Path) -> list[multiprocessing.process.BaseProcess]:
    """Runs `llasa ARGUMENTS` as `count` processes that torch.distributed can join; what they print goes to a file."""
    _CONTEXT.set_forkserver_preload(
        ["llasa.train.lm.run", "accelerate", "datasets", "torch.utils.tensorboard", "typer._adapters"]
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes: list[multiprocessing.process.BaseProcess] = []
    for rank in range(count):
        environment = {
            "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        }  # fmt: skip
        process = _CONTEXT.Process(target=_work, args=(arguments, {k: str(v) for k, v in environment.items()}, printed))
        process.start()
        processes.append(process)
    return processes


def _work(arguments: list[str], environment: dict[str, str], printed: Path) -> None:
    from llasa.cli import main

    os.environ.update(environment)
    with printed.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        main(arguments)

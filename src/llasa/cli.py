"""The command line: `llasa say`, `transcribe`, `voices`, `serve`, `encode`, `decode`, `convert`, `info`, `finetune`,
`merge`, `export`, `data`, `train`, `study`, `eval`.

This module registers the verbs and turns errors into one line and an exit status. Each verb imports heavy packages only
when it runs.
"""

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import typer

import llasa
from llasa.commands import (
    codes,
    convert,
    data,
    eval,
    export,
    finetune,
    info,
    merge,
    say,
    serve,
    study,
    synth,
    train,
    transcribe,
    voices,
)
from llasa.errors import LlasaError, printable, reason, shown

app = typer.Typer(
    help="Text to speech with a plain Llama: it continues text with speech.\n\n"
    'Try: [bold]llasa say "Hello."[/]   [bold]llasa say --help[/]',
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=say.SayCommand)(say.say)
app.command()(transcribe.transcribe)
app.add_typer(voices.app, name="voices")
app.command()(serve.serve)
app.command()(codes.encode)
app.command()(codes.decode)
app.command()(convert.convert)
app.command()(info.info)
app.command()(finetune.finetune)
app.command()(merge.merge)
app.command()(export.export)
data.app.command()(synth.synth)
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")
app.add_typer(study.app, name="study")
app.command("eval")(eval.evaluate)


def _version(wanted: bool) -> None:
    if wanted:
        print(llasa.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 an error (one line on standard error), 2 wrong usage, 130 Ctrl-C, 143
    terminated.

    Args:
        arguments: without the program's name; by default those of the process.
    """
    if not sys.warnoptions:
        warnings.showwarning = _show_warning
    _open_streams()
    with _signals() as received:
        try:
            try:
                app(arguments, prog_name="llasa")
            finally:
                sys.stdout.flush()
        except SystemExit as stop:
            sys.exit(128 + received[0] if received and stop.code else stop.code)
        except BaseException as error:
            if received:  # whatever it became on its way, such as a failed import
                print("interrupted", file=sys.stderr)
                sys.exit(128 + received[0])
            if (message := _message(error)) is None:
                raise
            if message:
                print(f"error: {message}", file=sys.stderr)
            sys.exit(1)


def _message(error: BaseException) -> str | None:
    """One line about an error; empty where the reader of the output is gone; None if the error is a bug of ours."""
    if isinstance(error, LlasaError):
        return printable(" ".join(str(error).split()))
    if isinstance(error, OSError) and error.errno:
        if error.filename is not None:
            return printable(f"cannot use {shown(os.fsdecode(error.filename))}: {reason(error)}")
        broken = not _drop_output()
        if isinstance(error, BrokenPipeError):
            return ""
        # Python may have thrown the buffer away, and then does not know any more whose it was.
        return f"cannot write to standard output{'' if broken else ' or a temporary file'}: {reason(error)}"
    # PyTorch raises a RuntimeError, of its own class on a GPU alone.
    told = str(error) if isinstance(error, RuntimeError) else ""
    if isinstance(error, MemoryError) or "can't allocate memory" in told or "out of memory" in told:
        return "there is not enough memory: close other programs, or pass something smaller"
    return None


def _drop_output() -> bool:
    """Whether standard output still takes what is in its buffer. If not, that goes nowhere, so as not to fail again."""
    try:
        sys.stdout.flush()
        return True
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False


def _open_streams() -> None:
    """Opens the standard streams that the caller closed, so that no other file takes their place.

    Whoever writes to such an output is told so. What goes to standard error is lost.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            file = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            if file != number:
                os.dup2(file, number)
                os.close(file)
            if name != "stdin":
                setattr(sys, name, os.fdopen(number, "w", closefd=False))


class _Interrupt(KeyboardInterrupt):
    """What a signal raises. After a bare KeyboardInterrupt in `exec`, even a caught one, Python 3.11 ends by SIGINT."""


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Makes Ctrl-C and SIGTERM an exception, so that half-written files are removed; yields those that came.

    Child processes that were forked meanwhile end at SIGTERM, as usual.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    owner = os.getpid()

    def stop(number: int, frame: object) -> None:
        if os.getpid() != owner and number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received.append(number)
        raise _Interrupt

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as a shell starts its background jobs
            before[number] = signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Prints this package's warnings as notes and drops those of libraries."""
    if category.__module__.startswith("llasa."):
        print(f"note: {message}", file=sys.stderr)

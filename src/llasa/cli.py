"""The command line: `llasa say`, `voices`, `encode`, `decode`, `convert`, `info`, `finetune`, `merge`, `export`,
`data`, `train`, `study`.

Puts the verbs together and turns what goes wrong into one line and an exit status. Every heavy import is inside the
verb that needs it.
"""

import os
import sys
import warnings
from typing import Annotated, Any

import typer

import llasa
from llasa.commands import codes, convert, export, finetune, info, merge, say, study, synth, voices
from llasa.data import commands as data
from llasa.errors import LlasaError
from llasa.train import commands as train

app = typer.Typer(
    help="Text to speech with a plain Llama: it continues text with speech.\n\n"
    'Try: [bold]llasa say "Hello."[/]   [bold]llasa say --help[/]',
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(say.say)
app.add_typer(voices.app, name="voices")
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
    """Runs the command line and exits: 0 done, 1 an error (one line on standard error), 2 wrong usage, 130 Ctrl-C.

    Args:
        arguments: without the program's name; the process' own by default.
    """
    if not sys.warnoptions:
        warnings.showwarning = _show_warning
    try:
        app(arguments, prog_name="llasa")
    except LlasaError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our audio has gone. What is still in the buffer must not fail a second time at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Our own warnings are notes to the user; those of libraries are not for them."""
    if category.__module__.startswith("llasa."):
        print(f"note: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()

"""`llasa voices`: lists, adds and removes reference voices."""

from pathlib import Path
from typing import Annotated

import typer

from llasa.commands.common import Device, Model, read_reference, tell, waiting
from llasa.errors import LlasaError, reason
from llasa.files import exists

app = typer.Typer(rich_markup_mode="rich")


@app.callback(invoke_without_command=True)
def voices(context: typer.Context) -> None:
    """List, add and remove voices.

    A voice is a few seconds of somebody's speech, with its transcript. Your
    own lie in ~/.local/share/llasa/voices, or in $LLASA_HOME/voices.

    [bold]Examples[/]

      llasa voices

      llasa voices add anna anna.wav --text "What Anna says in it."

      llasa say "Hello." --voice anna
    """
    if context.invoked_subcommand is None:
        show()


@app.command("list")
def show(model: Model = "tiny") -> None:
    """List the voices that a model can speak in: its presets and your own."""
    from llasa.models.hub import find_model
    from llasa.voice import Voice, list_voices, user_folder

    found = list_voices(find_model(model))
    if not found:
        tell("there are no voices: add one with `llasa voices add`")
    width = max(map(len, found), default=0)
    for name, path in found.items():
        try:
            text = Voice.load(path).text
        except LlasaError as error:
            text = f"error: {error}"
        kind = "yours" if path.parent == user_folder() else "preset"
        print(f"{name:{width}}  {kind:6}  {text}")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name for the voice.")],
    recording: Annotated[Path, typer.Argument(help="An audio file: 3 to 10 seconds of one person speaking.")],
    text: Annotated[
        str | None,
        typer.Option("--text", "--voice-text", help="The words spoken in it; [bold]auto[/] has them recognised."),
    ] = None,
    model: Model = "tiny",
    force: Annotated[bool, typer.Option("--force", help="Replace a voice of that name.")] = False,
    device: Device = None,
) -> None:
    """Add a voice from a recording, for [bold]llasa say --voice NAME[/].

    [bold]Example[/]

      llasa voices add anna anna.wav --text "What Anna says in it."
    """
    from llasa.voice import check_name, user_folder

    path = user_folder() / f"{check_name(name)}.safetensors"
    if exists(path) and not force:
        raise LlasaError(f"there is a voice called {name} already: pass --force to replace it")
    samples, words = read_reference(recording, text)
    with waiting(f"loading {model}"):
        from llasa.tts import Llasa

        llasa = Llasa.load(model, device=device)
        voice = llasa.clone(samples, words, name)
        voice.save(path)
    if words is None:
        tell(f"the recording says: {voice.text}")
    tell(f"added: llasa say --voice {name} ...")


@app.command()
def remove(name: Annotated[str, typer.Argument(help="One of your own voices.")]) -> None:
    """Remove one of your own voices."""
    from llasa.voice import check_name, suggest, user_folder

    path = user_folder() / f"{check_name(name)}.safetensors"
    if not exists(path):
        raise LlasaError(suggest(name, [p.stem for p in user_folder().glob("*.safetensors")], kind="of yours "))
    try:
        path.unlink()
    except OSError as error:
        raise LlasaError(f"cannot remove {path}: {reason(error)}") from error
    tell(f"removed {name}")

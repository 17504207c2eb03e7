"""`llasa export`: writes a model and its codec as one folder for plain transformers, and uploads it to the hub."""

from pathlib import Path
from typing import Annotated

import typer

from llasa.commands.common import tell, waiting


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="[bold]tiny[/], a model's folder, or a hub id.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    license: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Licence, such as [bold]apache-2.0[/]; by default that of its card."),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="A language that it speaks, such as [bold]en[/]; repeatable."),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(metavar="ID", help="Hub id of the model that it was tuned from.")
    ] = None,
    push: Annotated[
        str | None, typer.Option(metavar="USER/NAME", help="Upload it to the hub as well; a new repository is private.")
    ] = None,
) -> None:
    """Write a model and its codec as one folder that plain transformers loads.

    [bold]Example[/]

      llasa export runs/lm/model my-voice --license apache-2.0 --push me/my-voice
    """
    from llasa import export as exporting

    if push:
        with waiting("asking the hub"):
            exporting.check_hub(push)
    with waiting("copying"):
        exporting.export(model, output, license, language, base_model)
    tell(f"{output}: a model folder, ready for --model and for transformers")
    if push:
        with waiting("uploading"):
            address = exporting.push(output, push)
        tell(address)

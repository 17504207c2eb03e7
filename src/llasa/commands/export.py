"""`llasa export`: writes a model and its codec as one folder for plain transformers, or a GGUF file for llama.cpp."""

from pathlib import Path
from typing import Annotated

import typer

from llasa.commands.common import tell, waiting
from llasa.errors import LlasaError


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="[bold]tiny[/], a model's folder, or a hub id.")],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder, or with [bold]--gguf[/] the file, to write.")
    ],
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
    gguf: Annotated[
        bool, typer.Option("--gguf", help="Write the language model alone, as GGUF for programs built on llama.cpp.")
    ] = False,
    quantize: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Of a GGUF's matrices: [bold]f32[/], [bold]f16[/], [bold]bf16[/], [bold]q8_0[/] or [bold]q4_0[/]; "
            "f16 by default.",
        ),
    ] = None,
) -> None:
    """Write a model and its codec as one folder that plain transformers loads.

    [bold]Examples[/]

      llasa export runs/lm/model my-voice --license apache-2.0 --push me/my-voice

      llasa export tiny tiny.gguf --gguf --quantize q8_0
    """
    from llasa import export as exporting

    if gguf:
        if language or base_model or push:
            raise LlasaError("--gguf writes one file without a card: leave --language, --base-model and --push out")
        with waiting("converting"):
            exporting.export_gguf(model, output, quantize or "f16", license)
        tell(f"{output}: the language model in GGUF, ready for programs built on llama.cpp")
        return
    if quantize:
        raise LlasaError("--quantize is for GGUF: add --gguf")

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

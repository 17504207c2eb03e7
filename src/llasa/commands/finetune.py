"""`llasa finetune`: recordings of one person and a model to a model that speaks as that person."""

from pathlib import Path
from typing import Annotated

import typer

from llasa.commands.common import Device, bar, tell


def finetune(
    data: Annotated[
        str, typer.Option("--data", metavar="SOURCE", help="Recordings of one person, with their texts; a folder, say.")
    ],
    model: Annotated[
        str,
        typer.Option("--model", "-m", metavar="NAME", help="Base: [bold]tiny[/], a model's folder, or a hub id."),
    ] = "tiny",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="The folder to make; by default NAME-voice.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Train all weights, not a LoRA.")] = False,
    name: Annotated[str | None, typer.Option(help="Of the voice; by default that of the recordings.")] = None,
    layout: Annotated[
        str | None, typer.Option(help="What the recordings are, if they do not look like it; see docs/data.md.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="At most so many steps, instead of what suits them.")] = None,
    device: Device = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
) -> None:
    """Teach a model a new voice.

    Encodes the recordings, holds some out, trains, and keeps what was best on
    those. Stopped or killed, the same command goes on.

    [bold]Example[/]

      llasa finetune --data my-recordings --out my-tuned-voice

      llasa say --model my-tuned-voice "Hello."
    """
    from llasa.train.finetune import Job, finetune, name_of

    if threads:
        import torch

        torch.set_num_threads(threads)
    folder = out or Path(f"{name or name_of(data)}-voice")
    result = finetune(Job(data, model, folder, full, name, layout, steps, device), tell, bar)
    if result is None:
        tell(f'stopped; the same command goes on. The best so far: llasa say --model {folder} "Hello."')
        return
    tell(f"the loss on held-out clips: {result.before:.4f} before, {result.after:.4f} after {result.step} steps")
    if result.step == 0:
        tell("no step made it less: the folder speaks with the weights of its base")
    tell(f'{folder}: a model, ready for llasa say --model {folder} "Hello."')

"""`llasa finetune`: teaches a model to speak like a person, from recordings."""

from pathlib import Path
from typing import Annotated

import typer

from llasa.commands.common import Device, bar, tell


def finetune(
    data: Annotated[
        str,
        typer.Option("--data", metavar="SOURCE", help="Recordings of one person with their texts, such as a folder."),
    ],
    model: Annotated[
        str,
        typer.Option("--model", "-m", metavar="NAME", help="Base: [bold]tiny[/], a model's folder, or a hub id."),
    ] = "tiny",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="The folder to make; by default NAME-voice.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Train all weights instead of a LoRA.")] = False,
    name: Annotated[str | None, typer.Option(help="The voice's name; by default the recordings' name.")] = None,
    layout: Annotated[
        str | None, typer.Option(help="The recordings' layout, if it is not recognised; see docs/data.md.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="The most steps, instead of a number that suits the data.")
    ] = None,
    device: Device = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads.")] = None,
) -> None:
    """Teach a model a new voice.

    Encodes the recordings, holds some out, trains, and keeps the weights that
    are best on those. After a stop, the same command resumes.

    [bold]Example[/]

      llasa finetune --data my-recordings --out my-tuned-voice

      llasa say --model my-tuned-voice "Hello."
    """
    from llasa.train.voice.finetune import FinetuneJob, finetune, name_of

    if threads:
        import torch

        torch.set_num_threads(threads)
    folder = out or Path(f"{name or name_of(data)}-voice")
    result = finetune(FinetuneJob(data, model, folder, full, name, layout, steps, device), tell, bar)
    if result is None:
        tell(f'stopped; the same command resumes. To hear the best so far: llasa say --model {folder} "Hello."')
        return
    tell(f"the loss on held-out clips: {result.before:.4f} before, {result.after:.4f} after {result.step} steps")
    if result.step == 0:
        tell("no step lowered the loss: the folder speaks with the weights of its base")
    tell(f'{folder}: a model, ready for llasa say --model {folder} "Hello."')

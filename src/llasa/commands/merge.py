"""`llasa merge`: writes a LoRA and its base as one model folder."""

from pathlib import Path
from typing import Annotated

import typer

from llasa.commands.common import tell, waiting


def merge(
    lora: Annotated[str, typer.Argument(metavar="LORA", help="The LoRA's folder or hub id, as peft writes them.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The model folder to write.")],
) -> None:
    """Merge a LoRA into the model it was trained on.

    Other programs need this. Speaking does not: [bold]--model[/] takes a LoRA
    too, and merges it while loading.

    [bold]Example[/]

      llasa merge my-lora my-model
    """
    from llasa.models.hub import find_model
    from llasa.models.lora import save_merged

    folder = find_model(lora)
    with waiting("merging"):
        save_merged(folder, output)
    tell(f"{output}: a model folder, ready for --model")

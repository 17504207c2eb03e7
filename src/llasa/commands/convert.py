"""`llasa convert`: writes a codec in another layout. `llasa.codec.convert` does the work."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from llasa.commands.common import tell, waiting


class Layout(StrEnum):
    """The layouts to write: that of HKUSTAudio/xcodec2-hf, and that of HKUSTAudio/xcodec2."""

    transformers = "transformers"
    original = "original"


def convert(
    source: Annotated[str, typer.Argument(help="A codec's folder or hub id, a .ckpt, or a model that has a codec.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    to: Annotated[Layout, typer.Option(help="The layout to write.")] = Layout.transformers,
    semantic: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Folder or hub id of w2v-BERT 2.0, for a .ckpt that lacks it."),
    ] = None,
) -> None:
    """Rewrite a codec in another layout.

    Reads transformers' layout, X-codec2's original one, and the .ckpt of
    its training; writes the first two.

    [bold]Examples[/]

      llasa convert HKUSTAudio/xcodec2 xcodec2

      llasa convert epoch=4-step=1400000.ckpt xcodec2

      llasa convert tiny tiny-original --to original
    """
    with waiting(f"converting {source}"):
        from llasa.codec.convert import SEMANTIC, find
        from llasa.codec.convert import convert as rewrite

        count = rewrite(find(source), out, to.value, semantic or SEMANTIC)
    tell(f"{out}: {count} tensors in the {to.value} layout")

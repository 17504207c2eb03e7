"""`llasa train`: trains a stage from a YAML file. The same command resumes from the stage's checkpoint."""

import os
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from llasa.errors import need_extra
from llasa.train.codec.settings import CodecSettings
from llasa.train.lm.settings import LMSettings
from llasa.train.recogniser.settings import RecogniserSettings
from llasa.train.rl.settings import RLSettings
from llasa.train.settings import explain, read_settings

T = TypeVar("T")
app = typer.Typer(help="Train the recogniser, the codec, the language model.", no_args_is_help=True)


@app.callback()
def _installed() -> None:
    need_extra("train", "pyarrow", "yaml", "tensorboard", "accelerate", "datasets")


Recipe = Annotated[Path, typer.Argument(help="The stage's YAML file, such as recipes/tiny/lm.yaml.")]
Steps = Annotated[int | None, typer.Option(help="Steps in all, instead of the recipe's number.")]
Threads = Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads.")]


SEVERAL = "On several processes: torchrun --standalone --nproc-per-node 2 -m llasa train {0} RECIPE"


def _help(says: str, kind: type, example: str) -> str:
    """A command's help: what it does, the keys of its recipe, and an example."""
    keys = ["Keys of a recipe, with defaults in brackets:", explain(kind)]
    return "\n\n".join([says, *keys, f"Example: llasa train {example}"])


def _read(recipe: Path, kind: type[T], steps: int | None, threads: int | None) -> T:
    """Sets the number of threads and reads the settings in a recipe."""
    if threads:
        import torch

        torch.set_num_threads(threads)
    return read_settings(kind, recipe, {"schedule.steps": steps})


@app.command(
    help=_help(
        "Train the recogniser (Wav2Vec2-BERT with CTC), which scores speech and can be a codec's semantic encoder.",
        RecogniserSettings,
        "recogniser recipes/tiny/recogniser.yaml",
    )
)
def recogniser(recipe: Recipe, steps: Steps = None, threads: Threads = None) -> None:
    """Trains the recogniser."""
    settings = _read(recipe, RecogniserSettings, steps, threads)
    from llasa.train.recogniser.run import train

    train(settings)


@app.command(
    help=_help(
        "Train X-codec2, from scratch or from a trained codec. " + SEVERAL.format("codec"),
        CodecSettings,
        "codec recipes/xcodec2/codec.yaml",
    )
)
def codec(recipe: Recipe, steps: Steps = None, threads: Threads = None) -> None:
    """Trains the codec."""
    settings = _read(recipe, CodecSettings, steps, threads)
    from llasa.train.codec.run import train

    train(settings)


@app.command(
    help=_help("Train the language model. " + SEVERAL.format("lm"), LMSettings, "lm recipes/tiny/lm.yaml"),
)
def lm(
    recipe: Recipe,
    steps: Steps = None,
    threads: Threads = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only print what it would take on this machine.")] = False,
) -> None:
    """Trains the language model."""
    settings = _read(recipe, LMSettings, steps, threads)
    if plan:
        from llasa.train.lm.memory import report

        if os.environ.get("RANK", "0") == "0":
            print(report(settings))
    else:
        from llasa.train.lm.run import train

        train(settings)


@app.command(
    help=_help(
        "Train a model on its own speech, with verifiers as the reward (GRPO). It says each sentence many times, "
        "scores the samples as a search does, and makes the better ones likelier. " + SEVERAL.format("rl"),
        RLSettings,
        "rl recipes/tiny/rl.yaml",
    )
)
def rl(recipe: Recipe, steps: Steps = None, threads: Threads = None) -> None:
    """Trains a model with verifiers as the reward."""
    settings = _read(recipe, RLSettings, steps, threads)
    need_extra("train", "peft")
    from llasa.train.rl.run import train

    train(settings)


@app.command()
def assemble(
    recipe: Recipe,
    out: Annotated[Path, typer.Argument(help="Folder for lm/, codec/ and recogniser/.")],
) -> None:
    """Assemble the trained models into one voice: half-precision weights and preset voices.

    Example: llasa train assemble recipes/tiny/voice.yaml my-voice
    """
    from llasa.train.assemble import VoiceSettings
    from llasa.train.assemble import assemble as run

    run(read_settings(VoiceSettings, recipe), out)

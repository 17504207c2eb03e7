"""`llasa train`: the stages, each from a YAML file; started again, each goes on from its checkpoint."""

import os
from pathlib import Path
from typing import Annotated

import typer

from llasa.errors import need_extra

app = typer.Typer(help="Train the recogniser, the codec, the language model.", no_args_is_help=True)


@app.callback()
def _installed() -> None:
    need_extra("train", "pyarrow", "yaml", "tensorboard", "accelerate", "datasets")


Recipe = Annotated[Path, typer.Argument(help="The stage's YAML file, such as recipes/tiny/lm.yaml.")]
Steps = Annotated[int | None, typer.Option(help="Train for so many steps in all, instead of the recipe's.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads.")]


def _threads(count: int | None) -> None:
    if count:
        import torch

        torch.set_num_threads(count)


@app.command()
def semantic(recipe: Recipe, steps: Steps = None, threads: Threads = None) -> None:
    """The recogniser (Wav2Vec2-BERT with CTC) whose middle layer the codec listens through.

    Example: llasa train semantic recipes/tiny/recogniser.yaml
    """
    from llasa.train.loop import read_settings
    from llasa.train.semantic import Settings, train

    _threads(threads)
    train(read_settings(Settings, recipe, steps=steps))


@app.command()
def codec(recipe: Recipe, steps: Steps = None, threads: Threads = None) -> None:
    """X-codec2: from scratch, or on from a trained codec.

    On several processes:
    torchrun --standalone --nproc-per-node 2 -m llasa.cli train codec RECIPE

    A recipe holds `corpus` and `validation` (lists of folders of audio shards),
    `out`, and any of these:

    From scratch: `semantic`, a recogniser's training folder or a w2v-BERT's
    folder or hub id, of which `tap` layers are heard; the sizes `hidden`,
    `intermediate`, `layers`, `heads`, `encoder_hidden`, `ratios`, `levels`;
    `dropout`.

    From a codec: `start`, whatever `llasa encode --model` takes; `learn`:
    `decoder`, which leaves its codes alone, or `all`.

    Steps: `steps`, `shapes` (frames of a crop and crops of a batch, in turn),
    `readers` (threads that decode ahead), `lr`, `warmup`, and then a cosine to
    the share `lr_floor`, or a straight fall to it in `lr_fall` steps; `muon_lr`
    (Muon for the matrices in the decoder's layers), `betas`, `clip`, `ema` (0:
    none), `seed`, `compile`, `checkpoint_minutes`.

    Losses: `mel_weight`, `stft_weight`, both at `scales` (FFT size and mel
    bands); `semantic_weight` (if `semantic_relative`, in units of the features'
    deviation), `phone_weight`, `entropy_weight`, `bound_weight`; `pitch_weight`,
    for which `levels` end in 4, 3, 3, and `frame_weight`, what the decoder
    predicts for each frame.

    Discriminators, from step `adversarial_at` on: `discriminators`, `small`
    (`channels` wide) or `full`; `periods`, `fft_sizes`; `judges_lr`, a share of
    `lr`; `adversarial_weight`, `matching_weight`.

    Perceptual loss, from step `perceptual_at` on: `perceptual`, a speech
    model's folder or hub id; `perceptual_layers`, the first and the last;
    `perceptual_weight`.

    Example: llasa train codec recipes/xcodec2/codec.yaml
    """
    from llasa.train.codec import Settings
    from llasa.train.codec_run import train
    from llasa.train.loop import read_settings

    _threads(threads)
    train(read_settings(Settings, recipe, steps=steps))


@app.command()
def lm(
    recipe: Recipe,
    steps: Steps = None,
    threads: Threads = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it would take on this machine, and stop.")] = False,
) -> None:
    """The language model. On several processes: torchrun --standalone --nproc-per-node 2 -m llasa.cli train lm RECIPE

    A recipe holds `corpus` (folders of codes shards, each with a weight),
    `validation` (one such folder), `codec`, `out`, and any of these:

    Model: `init`, a pretrained one, or `model`, sizes of a fresh Llama;
    `lexicon`, whose phones texts become; `factored`, `output_groups`, how
    speech tokens are learnt as digits; `pointing_heads`, `pointing_weight`.

    Samples: `chat`, conversations with weights; `spell`, the share of words
    left in letters; `joined`, how often one utterance follows another of its
    speaker; `longest`, tokens of a sample; `sampled`, up to what share of the
    codes that it reads are its own, in every other step.

    Steps: `steps`; `tokens` and `rows` of each; `lr`, `warmup`, and a cosine to
    the share `lr_floor`; `muon_lr` (0: AdamW alone), `decay`, `ema` (0: none),
    `seed`, `checkpoint_minutes`.

    Memory: `gradient_checkpointing`, and `shard`: each of several processes
    holds a part of the model (FSDP2) instead of a copy.

    Example: llasa train lm recipes/tiny/lm.yaml
    """
    from llasa.train.lm import Settings
    from llasa.train.loop import read_settings

    _threads(threads)
    settings = read_settings(Settings, recipe, steps=steps)
    if plan:
        from llasa.train.plan import report

        if os.environ.get("RANK", "0") == "0":
            print(report(settings))
    else:
        from llasa.train.lm_run import train

        train(settings)


@app.command()
def assemble(
    recipe: Recipe,
    out: Annotated[Path, typer.Argument(help="Folder for lm/, codec/ and recogniser/.")],
) -> None:
    """Put the trained models together as one voice: half-precision weights and preset voices.

    Example: llasa train assemble recipes/tiny/voice.yaml my-voice
    """
    from llasa.train.assemble import Settings
    from llasa.train.assemble import assemble as run
    from llasa.train.loop import read_settings

    run(read_settings(Settings, recipe), out)

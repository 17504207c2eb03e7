"""`llasa say`: text in, sound out.

Knows where text comes from and where audio goes; `llasa.tts` does the speaking.
"""

import os
import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llasa.commands.common import Device, Model, bar, check_writable, tell, waiting
from llasa.errors import LlasaError

if TYPE_CHECKING:
    import numpy as np

    from llasa.speech import Speech
    from llasa.tts import Llasa
    from llasa.voice import Voice

GREETING = "Hello! I am Llasa, a small language model that speaks. Pass me a text, and I will read it to you."
STDOUT = Path("-")


class Format(StrEnum):
    """Audio on standard output: a WAV file, or bare 16-bit little-endian samples."""

    wav = "wav"
    pcm = "pcm"


def say(
    text: Annotated[str | None, typer.Argument(help="What to say; [bold]-[/] or nothing reads standard input.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the text from this file.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .wav, .flac or .ogg file; [bold]-[/] is standard output."),
    ] = None,
    voice: Annotated[
        str | None,
        typer.Option("--voice", "-v", metavar="NAME|FILE", help="A voice's name, or a recording of somebody."),
    ] = None,
    voice_text: Annotated[
        str | None, typer.Option("--voice-text", help="The words spoken in that recording.")
    ] = None,
    model: Model = "tiny",
    stream: Annotated[bool, typer.Option("--stream", help="Put out audio while speaking.")] = False,
    format: Annotated[Format, typer.Option(help="Of audio on standard output; pcm is bare 16-bit samples.")] = Format.wav,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same audio.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 always takes the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Of the likeliest tokens, those that sum to this.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Only so many of the likeliest tokens.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Only tokens this likely beside the likeliest.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1 discourages repeating tokens.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="The longest that one chunk of text may last.")] = None,
    device: Device = None,
) -> None:
    """Say a text.

    Long texts are split, and spoken chunk by chunk in one voice. Without [bold]-o[/], audio goes to standard output if
    that is a pipe or a file, and otherwise to llasa.wav.

    [bold]Examples[/]

      llasa say "The quick brown fox."

      llasa say -f chapter.txt -o chapter.flac --voice slt

      llasa say "In my own voice." --voice me.wav --voice-text "What I say in me.wav."

      cat chapter.txt | llasa say --stream | aplay
    """
    words = _read_text(text, file)
    target = _target(output)
    if target != STDOUT and format is Format.pcm:
        raise LlasaError("--format pcm is for standard output: add -o -")
    _check_voice(voice, voice_text, model)
    settings = {
        "seed": seed, "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "max_seconds": max_seconds,
    }  # fmt: skip
    with waiting(f"loading {model}"):
        from llasa.speaking import draw_seed
        from llasa.tts import Llasa

        llasa = Llasa.load(model, device=device)
        chosen = _voice(llasa, voice, voice_text)
        settings["seed"] = draw_seed(seed)
    if stream:
        _stream(llasa, words, chosen, target, format, settings)
    else:
        _say(llasa, words, chosen, target, format, settings)


def _say(
    llasa: "Llasa", words: str, voice: "Voice | None", target: Path, format: Format, settings: dict[str, Any]
) -> None:
    from llasa.speech import Interrupted

    stopped = False
    with bar("speaking") as advance:
        try:
            speech = llasa.say(words, voice, on_progress=lambda done, total: advance(done, total, done), **settings)
        except Interrupted as stop:
            speech, stopped = stop.speech, True
    if len(speech.samples):
        with _Output(target, format, llasa.rate) as out:
            out.write(speech.samples)
    _report(target, speech.seconds, speech.timings["total"], speech.seed)
    if cut := speech.finished.count(False):
        tell(f"note: {cut} of {len(speech.finished)} chunks came to no end and were cut off: try another --seed")
    if stopped:
        _interrupted(len(speech.finished))


def _stream(
    llasa: "Llasa", words: str, voice: "Voice | None", target: Path, format: Format, settings: dict[str, Any]
) -> None:
    ...

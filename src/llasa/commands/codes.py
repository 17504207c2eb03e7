"""`llasa encode` and `llasa decode`: audio files to codes and back, one file or whole folders.

Knows which file becomes which; `llasa.codec` does the work.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llasa.commands.common import Device, Model, bar, check_writable, tell, waiting
from llasa.errors import LlasaError, reason

if TYPE_CHECKING:
    from llasa.codec import Codec

SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".au")
Inputs = Annotated[list[Path], typer.Argument(metavar="IN...", help="Files, or folders with such files in them.")]
Force = Annotated[bool, typer.Option("--force", help="Make again what exists already.")]
# Codec, input, output, fraction done -> seconds of audio in it
Convert = Callable[["Codec", Path, Path, Callable[[float], None]], float]


def encode(
    inputs: Inputs,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .npy file for one input, else a folder.")
    ] = None,
    model: Model = "tiny",
    force: Force = False,
    device: Device = None,
) -> None:
    """Turn audio into codes.

    Writes NumPy files of 16-bit numbers, one a code, beside the audio or to
    [bold]-o[/]. What exists already is skipped, so the same command goes on after
    an interruption.

    [bold]Examples[/]

      llasa encode speech.wav

      llasa encode recordings/ -o codes/ --model HKUSTAudio/Llasa-1B
    """
    _convert(_pairs(inputs, output, SOUNDS, (".npy",)), model, force, device, "encoding", _encode)


def decode(
    inputs: Inputs,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .wav, .flac or .ogg file for one input, else a folder.")
    ] = None,
    model: Model = "tiny",
    force: Force = False,
    device: Device = None,
) -> None:
    """Turn codes back into audio.

    Writes WAV files beside the codes or to [bold]-o[/]. What exists already is
    skipped, so the same command goes on after an interruption.

    [bold]Examples[/]

      llasa decode speech.npy -o again.wav

      llasa decode codes/ -o audio/
    """
    _convert(_pairs(inputs, output, (".npy",), (".wav", ".flac", ".ogg")), model, force, device, "decoding", _decode)


def _encode(codec: "Codec", source: Path, target: Path, done: Callable[[float], None]) -> float:
    from llasa import audio
    from llasa.codec import save_codes

    samples = audio.load(source, codec.rate)
    save_codes(target, codec.encode(samples, lambda count: done(count / len(samples))))
    return len(samples) / codec.rate


def _decode(codec: "Codec", source: Path, target: Path, done: Callable[[float], None]) -> float:
    from llasa import audio
    from llasa.codec import load_codes

    codes = load_codes(source, codec.codebook_size)
    samples = codec.decode(codes, lambda count: done(count / len(codes)))
    audio.save(target, samples, codec.rate)
    return len(samples) / codec.rate


def _pairs(
    inputs: list[Path], output: Path | None, wanted: tuple[str, ...], made: tuple[str, ...]
) -> list[tuple[Path, Path]]:
    """What is to be made of what.

    Args:
        inputs: as the user gave them.
        output: likewise.
        wanted: suffixes to look for in folders.
        made: suffixes that a result may have; the first is the usual one.

    Raises:
        LlasaError: an input that does not exist, nothing to do, or two inputs with one output.
    """
    pairs: list[tuple[Path, Path]] = []
    for source in inputs:
        if source.is_dir():
            found = sorted(p for p in source.rglob("*") if p.suffix.lower() in wanted and p.is_file())
            found = [p for p in found if not p.name.startswith(".")]
            pairs += [((p, ((output or source) / p.relative_to(source)).with_suffix(made[0]))) for p in found]
        elif not source.exists():
            raise LlasaError(f"there is no file {source}")
        elif output is not None and len(inputs) == 1 and output.suffix and not output.is_dir():
            if output.suffix.lower() not in made:
                raise LlasaError(f"cannot write {output}: end its name in {' or '.join(made)}")
            pairs.append((source, output))
        else:
            pairs.append((source, (output or source.parent) / source.with_suffix(made[0]).name))
    if not pairs:
        raise LlasaError(f"there are no {', '.join(wanted)} files in {', '.join(map(str, inputs))}")
    owner: dict[Path, Path] = {}
    for source, target in pairs:
        if owner.setdefault(target, source) != source:
            raise LlasaError(f"{owner[target]} and {source} would both become {target}: rename one")
    return pairs


def _convert(
    pairs: list[tuple[Path, Path]], model: str, force: bool, device: str | None, label: str, convert: Convert
) -> None:
    """Makes every output that is missing. One bad file does not stop the others, but is reported and counted."""
    todo = [pair for pair in pairs if force or not pair[1].exists()]
    for folder in {target.parent for _, target in todo}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LlasaError(f"cannot make the folder {folder}: {reason(error)}") from error
    for _, target in todo[:1]:
        check_writable(target)
    seconds, failed = 0.0, 0
    if todo:
        with waiting("loading the codec"):
            from llasa.codec import Codec
            from llasa.loading import check_device

            codec = Codec.load(model, device=check_device(device))
    with bar(label) as advance:
        for index, (source, target) in enumerate(todo):

            def done(fraction: float, index: int = index, seconds: float = seconds) -> None:
                advance(index + fraction, len(todo), seconds)

            try:
                seconds += convert(codec, source, target, done)
            except LlasaError as error:
                if len(pairs) == 1:
                    raise
                failed += 1
                tell(f"error: {error}")
            done(1.0, index, seconds)
    skipped = len(pairs) - len(todo)
    tell(
        f"{len(todo) - failed} files made ({seconds:.1f} s of audio)"
        + (f", {skipped} existed already (--force makes them again)" if skipped else "")
    )
    if failed:
        raise LlasaError(f"{failed} of {len(todo)} files failed, as told above")

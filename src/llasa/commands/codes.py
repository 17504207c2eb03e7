"""`llasa encode` and `llasa decode`: audio files to codes and back, single files or whole folders.

This module pairs inputs with outputs; `llasa.codec` does the work.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from llasa.commands.common import Device, Model, bar, check_writable, tell, waiting
from llasa.errors import LlasaError, reason
from llasa.ffmpeg import SUFFIXES
from llasa.files import exists, is_folder, listed

if TYPE_CHECKING:
    from llasa.codec import Codec

Inputs = Annotated[list[Path], typer.Argument(metavar="IN...", help="Files, or folders with such files in them.")]
Force = Annotated[bool, typer.Option("--force", help="Write files again that exist already.")]
Loaded = TypeVar("Loaded")
# Model, input, output, callback for the fraction done -> seconds of audio
Make = Callable[[Loaded, Path, Path, Callable[[float], None]], float]


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

    Writes NumPy files of 16-bit numbers, one for each code, beside the audio or to
    [bold]-o[/]. Files that exist are skipped, so after an interruption the same
    command continues.

    [bold]Examples[/]

      llasa encode speech.wav

      llasa encode recordings/ -o codes/ --model HKUSTAudio/Llasa-1B
    """
    todo = pairs(inputs, output, SUFFIXES, (".npy",))
    make_each(todo, force, "encoding", lambda: _load(model, device), _encode)


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

    Writes WAV files beside the codes or to [bold]-o[/]. Files that exist are
    skipped, so after an interruption the same command continues.

    [bold]Examples[/]

      llasa decode speech.npy -o again.wav

      llasa decode codes/ -o audio/
    """
    todo = pairs(inputs, output, (".npy",), (".wav", ".flac", ".ogg"))
    make_each(todo, force, "decoding", lambda: _load(model, device), _decode)


def _encode(codec: "Codec", source: Path, target: Path, done: Callable[[float], None]) -> float:
    from llasa import audio
    from llasa.codec import save_codes

    samples = audio.load(source, codec.rate)
    save_codes(target, codec.encode(samples, lambda count: done(count / len(samples))), len(samples))
    return len(samples) / codec.rate


def _decode(codec: "Codec", source: Path, target: Path, done: Callable[[float], None]) -> float:
    from llasa import audio
    from llasa.codec import load_codes, load_length

    codes, length = load_codes(source, codec.codebook_size), load_length(source)
    samples = codec.decode(codes, lambda count: done(count / len(codes)))
    if length and codec.count(length) == len(codes):
        samples = samples[:length]
    audio.save(target, samples, codec.rate)
    return len(samples) / codec.rate


def pairs(
    inputs: list[Path], output: Path | None, wanted: tuple[str, ...], made: tuple[str, ...]
) -> list[tuple[Path, Path]]:
    """Pairs of an input file and its output file.

    Args:
        inputs: files and folders, as the user gave them.
        output: a file or a folder, as the user gave it.
        wanted: suffixes to look for in folders.
        made: suffixes that an output may have; the first is the default.

    Raises:
        LlasaError: an input does not exist, there is nothing to do, or two inputs have the same output.
    """
    pairs: list[tuple[Path, Path]] = []
    for source in inputs:
        if is_folder(source):
            found = listed(source, wanted)
            pairs += [((p, ((output or source) / p.relative_to(source)).with_suffix(made[0]))) for p in found]
        elif not exists(source):
            raise LlasaError(f"there is no file {source}")
        elif output is not None and len(inputs) == 1 and output.suffix and not is_folder(output):
            if output.suffix.lower() not in made:
                raise LlasaError(f"cannot write {output}: end its name in {' or '.join(made)}")
            pairs.append((source, output))
        else:
            pairs.append((source, (output or source.parent) / source.with_suffix(made[0]).name))
    if not pairs:
        raise LlasaError(f"there are no {', '.join(wanted)} files in {', '.join(map(str, inputs))}: pass others")
    owner: dict[Path, Path] = {}
    for source, target in pairs:
        if owner.setdefault(target, source) != source:
            raise LlasaError(f"{owner[target]} and {source} would both become {target}: rename one")
    return pairs


def make_each(
    pairs: list[tuple[Path, Path]], force: bool, label: str, load: Callable[[], Loaded], make: Make[Loaded]
) -> None:
    """Makes every missing output. A bad file does not stop the others; it is reported and counted.

    Args:
        pairs: as `pairs` gives them.
        force: whether outputs that exist are made again.
        label: stands beside the progress bar.
        load: loads what `make` needs; called only if there is something to do.

    Raises:
        LlasaError: a folder cannot be made, or a file has failed.
    """
    todo = [pair for pair in pairs if force or not exists(pair[1])]
    for folder in {target.parent for _, target in todo}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LlasaError(f"cannot make the folder {folder}: {reason(error)}") from error
    seconds, failed = 0.0, 0
    if todo:
        check_writable(todo[0][1])
        model = load()
    with bar(label) as advance:
        for index, (source, target) in enumerate(todo):

            def done(fraction: float, index: int = index, seconds: float = seconds) -> None:
                advance(index + fraction, len(todo), seconds)

            try:
                seconds += make(model, source, target, done)
            except LlasaError as error:
                if len(pairs) == 1:
                    raise
                failed += 1
                tell(f"error: {error}")
            done(1.0, index, seconds)
    skipped = len(pairs) - len(todo)
    tell(
        f"{len(todo) - failed} files made ({seconds:.1f} s of audio)"
        + (f", {skipped} existed already (--force writes them again)" if skipped else "")
    )
    if failed:
        raise LlasaError(f"{failed} of {len(todo)} files failed: see the errors above")


def _load(model: str, device: str | None) -> "Codec":
    with waiting("loading the codec"):
        from llasa.codec import load_codec
        from llasa.models.defaults import check_device

        return load_codec(model, device=check_device(device))

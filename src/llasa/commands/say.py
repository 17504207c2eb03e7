"""`llasa say`: text in, sound out.

Knows where text comes from and where audio goes; `llasa.tts` does the speaking.
"""

import itertools
import os
import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NoReturn

import typer

from llasa.commands.common import Device, DeviceMap, Dtype, Model, bar, check_writable, tell, waiting
from llasa.errors import LlasaError, reason

if TYPE_CHECKING:
    import numpy as np

    from llasa.search.account import Account
    from llasa.tts import Llasa
    from llasa.voice import Voice

GREETING = "Hello! I am Llasa, a small language model that speaks. Pass me a text, and I will read it to you."
STDOUT = Path("-")
SEARCH = "Search"
RECORDINGS = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".au", ".m4a", ".aac")


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
    voice_text: Annotated[str | None, typer.Option("--voice-text", help="The words spoken in that recording.")] = None,
    model: Model = "tiny",
    stream: Annotated[bool, typer.Option("--stream", help="Put out audio while speaking.")] = False,
    format: Annotated[Format, typer.Option(help="On standard output; pcm is bare 16-bit samples.")] = Format.wav,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same audio.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 always takes the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Of the likeliest tokens, those that sum to this.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Only so many of the likeliest tokens.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Only tokens this likely beside the likeliest.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1 discourages repeating tokens.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="The longest that one chunk of text may last.")] = None,
    speaker: Annotated[
        str | None, typer.Option(metavar="NAME", help="For models tuned with speakers' names: who is to speak.")
    ] = None,
    best_of: Annotated[
        int | None,
        typer.Option("--best-of", metavar="N", help="Say it N times and keep the best.", rich_help_panel=SEARCH),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="[bold]beam:4x4[/] or [bold]mixed:4x4@2s+16[/].", rich_help_panel=SEARCH),
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(
            metavar="WHO",
            help="Who judges, with weights: [bold]content=1,speaker=0.5[/]. The words alone by default.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="Search no longer than [bold]10s[/].", rich_help_panel=SEARCH)
    ] = None,
    keep_candidates: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep all that was tried, with a page to listen.", rich_help_panel=SEARCH),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
) -> None:
    """Say a text.

    Long texts are split, and spoken chunk by chunk in one voice.

    More compute buys better speech: [bold]--best-of[/], [bold]--search[/] or
    [bold]--budget[/] say it many times, and [bold]--verify[/] says who chooses.

    Without [bold]-o[/], audio goes to standard output if that is a pipe or a
    file, and otherwise to llasa.wav.

    [bold]Examples[/]

      llasa say "The quick brown fox."

      llasa say -f chapter.txt -o chapter.flac --voice bruno

      llasa say "Hello." --voice me.wav --voice-text "What I say there."

      cat chapter.txt | llasa say --stream | aplay

      llasa say "She sells sea shells." --best-of 16
    """
    words = _read_text(text, file)
    target = _target(output)
    if target != STDOUT and format is Format.pcm:
        raise LlasaError("--format pcm is for standard output: add -o -")
    _check_voice(voice, voice_text, model)
    seconds = None if budget is None else _seconds(budget)
    greedy = temperature == 0 or top_k == 1
    _check_search(best_of, search, verify, seconds, greedy, keep_candidates, target, stream)
    with waiting(f"loading {model}"):
        from llasa.speaking import draw_seed
        from llasa.tts import Llasa

        llasa = Llasa.load(model, device=device, dtype=dtype, device_map=device_map)
        chosen = _voice(llasa, voice, voice_text)
    settings = {
        "seed": draw_seed(seed), "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "max_seconds": max_seconds, "speaker": speaker,
    }  # fmt: skip
    if stream:
        return _stream(llasa, words, chosen, target, format, settings)
    settings |= {"best_of": best_of, "search": search, "verify": verify, "budget": seconds}
    _say(llasa, words, chosen, target, format, settings, keep_candidates)


def _say(
    llasa: "Llasa",
    words: str,
    voice: "Voice | None",
    target: Path,
    format: Format,
    settings: dict[str, Any],
    candidates: Path | None,
) -> None:
    from llasa.speech import Interrupted

    stopped = False
    with bar("speaking") as advance:
        try:
            speech = llasa.say(words, voice, on_progress=lambda done, total: advance(done, total, done), **settings)
        except Interrupted as stop:
            speech, stopped = stop.speech, True
    count = len(speech.samples)
    if count:
        _write(iter([speech.samples]), target, format, llasa.rate, count)
        tell(_summary(target, speech.seconds, speech.timings["total"], speech.seed))
    if speech.search:
        tell(_spent(speech.search))
        if candidates:
            from llasa.search.page import save_candidates

            with waiting("keeping the candidates"):
                save_candidates(speech.search, candidates, llasa.codec)
            tell(f"{candidates / 'index.html'}: all {len(speech.search.candidates)} candidates, to listen to")
    if cut := speech.finished.count(False):
        tell(f"note: {cut} of {len(speech.finished)} chunks came to no end and were cut off: try another --seed")
    if stopped:
        _interrupted(f"kept the {len(speech.finished)} chunks that were finished" if count else "nothing was finished")


def _stream(
    llasa: "Llasa", words: str, voice: "Voice | None", target: Path, format: Format, settings: dict[str, Any]
) -> None:
    began = time.perf_counter()
    with bar("speaking") as advance:
        pieces = llasa.stream(words, voice, on_progress=lambda done, total: advance(done, total, done), **settings)
        count, stopped = _write(pieces, target, format, llasa.rate, None)
    if count:
        tell(_summary(target, count / llasa.rate, time.perf_counter() - began, settings["seed"]))
    if stopped:
        _interrupted("kept what was spoken" if count else "nothing was finished")


def _spent(account: "Account") -> str:
    parts = zip(("language model", "codec", "verifiers"), account.seconds.values(), strict=True)
    return (
        f"{account.strategy} by {account.verify}: {len(account.candidates)} candidates, {account.tokens} tokens; "
        + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts)
    )


def _summary(target: Path, seconds: float, work: float, seed: int) -> str:
    where = "standard output" if target == STDOUT else target
    factor = f"real-time factor {work / seconds:.2f}"
    return f"{where}: {seconds:.1f} s of speech in {work:.1f} s ({factor}, seed {seed})"


def _seconds(budget: str) -> float:
    try:
        return float(budget.removesuffix("s"))
    except ValueError:
        raise LlasaError(f"the budget is {budget!r}, not a number of seconds: write 10s") from None


def _check_search(
    best_of: int | None,
    search: str | None,
    verify: str | None,
    budget: float | None,
    greedy: bool,
    keep: Path | None,
    target: Path,
    stream: bool,
) -> None:
    """Finds what is wrong with a search before the model is loaded."""
    from llasa.search.strategy import choose

    strategy = choose(best_of, search, verify is not None, budget, greedy)
    if stream and strategy:
        raise LlasaError("what is streamed is heard before it can be judged: search without --stream")
    if keep is not None:
        from llasa.search.page import check_folder

        if strategy is None:
            raise LlasaError("--keep-candidates keeps what a search tried: add --best-of, --search or --budget")
        check_folder(keep)
        if target != STDOUT and target.resolve().is_relative_to(keep.resolve()):
            raise LlasaError(f"{target} is in {keep}, which is the candidates' alone: name another place for it")
    if verify is not None:
        from llasa.verifiers.combine import parse

        parse(verify, beam=strategy is not None and strategy.keep > 0)


def _interrupted(what: str) -> NoReturn:
    tell(f"interrupted: {what}")
    raise typer.Exit(130)


def _read_text(text: str | None, file: Path | None) -> str:
    """The text from wherever it comes; refuses one without a word in it."""
    from llasa.planning import check_text

    if text is not None and file is not None:
        raise LlasaError("there are two texts: pass the text or --file, not both")
    if text is None and file is None and (sys.stdin is None or sys.stdin.isatty()):
        return GREETING
    if text not in (None, "-"):
        words = str(text)
    else:
        try:
            data = sys.stdin.buffer.read() if file in (None, STDOUT) else file.read_bytes()  # type: ignore[union-attr]
            words = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise LlasaError(f"{file or 'standard input'} is not text in UTF-8: convert it first") from error
        except OSError as error:
            raise LlasaError(f"cannot read {file}: {reason(error)}") from error
    check_text(words)
    return words


def _target(output: Path | None) -> Path:
    """Where the audio goes, known to be writable: a file, or `STDOUT`."""
    from llasa.audio import FORMATS

    terminal = sys.stdout.isatty()
    if output == STDOUT and terminal:
        raise LlasaError("standard output is a terminal: redirect it, or pass -o FILE")
    if output == STDOUT or (output is None and not terminal):
        return STDOUT
    if output is None:
        names = (Path(f"llasa{'' if n == 1 else f'-{n}'}.wav") for n in itertools.count(1))
        output = next(name for name in names if not name.exists())
    if output.suffix.lower() not in FORMATS:
        raise LlasaError(f"cannot tell the audio format of {output}: end its name in {', '.join(FORMATS)}")
    check_writable(output)
    return output


def _is_recording(voice: str) -> bool:
    """Whether a --voice means a file to clone from, and not a voice's name or a voice file."""
    path = Path(voice)
    if path.suffix.lower() == ".safetensors":
        return False
    return path.is_file() or os.sep in voice or path.suffix.lower() in RECORDINGS


def _check_voice(voice: str | None, voice_text: str | None, model: str) -> None:
    """Finds what is wrong with a voice before the model is loaded."""
    from llasa import audio
    from llasa.loading import find_model
    from llasa.voice import LONGEST, check_reference, list_voices, suggest

    known = list_voices(find_model(model))
    recording = voice is not None and voice not in known and _is_recording(voice)
    if recording:
        check_reference(audio.load(str(voice), max_seconds=LONGEST), 16000, voice_text)
    elif voice_text is not None:
        raise LlasaError("--voice-text is the transcript of a recording: pass the recording with --voice FILE")
    elif voice is not None and voice not in known and Path(voice).suffix.lower() != ".safetensors":
        raise LlasaError(suggest(voice, known))


def _voice(llasa: "Llasa", voice: str | None, voice_text: str | None) -> "Voice | None":
    if voice is None or voice_text is None:
        return llasa.voice(voice)
    return llasa.clone(voice, voice_text, name=Path(voice).stem)


def _write(
    pieces: Iterator["np.ndarray"], target: Path, format: Format, rate: int, total: int | None
) -> tuple[int, bool]:
    """Writes audio as it comes to standard output, or all at once to a file.

    Args:
        total: number of samples, if that is known.

    Returns:
        the number of samples written, and whether Ctrl-C ended it.
    """
    import numpy as np

    from llasa import audio

    kept: list[np.ndarray] = []
    count, stopped = 0, False
    stdout = sys.stdout.buffer
    rewindable = _is_rewindable(stdout)
    try:
        for piece in pieces:
            if target == STDOUT:
                if count == 0 and format is Format.wav:
                    stdout.write(audio.wav_header(rate, total))
                stdout.write(audio.pcm16(piece))
                stdout.flush()
            else:
                kept.append(piece)
            count += len(piece)
    except KeyboardInterrupt:
        stopped = True
    if count and target != STDOUT:
        audio.save(target, np.concatenate(kept), rate)
    elif count and total is None and format is Format.wav and rewindable:
        end = stdout.tell()
        stdout.seek(0)
        stdout.write(audio.wav_header(rate, count))
        stdout.seek(end)
        stdout.flush()
    return count, stopped


def _is_rewindable(stream: BinaryIO) -> bool:
    """Whether standard output is a fresh file, in which the WAV header can be completed at the end."""
    try:
        import fcntl

        appending = fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_APPEND
        return stream.seekable() and stream.tell() == 0 and not appending
    except (ImportError, OSError):  # not a Unix; not a real file
        return False

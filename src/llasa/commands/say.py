"""`llasa say`: reads a text, has `llasa.tts` speak it, and writes the audio."""

import itertools
import re
import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from llasa.commands.common import (
    Device,
    DeviceMap,
    Dtype,
    Model,
    bar,
    check_stdout,
    check_voice,
    check_writable,
    is_rewindable,
    tell,
    waiting,
)  # fmt: skip
from llasa.commands.timestamps import check_file, check_model, save
from llasa.errors import LlasaError, reason
from llasa.files import MB, absolute, decode, exists, read_limited, read_text

if TYPE_CHECKING:
    import numpy as np

    from llasa.commands.common import Reference
    from llasa.search.strategy import Strategy
    from llasa.speak.account import Account
    from llasa.tts import Llasa
    from llasa.voice import Voice

GREETING = "Hello! I am Llasa, a small language model that speaks. Pass me a text, and I will read it to you."
STDOUT = Path("-")
LONGEST_TEXT = 16 * MB  # four Bibles, which take a month to say
SEARCH = "Search"


_DASHED = re.compile("-+[^-A-Za-z]")  # how a text may begin, but no option


class SayCommand(TyperCommand):
    """A command whose text may begin with a dash, as in "-5 degrees" or "- milk"."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts a space, which nobody hears, before such a text, so that it is not taken for an option."""
        named = {name for option in self.params if not getattr(option, "is_flag", True) for name in option.opts}
        spaced = [f" {own}" if _DASHED.match(own) and last not in named else own for last, own in pairwise(["", *args])]
        return super().parse_args(ctx, spaced)


class Format(StrEnum):
    """The format of audio on standard output: a WAV file, or raw 16-bit little-endian samples."""

    wav = "wav"
    pcm = "pcm"


def say(
    text: Annotated[str | None, typer.Argument(help="The text; [bold]-[/] or nothing reads standard input.")] = None,
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
        str | None,
        typer.Option("--voice-text", help="The words spoken in that recording; [bold]auto[/] has them recognised."),
    ] = None,
    model: Model = "tiny",
    stream: Annotated[bool, typer.Option("--stream", help="Write audio while speaking.")] = False,
    format: Annotated[Format, typer.Option(help="Of standard output; pcm is raw 16-bit samples.")] = Format.wav,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same audio.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 always takes the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Keep the likeliest tokens that sum to this probability.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Keep this number of the likeliest tokens.")] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Keep tokens at least this likely, relative to the likeliest.")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1: fewer of the last 64 tokens again.")
    ] = None,
    max_seconds: Annotated[float | None, typer.Option(help="The longest that one chunk of text may last.")] = None,
    speed: Annotated[float | None, typer.Option(help="From 0.25 to 4 times as fast; the pitch stays.")] = None,
    speaker: Annotated[
        str | None, typer.Option(metavar="NAME", help="For models tuned with speakers' names: the speaker.")
    ] = None,
    timestamps: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write when each word is said: a .json, .srt or .vtt file."),
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
            help="Which verifiers score, with weights: [bold]content=1,speaker=0.5[/]. The words alone by default.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="Search no longer than [bold]10s[/].", rich_help_panel=SEARCH)
    ] = None,
    keep_candidates: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Save all candidates, with a page to compare them.", rich_help_panel=SEARCH),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What computes the language model: [bold]torch[/], [bold]llamacpp[/] on the CPU, or [bold]vllm[/]. By "
            "default the faster of the first two.",
        ),
    ] = None,
) -> None:
    """Say a text.

    Long texts are split and spoken chunk by chunk in one voice.

    More compute gives better speech: [bold]--best-of[/], [bold]--search[/] or
    [bold]--budget[/] try many candidates, and [bold]--verify[/] names the
    verifiers that choose between them.

    Without [bold]-o[/], audio goes to standard output if that is a pipe or a
    file, and otherwise to llasa.wav.

    [bold]Examples[/]

      llasa say "The quick brown fox."

      llasa say -f chapter.txt -o chapter.flac --voice bruno

      llasa say "Hello." --voice me.wav --voice-text "What I say there."

      cat chapter.txt | llasa say --stream | aplay

      llasa say 'It costs $5.' -o costs.wav --timestamps costs.srt

      llasa say "She sells sea shells." --best-of 16
    """
    words = _read_text(text, file)
    target = _target(output)
    if target != STDOUT and format is Format.pcm:
        raise LlasaError("--format pcm is for standard output: add -o -")
    if timestamps is not None:
        check_file(timestamps, keep_candidates)
    reference = check_voice(voice, voice_text, model)
    seconds = None if budget is None else _seconds(budget)
    from llasa.search.strategy import choose

    strategy = choose(best_of, search, verify is not None, seconds, greedy=temperature == 0 or top_k == 1)
    _check_search(strategy, verify, keep_candidates, target, stream)
    with waiting(f"loading {model}"):
        from llasa.engine import fastest_backend
        from llasa.speak.plan import LONGEST_CHUNK
        from llasa.speak.request import draw_seed
        from llasa.tts import Llasa

        if backend is None:
            # A search has many rows; only torch tells where the model looks, which times words best.
            rows = 1 if stream else 1 + len(words) // LONGEST_CHUNK
            backend = "torch" if strategy or timestamps else fastest_backend(rows, device, device_map)
        llasa = Llasa.load(model, device=device, dtype=dtype, device_map=device_map, backend=backend)
        if timestamps is not None:
            check_model(llasa)
        chosen = _voice(llasa, voice, reference)
    settings = {
        "seed": draw_seed(seed), "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "max_seconds": max_seconds, "speed": speed,
        "speaker": speaker,
    }  # fmt: skip
    if stream:
        return _stream(llasa, words, chosen, target, format, settings, timestamps)
    settings |= {"best_of": best_of, "search": search, "verify": verify, "budget": seconds}
    _say(llasa, words, chosen, target, format, settings, keep_candidates, timestamps)


def _say(
    llasa: "Llasa",
    words: str,
    voice: "Voice | None",
    target: Path,
    format: Format,
    settings: dict[str, Any],
    candidates: Path | None,
    timestamps: Path | None,
) -> None:
    from llasa.speak.speech import Interrupted

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
        if timestamps:
            save(timestamps, speech)
    if speech.search:
        tell(_spent(speech.search))
        if candidates:
            from llasa.search.page import save_candidates

            with waiting("saving the candidates"):
                save_candidates(speech.search, candidates, llasa.codec, speech.words_of)
            tell(f"{candidates / 'index.html'}: a page with all {len(speech.search.candidates)} candidates")
    if cut := speech.finished.count(False):
        tell(f"note: {cut} of {len(speech.finished)} chunks did not end and were cut off: try another --seed")
    if stopped:
        _interrupted(f"kept the {len(speech.finished)} finished chunks" if count else "nothing was finished")


def _stream(
    llasa: "Llasa",
    words: str,
    voice: "Voice | None",
    target: Path,
    format: Format,
    settings: dict[str, Any],
    timestamps: Path | None,
) -> None:
    began = time.perf_counter()
    with bar("speaking") as advance:
        pieces = llasa.stream(words, voice, on_progress=lambda done, total: advance(done, total, done), **settings)
        count, stopped = _write(pieces, target, format, llasa.rate, None)
    if count:
        tell(_summary(target, count / llasa.rate, time.perf_counter() - began, settings["seed"]))
        if timestamps:
            save(timestamps, pieces)
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
        raise LlasaError(f"the budget is {budget!r}, which is not a number of seconds: write 10s") from None


def _check_search(
    strategy: "Strategy | None", verify: str | None, keep: Path | None, target: Path, stream: bool
) -> None:
    """Checks the options of a search before the model is loaded."""
    if stream and strategy:
        raise LlasaError("a search cannot be streamed, since it chooses only at the end: search without --stream")
    if keep is not None:
        from llasa.search.page import check_folder

        if strategy is None:
            raise LlasaError("--keep-candidates saves the candidates of a search: add --best-of, --search or --budget")
        check_folder(keep)
        if target != STDOUT and absolute(target).is_relative_to(absolute(keep)):
            raise LlasaError(f"{target} is in {keep}, which is only for candidates: write it elsewhere")
    if verify is not None:
        from llasa.verifiers.combine import parse

        parse(verify, beam=strategy is not None and strategy.keep > 0)


def _interrupted(what: str) -> NoReturn:
    tell(f"interrupted: {what}")
    raise typer.Exit(130)


def _read_text(text: str | None, file: Path | None) -> str:
    """Reads the text from the argument, the file or standard input; refuses a text without a word."""
    from llasa.text.script import check_text

    if text is not None and file is not None:
        raise LlasaError("there are two texts: pass the text or --file, not both")
    if text is None and file is None and (sys.stdin is None or sys.stdin.isatty()):
        return GREETING
    if text not in (None, "-"):
        words = str(text)
    else:
        try:
            if file is None or file == STDOUT:
                words = decode(read_limited(sys.stdin.buffer, "standard input", LONGEST_TEXT), "standard input")
            else:
                words = read_text(file, LONGEST_TEXT)
        except OSError as error:
            raise LlasaError(f"cannot read standard input: {reason(error)}") from error
    check_text(words)
    return words


def _target(output: Path | None) -> Path:
    """Where to write the audio: a file that can be written, or `STDOUT`."""
    from llasa.audio import FORMATS

    terminal = sys.stdout.isatty()
    if output == STDOUT and terminal:
        raise LlasaError("standard output is a terminal: redirect it, or pass -o FILE")
    if output == STDOUT or (output is None and not terminal):
        check_stdout()
        return STDOUT
    if output is None:
        names = (Path(f"llasa{'' if n == 1 else f'-{n}'}.wav") for n in itertools.count(1))
        output = next(name for name in names if not exists(name))
    if output.suffix.lower() not in FORMATS:
        raise LlasaError(f"cannot tell the audio format of {output}: end its name in {', '.join(FORMATS)}")
    check_writable(output)
    return output


def _voice(llasa: "Llasa", voice: str | None, reference: "Reference | None") -> "Voice | None":
    if voice is None or reference is None:
        return llasa.voice(voice)
    samples, words = reference
    chosen = llasa.clone(samples, words, name=Path(voice).stem)
    if words is None:
        tell(f"the recording says: {chosen.text}")
    return chosen


def _write(
    pieces: Iterator["np.ndarray"], target: Path, format: Format, rate: int, total: int | None
) -> tuple[int, bool]:
    """Writes audio to standard output piece by piece, or to a file all at once.

    Args:
        total: the number of samples, if it is known.

    Returns:
        The number of samples written, and whether Ctrl-C stopped it.
    """
    import numpy as np

    from llasa import audio

    kept: list[np.ndarray] = []
    count, stopped = 0, False
    stdout = sys.stdout.buffer
    rewindable = is_rewindable(stdout)
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

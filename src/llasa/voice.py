"""A reference voice: a few seconds of somebody's speech, its transcript and its codes, saved as one .safetensors.

The codes belong to one codec. If the voice holds the audio too, it can be encoded again for another codec.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors
import safetensors.numpy

from llasa import audio
from llasa.codec.code_files import check_codes
from llasa.errors import LlasaError, shown
from llasa.files import whole
from llasa.models.folder import find_base
from llasa.reference import READ, condition

if TYPE_CHECKING:
    from llasa.codec import Codec

_FORMAT = "llasa-voice-1"


@dataclass(frozen=True, eq=False)
class Voice:
    """A reference voice.

    Attributes:
        name: its name in lists.
        text: transcript of the reference, in plain words.
        codes: (T,) uint16, the reference in the codec's codes.
        codec: fingerprint of that codec (`models.folder.fingerprint`).
        samples: (N,) float32 mono, the reference itself, or None if only its codes were kept.
        rate: sample rate of `samples`, Hz.
        consent: whether whoever added it said that the speaker agrees to be cloned; a server asks for that.
        reused: whether the model reads it once for all texts, which is faster and not quite exact (`engine.prompt`).
    """

    name: str
    text: str
    codes: np.ndarray
    codec: str = ""
    samples: np.ndarray | None = None
    rate: int = 16000
    consent: bool = False
    reused: bool = False

    def sound(self, codec: "Codec", rate: int) -> np.ndarray:
        """(N,) at `rate` Hz: the recording, or its codes decoded by `codec` if the recording was not kept."""
        if self.samples is None:
            return audio.resample(codec.decode(self.codes), codec.rate, rate)
        return audio.resample(self.samples, self.rate, rate)

    def save(self, path: str | Path) -> None:
        """Writes the voice to a .safetensors file, whole or not at all.

        Raises:
            LlasaError: the file cannot be written.
        """
        path = Path(path)
        tensors = {"codes": np.ascontiguousarray(self.codes, dtype=np.uint16)}
        if self.samples is not None:
            tensors["samples"] = np.ascontiguousarray(self.samples, dtype=np.float32)
        facts = {"format": _FORMAT, "name": self.name, "text": self.text, "codec": self.codec, "rate": str(self.rate)}
        facts |= {fact: "true" for fact in ("consent", "reused") if getattr(self, fact)}
        with whole(path) as temporary:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(safetensors.numpy.save(tensors, facts))

    @classmethod
    def load(cls, path: str | Path) -> "Voice":
        """Reads a voice that `save` wrote.

        Raises:
            LlasaError: the file is missing, damaged, or not a voice.
        """
        path = Path(path)
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                facts = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        except FileNotFoundError as error:
            raise LlasaError(f"there is no voice file {path}") from error
        except Exception as error:  # NumPy lacks some of the types that a file may hold, such as bfloat16
            raise LlasaError(f"{shown(path)} is damaged or not a voice file: add the voice again") from error
        if facts.get("format") != _FORMAT or "codes" not in tensors:
            raise LlasaError(f"{shown(path)} is a .safetensors file but not a voice: make one with `llasa voices add`")
        if missing := [key for key in ("name", "text", "codec", "rate") if key not in facts]:
            raise LlasaError(f"{shown(path)} has no {missing[0]}: add the voice again")
        samples, rate = tensors.get("samples"), facts["rate"]
        sound = samples is None or (samples.ndim == 1 and samples.dtype == np.float32 and np.isfinite(samples).all())
        if not sound or not re.fullmatch("[1-9][0-9]{3,5}", rate):
            raise LlasaError(
                f"{shown(path)} has samples that are no sound, or a rate that is none: add the voice again"
            )
        try:
            codes = check_codes(tensors["codes"], 1 << 16).astype(np.uint16)
        except LlasaError as error:
            raise LlasaError(f"{shown(path)}: {error}") from error
        consent, reused = (facts.get(fact) == "true" for fact in ("consent", "reused"))
        return cls(facts["name"], facts["text"], codes, facts["codec"], samples, int(rate), consent, reused)


def check_transcript(transcript: str | None) -> str:
    """The transcript of a reference on one line.

    Raises:
        LlasaError: it has no words.
    """
    if not any(character.isalnum() for character in transcript or ""):
        raise LlasaError(
            'a reference needs its transcript: pass --voice-text "the words spoken in it", or --voice-text auto'
        )
    return " ".join(str(transcript).split())


@dataclass(frozen=True)
class Voices:
    """The voices that one model can speak in.

    Attributes:
        folder: the model's; a LoRA's own, whose base's presets count too.
        codec: the model's.
        codec_id: its fingerprint.
        default: name of the voice that is spoken in where none is asked for, if the model says.
    """

    folder: Path
    codec: "Codec"
    codec_id: str
    default: str | None = None

    def files(self) -> dict[str, Path]:
        """Name to file, see `list_voices`."""
        return list_voices(self.folder)

    def find(self, voice: Voice | str | Path | None) -> Voice | None:
        """A voice by name or file, with this codec's codes; None gives the default, else the first preset, if any.

        Raises:
            LlasaError: there is none of that name, its file is damaged, or its codes are another codec's and it holds
                no audio to encode again.
        """
        if voice is None:
            presets = sorted((find_base(self.folder) / "voices").glob("*.safetensors"))
            if self.default is None and not presets:
                return None
            voice = self.default or presets[0]
        if not isinstance(voice, Voice):
            known = self.files()
            if str(voice) not in known and Path(voice).suffix != ".safetensors":
                raise LlasaError(suggest(str(voice), known))
            voice = Voice.load(known.get(str(voice), Path(voice)))
        if voice.codec == self.codec_id:
            check_codes(voice.codes, self.codec.codebook_size)
            return voice
        if voice.samples is None:
            raise LlasaError(f"the voice {voice.name} was made for another codec and holds no audio: add it again")
        samples = audio.resample(voice.samples, voice.rate, self.codec.rate)
        return replace(voice, codes=self.codec.encode(samples), codec=self.codec_id)

    def hear(self, source: str | Path | np.ndarray, rate: int | None = None) -> np.ndarray:
        """The speech of a recording (N,), at this codec's rate; see `llasa.reference.condition`.

        Args:
            source: an audio file, or samples (N,).
            rate: the rate of `source` in Hz, if it is an array; by default this codec's.

        Raises:
            LlasaError: it cannot be read, or cannot be a reference.
        """
        own = self.codec.rate
        if isinstance(source, np.ndarray):
            if source.ndim != 1:
                raise LlasaError(f"a reference is one row of samples, not an array of shape {source.shape}")
            return condition(audio.resample(source, rate or own, own), own)
        return condition(audio.load(source, own, max_seconds=READ), own)

    def make(self, samples: np.ndarray, transcript: str, name: str) -> Voice:
        """A voice from what `hear` returned."""
        return Voice(name, transcript, self.codec.encode(samples), self.codec_id, samples, self.codec.rate)


def user_folder() -> Path:
    """The folder of the user's own voices: `$LLASA_HOME/voices`, by default ~/.local/share/llasa/voices."""
    home = os.environ.get("LLASA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share" / "llasa") / "voices"


def check_name(name: str) -> str:
    """Checks that a voice's name can be a file name, and returns it.

    Raises:
        LlasaError: it cannot.
    """
    if not re.fullmatch(r"\w[\w .-]{0,63}", name) or name != name.strip():
        raise LlasaError(f"{name!r} cannot name a voice: use letters, digits, spaces, dots, - and _, at most 64")
    return name


def list_voices(model_folder: Path) -> dict[str, Path]:
    """Names and files of all voices for a model: the user's own, then the model's presets, each sorted by name.

    A voice of the user hides a preset of the same name. A LoRA also has the presets of its base, after its own.

    Raises:
        LlasaError: the base of a LoRA is missing.
    """
    found: dict[str, Path] = {}
    for folder in (user_folder(), model_folder / "voices", find_base(model_folder) / "voices"):
        for path in sorted(folder.glob("*.safetensors")):
            if not path.name.startswith("."):
                found.setdefault(path.stem, path)
    return found


def suggest(name: str, names: Iterable[str], kind: str = "") -> str:
    """The message for a voice (of some `kind`) that does not exist."""
    known = list(names)
    missing = f"there is no voice {kind}called {name}"
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"{missing}: did you mean {' or '.join(close)}?"
    if known:
        return f"{missing}: `llasa voices list` shows the {len(known)} there are"
    return f"{missing}, nor any other: add one with `llasa voices add`"

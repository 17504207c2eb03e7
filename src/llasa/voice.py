"""A reference voice: a few seconds of somebody's speech, its transcript and its codes, saved as one .safetensors.

Knows files and what makes a usable reference; knows nothing of models. A voice holds the codes that one codec made;
if it holds the audio too, `tts.Llasa` can encode it again for any other codec.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors
import safetensors.numpy

from llasa import audio
from llasa.errors import LlasaError
from llasa.loading import find_base
from llasa.writing import whole

if TYPE_CHECKING:
    from llasa.codec import Codec

SHORTEST, LONGEST = 1.0, 30.0  # seconds
SILENCE = 1e-3  # RMS of full scale, -60 dB
ADVICE = "3 to 10 seconds of one person speaking work best"
_FORMAT = "llasa-voice-1"


@dataclass(frozen=True, eq=False)
class Voice:
    """A reference voice.

    Attributes:
        name: what it is listed as.
        text: transcript of the reference, in plain words.
        codes: (T,) uint16, what the codec made of it.
        codec: fingerprint of that codec (`loading.fingerprint`).
        samples: (N,) float32 mono, the reference itself, or None where only its codes were kept.
        rate: sample rate of `samples`, Hz.
    """

    name: str
    text: str
    codes: np.ndarray
    codec: str = ""
    samples: np.ndarray | None = None
    rate: int = 16000

    def sound(self, codec: "Codec", rate: int) -> np.ndarray:
        """(N,) at `rate` Hz: the recording, or where that was not kept, what `codec` makes of its codes."""
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
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise LlasaError(f"{path} is damaged or not a voice file: add the voice again") from error
        if facts.get("format") != _FORMAT or "codes" not in tensors:
            raise LlasaError(f"{path} is a .safetensors file but not a voice: make one with `llasa voices add`")
        return cls(
            name=facts["name"], text=facts["text"], codes=tensors["codes"], codec=facts["codec"],
            samples=tensors.get("samples"), rate=int(facts["rate"]),
        )  # fmt: skip


def check_reference(samples: np.ndarray, rate: int, transcript: str | None) -> None:
    """Refuses what no model could clone from.

    Args:
        samples: (N,) mono, -1 to 1.
        rate: Hz.
        transcript: what is said in it.

    Raises:
        LlasaError: silent, too short, too long, or no transcript; the message says what to do.
    """
    seconds = len(samples) / rate
    if seconds < SHORTEST:
        raise LlasaError(f"the reference lasts {seconds:.2f} s, too short to hear a voice in: {ADVICE}")
    if seconds > LONGEST:
        raise LlasaError(f"the reference lasts {seconds:.0f} s, more than {LONGEST:.0f}: cut it; {ADVICE}")
    if not np.isfinite(samples).all():
        raise LlasaError("the reference holds samples that are not numbers: save the recording again")
    if float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) < SILENCE:
        raise LlasaError(f"the reference is silent: {ADVICE}")
    if not any(character.isalnum() for character in transcript or ""):
        raise LlasaError('a reference needs its transcript: pass --voice-text "the words spoken in it"')


def user_folder() -> Path:
    """Where the user's own voices lie: `$LLASA_HOME/voices`, by default in ~/.local/share/llasa."""
    home = os.environ.get("LLASA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share" / "llasa") / "voices"


def check_name(name: str) -> str:
    """A voice's name, fit to be a file name.

    Raises:
        LlasaError: it is not.
    """
    if not re.fullmatch(r"\w[\w .-]{0,63}", name) or name != name.strip():
        raise LlasaError(f"{name!r} cannot name a voice: use letters, digits, spaces, dots, - and _, at most 64")
    return name


def list_voices(model_folder: Path) -> dict[str, Path]:
    """Name to file of every voice there is for a model: the user's own, then the model's presets, each by name.

    A voice of the user's hides a preset of the same name. A LoRA's presets come before those of its base, which it
    has too.

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
    """What to tell somebody who asked for a voice (of some `kind`) that does not exist."""
    known = list(names)
    missing = f"there is no voice {kind}called {name}"
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"{missing}: did you mean {' or '.join(close)}?"
    if known:
        return f"{missing}: `llasa voices list` shows the {len(known)} there are"
    return f"{missing}, nor any other: add one with `llasa voices add`"

"""Debian's flite: four robots of 2001 that need nothing but a package of the system, in hundreds of shifted voices.

A speaker is a flite voice, a formant ratio and a mean pitch. Raising the sample rate by the ratio and resampling back
moves every formant by that ratio; flite's own `duration_stretch` and `int_f0_target_mean` undo what this does to tempo
and pitch, so each is set on its own and no vocoder touches the sound. flite also prints where every phone ends.
"""

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from llasa.data.synthesis import finish
from llasa.data.teachers.teacher import PAUSE, RATE, Reading, Unreadable
from llasa.errors import LlasaError
from llasa.text import normalise

TEACHERS = ("rms", "slt", "awb", "kal16")
SHIFTED = 240  # shifted speakers, if nobody says how many


@dataclass(frozen=True)
class Speaker:
    """One synthetic speaker. `pitch` is the mean F0 in Hz, or None for the voice's own."""

    name: str
    voice: str
    formants: float = 1.0
    pitch: float | None = None
    tempo: float = 1.0


def speakers(shifted: int, seed: int = 0) -> list[Speaker]:
    """The plain teachers, then `shifted` speakers drawn over formant ratio, pitch and tempo.

    The rms voice ignores flite's pitch setting, so its shifts move pitch and formants together.
    """
    rng = np.random.default_rng(seed)
    result = [Speaker(name, name) for name in TEACHERS]
    for index in range(shifted):
        voice = TEACHERS[index % len(TEACHERS)]
        formants = float(np.exp(rng.uniform(np.log(0.84), np.log(1.22))))
        # Longer vocal tracts go with lower voices: keep the two loosely tied, as in people.
        centre = 130 * formants**2.5
        pitch = float(np.clip(centre * np.exp(rng.normal(0, 0.22)), 75, 280))
        tempo = float(rng.uniform(0.85, 1.12))
        result.append(Speaker(f"{voice}-{index:03d}", voice, formants, None if voice == "rms" else pitch, tempo))
    return result


def speak(text: str, speaker: Speaker) -> Reading:
    """One text read by one speaker, its silences and loudness those of a corpus.

    Raises:
        LlasaError: flite is not installed.
        Unreadable: it failed on this text.
    """
    return finish(read(text, speaker))


def read(text: str, speaker: Speaker, speed: float = 1.0) -> Reading:
    """One text as flite reads it.

    Raises:
        LlasaError: flite is not installed.
        Unreadable: it failed on this text.
    """
    with tempfile.NamedTemporaryFile(suffix=".wav", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as file:
        command = ["flite", "-voice", speaker.voice, "-psdur", "-o", file.name]
        command += ["--setf", f"duration_stretch={speaker.formants * speaker.tempo / speed:.4f}"]
        if speaker.pitch is not None:
            command += ["--setf", f"int_f0_target_mean={speaker.pitch / speaker.formants:.1f}"]
        try:
            # A text with no space would be taken for a file name, hence -t.
            printed = subprocess.run([*command, "-t", text], capture_output=True, text=True, timeout=60, check=True)
        except FileNotFoundError as error:
            raise LlasaError("flite is not installed: apt-get install flite") from error
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise Unreadable(f"flite failed on {text[:60]!r}: {error}") from error
        samples, rate = soundfile.read(file.name, dtype="float32")
    segments = [item.rsplit(":", 1) for item in printed.stdout.split()]
    phones = [phone for phone, _ in segments]
    if all(phone == PAUSE for phone in phones):
        raise Unreadable("flite said nothing")
    ends = np.array([float(end) for _, end in segments]) / speaker.formants
    if rate * speaker.formants != RATE:
        samples = soxr.resample(samples, rate * speaker.formants, RATE)
    return Reading(samples, phones, ends.tolist())


class Flite:
    """flite as a teacher.

    Args:
        shifted: how many shifted speakers there are beside the plain voices.
    """

    name = "flite"
    prefix = ""
    voices: Sequence[str] = TEACHERS
    shares: Mapping[str, float] = {"rms": 0.3, "slt": 0.1, "awb": 0.12, "kal16": 0.08}
    speeds = (1.0, 1.0)  # a speaker's tempo is its own

    def __init__(self, shifted: int) -> None:
        self._speakers = {speaker.name: speaker for speaker in speakers(shifted)}
        self.invented: Sequence[str] = tuple(self._speakers)[len(TEACHERS) :]

    def identity(self) -> dict[str, str]:
        return {}

    def speak(self, text: str, voice: str, speed: float) -> Reading:
        # It reads marks that it does not know by their names.
        return read(normalise(text), self._speakers[voice], speed)

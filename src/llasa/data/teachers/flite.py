"""Debian's flite as a teacher: four synthetic voices of 2001 that need only a system package, and hundreds of variants.

A speaker is a flite voice, a formant ratio and a mean pitch. Raising the sample rate by the ratio and resampling back
moves every formant by that ratio. flite's `duration_stretch` and `int_f0_target_mean` undo the change of tempo and
pitch, so all three are set independently, without a vocoder. flite also prints where every phone ends.
"""

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr

from llasa.data.teachers.teacher import PAUSE, RATE, Reading, Unreadable, finish
from llasa.errors import LlasaError
from llasa.files import is_folder
from llasa.text.normalise import normalise

TEACHERS = ("rms", "slt", "awb", "kal16")
SHIFTED = 240  # shifted speakers by default


@dataclass(frozen=True)
class Speaker:
    """One synthetic speaker. `pitch` is the mean fundamental in Hz, or None for the voice's own."""

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
        # Longer vocal tracts go with lower voices: the two are loosely tied, as in people.
        centre = 130 * formants**2.5
        pitch = float(np.clip(centre * np.exp(rng.normal(0, 0.22)), 75, 280))
        tempo = float(rng.uniform(0.85, 1.12))
        result.append(Speaker(f"{voice}-{index:03d}", voice, formants, None if voice == "rms" else pitch, tempo))
    return result


def speak(text: str, speaker: Speaker) -> Reading:
    """One text read by one speaker, with the silences and the loudness of a corpus.

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
    with tempfile.NamedTemporaryFile(suffix=".wav", dir="/dev/shm" if is_folder("/dev/shm") else None) as file:
        command = ["flite", "-voice", speaker.voice, "-psdur", "-o", file.name]
        command += ["--setf", f"duration_stretch={speaker.formants * speaker.tempo / speed:.4f}"]
        if speaker.pitch is not None:
            command += ["--setf", f"int_f0_target_mean={speaker.pitch / speaker.formants:.1f}"]
        try:
            # -t, because a text without a space would be taken for a file name.
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
        shifted: number of shifted speakers, besides the plain voices.
    """

    name = "flite"
    prefix = ""
    voices: Sequence[str] = TEACHERS
    shares: Mapping[str, float] = {"rms": 0.3, "slt": 0.1, "awb": 0.12, "kal16": 0.08}
    speeds = (1.0, 1.0)  # each speaker has a tempo of its own

    def __init__(self, shifted: int) -> None:
        self._speakers = {speaker.name: speaker for speaker in speakers(shifted)}
        self.invented: Sequence[str] = tuple(self._speakers)[len(TEACHERS) :]

    def identity(self) -> dict[str, str]:
        return {}

    def speak(self, text: str, voice: str, speed: float) -> Reading:
        # flite reads out the names of marks that it does not know.
        return read(normalise(text), self._speakers[voice], speed)

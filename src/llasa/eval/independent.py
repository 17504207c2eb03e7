"""Judges of a study, who take no part in the search: what each measures, and which verifier it must not stand beside.

Knows texts and 16 kHz waveforms; knows nothing of models or searches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from llasa.eval import listeners, metrics
from llasa.verifiers import campplus
from llasa.verifiers.likeness import Likeness


@dataclass(frozen=True)
class Figure:
    """What a judge measures: what it is called, its unit, and whether less of it is better."""

    name: str
    unit: str = ""
    less: bool = False


@dataclass(frozen=True)
class Ear:
    """A judge: its figures by their keys, the verifier that it is, if any, and whether it needs a reference.

    One `on_request` judges only where it is named: it takes longer, or its package comes with no extra.

    `hear` takes a text, a sound and a reference (T,) at 16 kHz, and gives each figure's value and its weight in the
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
    return {"campplus": (float(_second().score([""], [sound], [reference])[0]), 1)}


def _rater(_: str, sound: np.ndarray, __: np.ndarray | None) -> dict[str, tuple[float, float]]:
    return {"dnsmos": (listeners.dnsmos(sound), 1)}


def _second_rater(_: str, sound: np.ndarray, __: np.ndarray | None) -> dict[str, tuple[float, float]]:
    return {"distillmos": (listeners.distillmos(sound), 1)}


def _formula(_: str, sound: np.ndarray, reference: np.ndarray | None) -> dict[str, tuple[float, float]]:
    assert reference is not None
    found = metrics.voice_distance(sound, reference)
    return {"distance": (found.combined, 1), "pitch": (found.pitch, 1), "spectrum": (found.spectrum, 1)}


EARS = {
    "pocketsphinx": Ear({"pocketsphinx": Figure("word error rate, PocketSphinx", "", True)}, _words, "pocketsphinx"),
    "whisper-tiny": Ear(
        {"whisper-tiny": Figure("word error rate, Whisper tiny", "", True)}, _whisper, "whisper", on_request=True
    ),
    "resemblyzer": Ear({"resemblyzer": Figure("similarity, Resemblyzer")}, _encoder, "speaker", True),
    "campplus": Ear({"campplus": Figure("similarity, CAM++")}, _second_encoder, "campplus", True, on_request=True),
    "dnsmos": Ear({"dnsmos": Figure("DNSMOS")}, _rater, "naturalness"),
    "distillmos": Ear({"distillmos": Figure("DistillMOS")}, _second_rater, on_request=True),
    "distance": Ear(
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

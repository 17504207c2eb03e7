"""Runs listeners on clips, in processes of one thread each, and stores their findings in a file.

The file has a line for each clip, identified by a hash of its samples. So a stopped measurement can continue, and the
teacher's readings are processed only once, whichever voice is measured. The file contains transcripts and is therefore
not part of the results. Remove it when a listener changes.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from llasa.measure import listeners, metrics
from llasa.studies import workers

PROCESSES = 2
LEAST = 1.0  # the opinion score of an empty sound


def _pitch(samples: np.ndarray) -> dict[str, float]:
    return asdict(metrics.pitch(samples))


def _list(embed: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], list[float]]:
    return lambda samples: [float(f"{value:.5g}") for value in embed(samples)]


LISTENERS: dict[str, Callable[[np.ndarray], Any]] = {
    "whisper": listeners.whisper,
    "pocketsphinx": listeners.pocketsphinx,
    "distillmos": listeners.distillmos,
    "dnsmos": listeners.dnsmos,
    "campplus": _list(listeners.campplus),
    "resemblyzer": _list(listeners.resemblyzer),
    "pitch": _pitch,
}
SPEECH = ("whisper", "pocketsphinx", "distillmos", "dnsmos", "pitch")
VOICE = ("campplus", "resemblyzer")


def hear(clips: Sequence[np.ndarray], names: Sequence[str], store: Path) -> list[dict[str, Any]]:
    """The finding of each named listener for each clip: a text, a number, a vector or, for pitch, a dict."""
    known = _read(store)
    keys = [hashlib.sha1(np.ascontiguousarray(clip).tobytes()).hexdigest() for clip in clips]
    wanted = {
        key: (clip, missing)
        for key, clip in zip(keys, clips, strict=True)
        if (missing := [name for name in names if name not in known.get(key, {})])
    }
    if wanted:
        store.parent.mkdir(parents=True, exist_ok=True)
        order = list(wanted)
        cut_off = store.exists() and not store.read_bytes().endswith(b"\n")
        with store.open("a", encoding="utf-8") as file:
            file.write("\n" if cut_off else "")
            for place, found in workers.spread(_listen, list(wanted.values()), PROCESSES):
                known.setdefault(order[place], {}).update(found)
                file.write(json.dumps({"clip": order[place], **found}) + "\n")
                file.flush()
    return [known[key] for key in keys]


def _listen(job: tuple[np.ndarray, list[str]]) -> dict[str, Any]:
    clip, names = job
    return {name: LISTENERS[name](clip) for name in names}


def _read(store: Path) -> dict[str, dict[str, Any]]:
    """The stored findings, without a line that a stop cut off."""
    known: dict[str, dict[str, Any]] = {}
    for line in store.read_text(encoding="utf-8").splitlines() if store.exists() else []:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        known.setdefault(found.pop("clip"), {}).update(found)
    return known


def judged(text: str, heard: dict[str, Any]) -> dict[str, Any]:
    """A clip's figures for the results: errors instead of words, and the lowest opinion score for an empty sound."""
    result: dict[str, Any] = {}
    for name in ("whisper", "pocketsphinx"):
        if name in heard:
            result[name], result["words"] = metrics.word_errors(text, heard[name])
    for name in ("distillmos", "dnsmos"):
        if name in heard:
            result[name] = heard[name] if math.isfinite(heard[name]) else LEAST
    if "pitch" in heard:
        result["pitch"] = heard["pitch"]
    return result


def vectors(heard: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """(N, D) embeddings, each of unit length or zero."""
    return np.array([found[name] for found in heard], np.float32)

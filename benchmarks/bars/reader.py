"""Compares the preset of a real reader with her own clips, whose words it says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bars import hearing
from bars.folders import Clip
from bars.people import RECOGNISERS, copy
from bars.presets import LABELS
from bars.saying import say, sound
from llasa.measure import statistics
from llasa.measure.tables import Part, Row, percent, points, show
from llasa.tts import Llasa

WHO = ("clip", "copy", "preset")
Items = list[dict[str, Any]]


def measure(tts: Llasa, preset: str, clips: Sequence[Clip], store: Path) -> Part:
    """Measures words, similarity and quality of her clips, of the codec's copies, and of the preset on the same words.

    Raises:
        LlasaError: the model has no such preset.
    """
    real = [clip.sound() for clip in clips]
    sounds = {
        "clip": real,
        "copy": [copy(tts.codec, original) for original in real],
        "preset": [sound(say(tts, clip.text, preset, index)) for index, clip in enumerate(clips)],
    }
    names = (*RECOGNISERS, "distillmos", *hearing.VOICE)
    heard = iter(hearing.hear([one for some in sounds.values() for one in some], names, store))
    found = {who: [next(heard) for _ in some] for who, some in sounds.items()}
    items: Items = [
        {"clip": index, **{who: hearing.judged(clip.text, found[who][index]) for who in WHO}}
        for index, clip in enumerate(clips)
    ]
    for key in hearing.VOICE:
        known = hearing.vectors(found["clip"], key)
        for who in WHO:
            for index, embedding in enumerate(hearing.vectors(found[who], key)):
                # A clip, and speech with its words, is compared with the mean of the other clips.
                others = known.sum(0) - known[index]
                items[index][who][key] = float(others @ embedding / max(float(np.linalg.norm(others)), 1e-9))
    return Part(rows(items, preset), items)


def rows(items: Items, preset: str) -> list[Row]:
    """The table of the items that `measure` makes."""
    labels = {"clip": f"{len(items)} held-out clips of the reader", "copy": "the codec's copies of them"}
    labels["preset"] = f"the preset `{preset}` on the same words"
    result = []
    total = [item["clip"]["words"] for item in items]
    for key in RECOGNISERS:
        what = f"word error rate by {LABELS[key]}"
        errors = {who: [item[who][key] for item in items] for who in WHO}
        result += [Row(f"{what}, {labels[who]}", percent(statistics.error_rate(errors[who], total))) for who in WHO]
        above = statistics.error_rate_difference(errors["preset"], errors["clip"], total)
        held = ("at most 8 points", above.value <= 0.08) if key == "whisper" else ()
        result.append(Row(f"{what}, the preset `{preset}` above the reader's clips", points(above), *held))
    for key in ("resemblyzer", "campplus"):
        for who in WHO:
            alike = statistics.mean([item[who][key] for item in items])
            held = ("at least 0.80", alike.value >= 0.8) if (key, who) == ("resemblyzer", "preset") else ()
            result.append(Row(f"similarity by {LABELS[key]} to the reader, {labels[who]}", show(alike, 3), *held))
    for who in WHO:
        opinion = statistics.mean([item[who]["distillmos"] for item in items])
        result.append(Row(f"{LABELS['distillmos']}, {labels[who]}", show(opinion)))
    return result

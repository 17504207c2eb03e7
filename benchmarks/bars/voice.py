"""Compares the presets on held-out sentences with their teachers' readings and with the codec's copies of those.

The default preset says every sentence, once and as the best of 4. The others share the sentences.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bars import folders, hearing
from bars.presets import LABELS
from bars.saying import say, sound
from llasa import audio
from llasa.measure import statistics
from llasa.measure.tables import Part, Row, percent, points, show
from llasa.tts import Llasa

RATE = folders.RATE
BEST_OF = 4
LONG, SHORT = 1.8, 0.6  # in teacher's lengths: an utterance above or below these ran away or stopped early
PICTURES = 5
Items = list[dict[str, Any]]


def measure(
    tts: Llasa, sentences: Sequence[str], teacher: Path, presets: Mapping[str, str | None], store: Path
) -> Part:
    """Measures words, quality, pitch and lengths of the presets.

    Args:
        teacher: folder of readings, with a folder for each preset.
        presets: the voice that each preset learnt from; the default comes first and has a teacher.
        store: file of earlier findings.

    Raises:
        LlasaError: a reading or a preset is missing.
    """
    default, *others = presets
    readings = [(index, default) for index in range(len(sentences))]
    readings += [(index, others[index % len(others)]) for index in range(len(sentences) if others else 0)]
    read = _read(sentences, teacher, presets, readings)
    items: Items = []
    sounds: list[dict[str, np.ndarray]] = []
    for index, preset in readings:
        made: dict[str, np.ndarray] = {}
        if presets[preset]:
            made["teacher"] = read[index, preset]
            made["copy"] = tts.codec.decode(tts.codec.encode(made["teacher"]))[: made["teacher"].size]
        faults = []
        length = _seconds(read.get((index, preset), read[index, default]))
        for name, search in (("voice", {}), ("best", {"best_of": BEST_OF}))[: 2 if preset == default else 1]:
            speech = say(tts, sentences[index], preset, index, **search)
            made[name] = sound(speech)
            faults.append(fault(_seconds(made[name]) / length, speech is None or all(speech.finished)))
        items.append({"sentence": index, "preset": preset, "faults": faults})
        sounds.append(made)
    heard = iter(hearing.hear([clip for made in sounds for clip in made.values()], hearing.SPEECH, store))
    for item, made in zip(items, sounds, strict=True):
        item |= {name: hearing.judged(sentences[item["sentence"]], next(heard)) for name in made}
    return Part(rows(items, presets), items, _pictures(sentences, sounds))


def fault(length: float, finished: bool) -> str:
    """What is wrong with the length of an utterance, measured in teacher's lengths; empty if nothing is."""
    if length > LONG:
        return "ran away"
    return "stopped early" if length < SHORT else "" if finished else "never ended"


def rows(items: Items, presets: Mapping[str, str | None]) -> list[Row]:
    """The table of the items that `measure` makes."""
    default = next(iter(presets))
    groups = {name: [item for item in items if item["preset"] == name] for name in presets}
    groups = {name: group for name, group in groups.items() if group}
    taught = {name: group for name, group in groups.items() if presets[name]}
    return [
        *_opinions(groups, taught, presets),
        *_words("whisper", taught, presets, True),
        *_words("pocketsphinx", taught, presets, False),
        *_each(groups, presets),
        *_pitch(taught[default], presets[default] or ""),
        *_faults(items),
    ]


def _read(
    sentences: Sequence[str], teacher: Path, presets: Mapping[str, str | None], readings: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], np.ndarray]:
    """The teacher's sound of every item that has a teacher."""
    found: dict[tuple[int, str], np.ndarray] = {}
    for preset in (name for name, of in presets.items() if of):
        own = [index for index, name in readings if name == preset]
        made = folders.readings(teacher, preset, [sentences[index] for index in own])
        found |= {(index, preset): clip for index, clip in zip(own, made, strict=True)}
    return found


def _seconds(clip: np.ndarray) -> float:
    """From the first to the last sound."""
    return audio.trim_silence(clip, RATE).size / RATE


def _pictures(sentences: Sequence[str], sounds: list[dict[str, np.ndarray]]) -> list[tuple[str, list[Any]]]:
    by_length = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    chosen = [by_length[len(by_length) * k // PICTURES] for k in range(PICTURES)]
    names = ("teacher", "copy", "voice")
    return [(f"sentence {i}", [(name, sounds[i][name]) for name in names]) for i in dict.fromkeys(chosen)]


def _column(items: Items, who: str, key: str) -> list[float]:
    return [item[who][key] for item in items]


def _ones(items: Items) -> list[float]:
    return [1.0] * len(items)


def _opinions(groups: dict[str, Items], taught: dict[str, Items], presets: Mapping[str, str | None]) -> list[Row]:
    """DistillMOS and DNSMOS of the default preset, of all presets, and of the codec's copies of the teachers."""
    default = next(iter(presets))
    result = []
    for key in ("distillmos", "dnsmos"):
        barred, label = key == "distillmos", LABELS[key]
        teacher = statistics.mean(_column(taught[default], "teacher", key))
        voice = statistics.mean(_column(groups[default], "voice", key))
        teachers = statistics.mean_of_groups([(_column(g, "teacher", key), _ones(g)) for g in taught.values()])
        voices = statistics.mean_of_groups([(_column(g, "voice", key), _ones(g)) for g in groups.values()])
        below = statistics.mean_of_groups(
            [(np.subtract(_column(g, "teacher", key), _column(g, "copy", key)), _ones(g)) for g in taught.values()]
        )
        result += [
            Row(f"{label}, the teacher ({presets[default]})", show(teacher)),
            _at_least(f"{label}, the default preset `{default}`", voice, 3.6 if barred else None),
            Row(f"{label}, mean of {len(taught)} teachers", show(teachers)),
            _at_least(f"{label}, mean of {len(groups)} presets", voices, 3.4 if barred else None),
            Row(
                f"{label}, the codec's copies of the teachers below them",
                show(below),
                *(("at most 0.6", below.value <= 0.6) if barred else ()),
            ),
        ]
    return result


def _at_least(what: str, found: statistics.Interval, bar: float | None) -> Row:
    return Row(what, show(found), *((f"at least {bar}", found.value >= bar) if bar else ()))


def _words(key: str, taught: dict[str, Items], presets: Mapping[str, str | None], barred: bool) -> list[Row]:
    """Word error rates by one recogniser, and how much they are above the teacher's own, paired."""
    default = next(iter(presets))
    main = taught[default]
    total = _column(main, "teacher", "words")
    labels = {
        "teacher": f"the teacher ({presets[default]})",
        "copy": "the codec's copy of it",
        "voice": f"`{default}`, one sample",
        "best": f"`{default}`, the best of {BEST_OF}",
    }
    errors = {who: _column(main, who, key) for who in labels}
    what = f"word error rate by {LABELS[key]}"
    result = [
        Row(f"{what}, {label}", percent(statistics.error_rate(errors[who], total))) for who, label in labels.items()
    ]
    above = []
    for who, most in (("copy", None), ("voice", 3), ("best", 1)):
        gap = statistics.error_rate_difference(errors[who], errors["teacher"], total)
        above.append((f"{labels[who]}, above the teacher", gap, most))
    gaps = [
        (np.subtract(_column(g, "voice", key), _column(g, "teacher", key)), _column(g, "teacher", "words"))
        for g in taught.values()
    ]
    above.append((f"mean of {len(taught)} presets, above their teachers", statistics.mean_of_groups(gaps), 5))
    for label, gap, most in above:
        held = (f"at most {most} points", gap.value <= most / 100) if barred and most else ()
        result.append(Row(f"{what}, {label}", points(gap), *held))
    return result


def _each(groups: dict[str, Items], presets: Mapping[str, str | None]) -> list[Row]:
    """A line of figures for each preset except the default."""
    result = []
    for name, group in list(groups.items())[1:]:
        figures = [f"{LABELS['distillmos']} {show(statistics.mean(_column(group, 'voice', 'distillmos')))}"]
        if presets[name]:
            figures[0] += f", the teacher {np.mean(_column(group, 'teacher', 'distillmos')):.2f}"
            gap = statistics.error_rate_difference(
                _column(group, "voice", "whisper"),
                _column(group, "teacher", "whisper"),
                _column(group, "voice", "words"),
            )
            figures.append(f"words by Whisper {points(gap)} above the teacher")
        what = f"`{name}` ({presets[name] or 'a person'}), {len(group)} sentences"
        result.append(Row(what, "; ".join(figures)))
    return result


def _pitch(items: Items, teacher: str) -> list[Row]:
    """The pitch of the default preset and of its teacher. Sounds without a voiced frame have none."""
    result = []
    whole = [i for i in items if all(math.isfinite(i[who]["pitch"]["mean"]) for who in ("teacher", "copy", "voice"))]
    if not whole:
        return [Row("pitch", "no utterance is voiced", "within 20 %", False)]
    figures = {who: [item[who]["pitch"] for item in whole] for who in ("teacher", "copy", "voice")}
    for key, label, unit, digits in (
        ("mean", "pitch, mean", " Hz", 0),
        ("deviation", "pitch, standard deviation", " semitones", 2),
        ("span", "pitch, from the 5th to the 95th percentile", " semitones", 1),
    ):
        own = {who: statistics.mean([pitch[key] for pitch in some]) for who, some in figures.items()}
        beside = f"; the teacher ({teacher}) {own['teacher'].value:.{digits}f}, its copy {own['copy'].value:.{digits}f}"
        result.append(Row(label, show(own["voice"], digits, unit) + beside))
    # A ratio of sums, which are drawn together.
    ratio = statistics.error_rate(*([pitch["deviation"] for pitch in figures[who]] for who in ("voice", "teacher")))
    what = "pitch, standard deviation as a share of the teacher's"
    result.append(Row(what, show(ratio.scaled(100), 0, " %"), "within 20 %", abs(ratio.value - 1) <= 0.2))
    return result


def _faults(items: Items) -> list[Row]:
    found = [fault for item in items for fault in item["faults"]]
    counts = [f"{found.count(name)} {name}" for name in ("ran away", "stopped early", "never ended")]
    faulty = sum(map(bool, found))
    figure = f"{faulty}: {', '.join(counts)}; {percent(statistics.share(faulty, len(found)))}"
    return [Row(f"of {len(found)} utterances, those at fault", figure, "0", faulty == 0)]

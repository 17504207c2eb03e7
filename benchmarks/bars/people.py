"""Measures real people: the codec's copies of unseen speakers, and their clones.

The caller must make sure that no model was trained on them. Whisper's transcript replaces a missing one.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bars import folders, hearing
from bars.folders import Clip
from bars.presets import LABELS
from bars.saying import say, sound
from llasa.codec import Codec
from llasa.errors import LlasaError, WrongTranscript
from llasa.measure import statistics
from llasa.measure.metrics import words
from llasa.measure.tables import Part, Row, percent, points, show
from llasa.tts import Llasa
from llasa.voice import Voice

RATE = folders.RATE
LONG = 8.0  # seconds of a reference, as nearly as a pause within these bounds allows
WITHIN = (6.0, 10.0)
SHORTEST = 3 * RATE  # samples from which a speaker can be recognised
PAUSE = RATE // 5
RECOGNISERS = ("whisper", "pocketsphinx")
Items = list[dict[str, Any]]


def measure_copies(codec: Codec, speakers: Sequence[Sequence[Clip]], store: Path) -> Part:
    """Compares the codec's copy of one clip of each speaker with the clip itself."""
    chosen = [max(clips, key=lambda clip: bool(words(clip.text))) for clips in speakers]
    originals = [clip.sound() for clip in chosen]
    copies = [copy(codec, original) for original in originals]
    heard = hearing.hear([*originals, *copies], hearing.SPEECH, store)
    ours, theirs = heard[: len(chosen)], heard[len(chosen) :]
    known = all(words(clip.text) for clip in chosen)
    texts = [clip.text if known else found["whisper"] for clip, found in zip(chosen, ours, strict=True)]
    items = [
        {"what": "copy", "speaker": index, "original": hearing.judged(text, one), "copy": hearing.judged(text, other)}
        for index, (text, one, other) in enumerate(zip(texts, ours, theirs, strict=True))
    ]
    return Part(copy_rows(items, f"{len(chosen)} unseen real speakers", known), items)


def copy(codec: Codec, original: np.ndarray) -> np.ndarray:
    return codec.decode(codec.encode(original))[: original.size]


def copy_rows(items: Items, who: str, known: bool) -> list[Row]:
    """The table of the codec's copies of people and their bars."""
    result = []
    for key in ("distillmos", "dnsmos"):
        one, other = ([item[side][key] for item in items] for side in ("original", "copy"))
        below = statistics.mean(np.subtract(one, other))
        held = ("at most 1.0", below.value <= 1) if key == "distillmos" else ()
        result += [
            Row(f"{LABELS[key]}, {who}", show(statistics.mean(one))),
            Row(f"{LABELS[key]}, the codec's copies of {who} below them", show(below), *held),
        ]
    remark = "" if known else ", against what Whisper hears in the originals"
    for key in RECOGNISERS:
        one, other = ([item[side][key] for item in items] for side in ("original", "copy"))
        total = [item["original"]["words"] for item in items]
        above = statistics.error_rate_difference(other, one, total)
        held = ("at most 8 points", above.value <= 0.08) if key == "whisper" else ()
        what = f"word error rate by {LABELS[key]}"
        result += [
            Row(f"{what}, {who}{remark}", percent(statistics.error_rate(one, total))),
            Row(f"{what}, the codec's copies of {who} above them", points(above), *held),
        ]
    return result


def measure_cloning(tts: Llasa, sentences: Sequence[str], speakers: Sequence[Sequence[Clip]], store: Path) -> Part:
    """Clones speakers from 8 s each and shares the sentences among the clones.

    Another clip of a speaker, or the rest of the clip that was cut, shows how similar speakers are to themselves.
    Intervals are over speakers: several sentences of one are averaged.

    Raises:
        LlasaError: fewer than two speakers have a clip of 3 s or more with words in it.
    """
    cuts = [taken for clips in speakers if (taken := reference(clips))]
    heard = hearing.hear([cut for cut, _, _ in cuts], ("whisper", *hearing.VOICE), store)
    transcripts = [text if words(text) else found["whisper"] for (_, text, _), found in zip(cuts, heard, strict=True)]
    voices: dict[int, Voice] = {}
    for index, text in enumerate(transcripts):
        if words(text) and len(voices) < len(sentences):
            with suppress(WrongTranscript):  # of about one right transcript in a hundred, too
                voices[index] = tts.clone(cuts[index][0], text, rate=RATE)
    kept = list(voices)
    if len(kept) < 2:
        raise LlasaError("cloning needs two or more speakers: give clips of each that last 3 s or longer")
    known, rests = [heard[index] for index in kept], [cuts[index][2] for index in kept]
    whose = [index % len(voices) for index in range(len(sentences))]
    clones = [sound(say(tts, text, voices[kept[whose[index]]], index)) for index, text in enumerate(sentences)]
    long = [index for index, rest in enumerate(rests) if rest.size >= SHORTEST]

    names = (*hearing.VOICE, *RECOGNISERS, "distillmos")
    made = hearing.hear([*(rests[index] for index in long), *clones], names, store)
    items: Items = [{"what": "speaker", "speaker": index} for index in long]
    for index, (text, found) in enumerate(zip(sentences, made[len(long) :], strict=True)):
        items.append({"what": "clone", "speaker": whose[index], "sentence": index, **hearing.judged(text, found)})
    for item, found in zip(items, made, strict=True):
        for key in hearing.VOICE:
            item[key] = nearness(np.array(found[key]), hearing.vectors(known, key), item["speaker"])
    return Part(clone_rows(items, len(voices)), items)


def reference(clips: Sequence[Clip]) -> tuple[np.ndarray, str, np.ndarray] | None:
    """The reference for a clone, its words if known, and another sound of the speaker, which may be empty.

    A clip of the right length is used whole; a longer one is cut in a pause. None if no clip is long enough.
    """
    sounds = [clip.sound() for clip in clips]
    far = [abs(clip.size / RATE - LONG) for clip in sounds]
    first = min(range(len(sounds)), key=lambda index: far[index])
    if sounds[first].size < SHORTEST:
        return None
    other = next((index for index in range(len(sounds)) if index != first and sounds[index].size >= SHORTEST), None)
    rest = sounds[other] if other is not None else np.zeros(0, np.float32)
    if sounds[first].size <= WITHIN[1] * RATE:
        return sounds[first], clips[first].text, rest
    begin, left = cut(sounds[first])
    return begin, "", rest if rest.size else left


def cut(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a clip of 10 s or more in the quietest fifth of a second between 6 s and 10 s."""
    power = np.concatenate([[0], np.cumsum(np.square(clip, dtype=np.float64))])
    # The energy of every window whose middle is a possible cut.
    last = min(int(WITHIN[1] * RATE), clip.size - PAUSE)
    middles = np.arange(int(WITHIN[0] * RATE), last + 1)
    energy = power[middles + PAUSE // 2] - power[middles - PAUSE // 2]
    place = int(middles[energy.argmin()])
    return clip[:place], clip[place:]


def nearness(embedding: np.ndarray, references: np.ndarray, own: int) -> dict[str, float]:
    """Similarity to the speaker's own reference, and how much that is above the mean over the others' references."""
    cosines = references @ embedding
    others = float(cosines.sum() - cosines[own]) / (len(references) - 1)
    return {"own": float(cosines[own]), "margin": float(cosines[own]) - others}


def clone_rows(items: Items, count: int) -> list[Row]:
    """The table of clones, and of the speakers themselves, with the bars."""
    result = []
    for what, label in (("speaker", "real speakers themselves"), ("clone", f"clones of {count} unseen real speakers")):
        part = [item for item in items if item["what"] == what]
        for key in hearing.VOICE if part else ():
            own, margin = (_by_speaker(part, lambda item, k=key, f=f: item[k][f]) for f in ("own", "margin"))
            held = ("at least 0.15", margin.value >= 0.15) if (what, key) == ("clone", "campplus") else ()
            result += [
                Row(f"similarity by {LABELS[key]} to the own reference, {label}", show(own, 3)),
                Row(
                    f"similarity by {LABELS[key]} above the {count - 1} others' references, {label}",
                    show(margin, 3),
                    *held,
                ),
            ]
    clones = [item for item in items if item["what"] == "clone"]
    speakers = sorted({item["speaker"] for item in clones})
    for key in RECOGNISERS:
        sums = [[sum(item[k] for item in clones if item["speaker"] == s) for s in speakers] for k in (key, "words")]
        rate = statistics.error_rate(*sums)
        held = ("at most 20 %", rate.value <= 0.2) if key == "whisper" else ()
        result.append(Row(f"word error rate by {LABELS[key]}, clones of {count} speakers", percent(rate), *held))
    opinion = _by_speaker(clones, lambda item: item["distillmos"])
    return [*result, Row(f"{LABELS['distillmos']}, clones of {count} speakers", show(opinion))]


def _by_speaker(items: Items, figure: Any) -> statistics.Interval:
    speakers = sorted({item["speaker"] for item in items})
    return statistics.mean([np.mean([figure(item) for item in items if item["speaker"] == one]) for one in speakers])

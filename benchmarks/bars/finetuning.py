"""Measures what fine-tuning to a voice changes: the tuned model and its base, both after the same reference clip.

The recordings of the reader are at 16 kHz, with transcripts, and not from the training. Results name clips and
sentences by numbers and contain none of their words.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bars.saying import say, sound
from llasa import audio
from llasa.errors import LlasaError
from llasa.measure import listeners, metrics, statistics
from llasa.measure.tables import Part, Row, percent, points, show
from llasa.speak.speech import LEVEL
from llasa.tts import Llasa
from llasa.voice import Voice

RATE = 16000
HEARING = {"whisper": "Whisper tiny", "pocketsphinx": "PocketSphinx"}
LABELS = {
    "reader": "the reader's own clips",
    "copy": "the codec's copy of those clips",
    "before": "before, the base after the reference",
    "after": "after, the tuned model after the same reference",
}


def measure(
    before: Llasa, after: Llasa, voice: Voice, clips: Sequence[tuple[np.ndarray, str]], sentences: Sequence[str] = ()
) -> Part:
    """Measures words, quality and likeness to the reader, before and after, beside the reader and the codec's copy.

    The models say the words of the clips, and the sentences. Words are heard by Whisper tiny, whose encoder taught the
    embedded codec, and by PocketSphinx. Quality is DistillMOS. Similarity is the cosine of Resemblyzer's embedding with
    the mean over the reader's clips. Distance is that of pitch and spectrum to a clip, if possible the one with the
    same words.

    Raises:
        LlasaError: fewer than two clips with words in their transcripts.
    """
    clips = [(audio.set_loudness(clip, RATE, LEVEL), said) for clip, said in clips if metrics.words(said)]
    if len(clips) < 2:
        raise LlasaError("fewer than two clips have words in their transcripts: give two or more")
    real, said = [clip for clip, _ in clips], [words for _, words in clips]
    texts = [*said, *sentences]
    sounds = {"reader": real, "copy": [before.codec.decode(before.codec.encode(s))[: s.size] for s in real]}
    sounds["before"] = _spoken(before, texts, voice)
    sounds["after"] = _spoken(after, texts, voice)

    own = {"reader": 1}  # a clip is not compared with itself
    pairs = [(s, real[(i + own.get(who, 0)) % len(real)]) for who, some in sounds.items() for i, s in enumerate(some)]
    judged = iter(listeners.spread(_judge, *map(list, zip(*pairs, strict=True))))
    known = np.stack([listeners.resemblyzer(clip) for clip in real])
    items: list[dict[str, Any]] = []
    for who, some in sounds.items():
        for index, clip in enumerate(some):
            heard, quality, distance = next(judged)
            errors = {name: metrics.word_errors(texts[index], words)[0] for name, words in heard.items()}
            words = len(metrics.words(texts[index]))
            embedding = known[index] if who == "reader" else listeners.resemblyzer(clip)
            others = known.sum(0) - (embedding if who == "reader" else 0)
            alike = float(others @ embedding / max(float(np.linalg.norm(others)), 1e-9))
            items.append(
                {"who": who, "text": index, **errors, "words": words, "quality": quality, "similarity": alike,
                 "distance": distance}
            )  # fmt: skip
    return Part(_rows(items), items)


def _judge(clip: np.ndarray, other: np.ndarray) -> tuple[dict[str, str], float, float]:
    """The words that each listener hears in a sound, its quality, and the distance of its voice from another."""
    heard = {name: getattr(listeners, name)(clip) for name in HEARING}
    return heard, listeners.distillmos(clip), metrics.voice_distance(clip, other).combined


def _spoken(tts: Llasa, texts: Sequence[str], voice: Voice | str) -> list[np.ndarray]:
    return [sound(say(tts, text, voice, index)) for index, text in enumerate(texts)]


def _rows(items: list[dict[str, Any]]) -> list[Row]:
    by = {who: [item for item in items if item["who"] == who] for who in LABELS}
    present = [who for who in LABELS if by[who]]

    def column(who: str, key: str) -> list[float]:
        return [item[key] for item in by[who]]

    rows = []
    for listener, called in HEARING.items():
        name = f"word error rate by {called}"
        for who in present:
            rate = statistics.error_rate(column(who, listener), column(who, "words"))
            rows.append(Row(f"{name}, {LABELS[who]} ({len(by[who])})", percent(rate)))
        change = statistics.error_rate_difference(
            column("after", listener), column("before", listener), column("after", "words")
        )
        rows.append(Row(f"{name}, after less before, paired", points(change)))
    for key, name, digits in (
        ("quality", "DistillMOS", 2),
        ("similarity", "similarity to the reader (Resemblyzer)", 3),
        ("distance", "distance from the reader (pitch and spectrum; 1: as two sentences of one speaker)", 2),
    ):
        for who in present:
            values = [value for value in column(who, key) if math.isfinite(value)]
            # A sound without a voiced frame has no pitch.
            lost = f", {len(by[who]) - len(values)} without a voice" * (len(values) < len(by[who]))
            figure = show(statistics.mean(values), digits) if values else "no voice in any"
            rows.append(Row(f"{name}, {LABELS[who]}{lost}", figure))
        both = zip(column("after", key), column("before", key), strict=True)
        changes = [one - other for one, other in both if math.isfinite(one - other)]
        if changes:
            rows.append(Row(f"{name}, after less before, paired", show(statistics.mean(changes), digits)))
    return rows

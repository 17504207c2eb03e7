"""How good a model is at real people: unseen speakers through the codec and cloned, and the preset of a human reader.

Knows recordings as samples at 16 kHz, with their transcripts or their speakers; knows nothing of files, and trusts the
caller that no model was trained on them. Recordings are set to the level at which `clone` encodes. Results name
sentences and clips by their numbers, and hold no words of theirs.
"""

from typing import Any

import numpy as np

from llasa import audio
from llasa.codec import Codec
from llasa.errors import LlasaError
from llasa.eval import judges, metrics, statistics
from llasa.eval.quality import Part, mean_of, say
from llasa.eval.report import Row, percent, points, show
from llasa.speech import LEVEL
from llasa.tts import Llasa

RATE = 16000
PRESET = "reader"
SHORTEST, LONGEST = 3 * RATE, 10 * RATE  # samples of a reference
PAUSE = RATE // 5


def measure_codec(codec: Codec, clips: list[np.ndarray]) -> Part:
    """The codec alone, on a clip of each of several speakers."""
    sounds = [audio.set_loudness(clip, RATE, LEVEL) for clip in clips]
    figures = judges.spread(metrics.compare, sounds, [codec.decode(codec.encode(sound)) for sound in sounds])
    items = [{"what": "codec", "speaker": index, **figure} for index, figure in enumerate(figures)]
    who = f"{len(clips)} real unseen speakers"
    stoi, pesq = mean_of(items, "stoi"), mean_of(items, "pesq_wb")
    rows = [
        Row(f"codec alone, STOI, {who}", show(stoi, 3), "at least 0.75", stoi.value >= 0.75),
        Row(f"codec alone, PESQ-WB, {who}", show(pesq), "at least 1.4", pesq.value >= 1.4),
        Row(f"codec alone, log-mel distance in nepers, {who}", show(mean_of(items, "mel_distance"))),
        Row(f"codec alone, voiced frames that lose their pitch, {who}", percent(mean_of(items, "pitch_error"))),
    ]
    return Part(rows, items)


def measure_cloning(tts: Llasa, sentences: list[str], clips: list[np.ndarray], pictures: int = 2) -> Part:
    """Speakers cloned from 3 to 10 s of a clip each; the sentences are shared out among the clones.

    What a reference says is PocketSphinx' guess, as recordings of many speakers have no transcripts here: its errors
    are part of what is measured. What is left of a clip, where that is 3 s or more, shows how near a speaker is to
    themselves. The speaker is what intervals are drawn over: several sentences of one are averaged.

    Raises:
        LlasaError: fewer than two clips last 3 s with words in them.
    """
    usable = [index for index, clip in enumerate(clips) if clip.size >= SHORTEST]
    cuts = [cut(audio.set_loudness(clips[index], RATE, LEVEL)) for index in usable]
    heard = judges.spread(judges.transcribe, [reference for reference, _ in cuts])
    # No more speakers than there are sentences for.
    kept = [index for index, words in enumerate(heard) if words][: len(sentences)]
    if len(kept) < 2:
        raise LlasaError("cloning needs speakers to tell apart: give clips of two or more that last 3 s or longer")
    references, rests = ([cuts[index][side] for index in kept] for side in (0, 1))
    voices = [tts.clone(cuts[index][0], heard[index], rate=RATE) for index in kept]
    speakers = [index % len(voices) for index in range(len(sentences))]
    spoken = [say(tts, sentence, voices[speakers[index]], index) for index, sentence in enumerate(sentences)]
    clones = [speech.samples if speech else np.zeros(0, np.float32) for speech in spoken]

    known = _embed(references)
    long = [index for index, rest in enumerate(rests) if rest.size >= SHORTEST]
    items = _nearness("speaker", _embed([rests[index] for index in long]), known, long) if long else []
    made = _nearness("clone", _embed(clones), known, speakers)
    for index, (item, words) in enumerate(zip(made, judges.spread(judges.transcribe, clones), strict=True)):
        item["sentence"] = index
        item["errors"], item["words"] = metrics.word_errors(sentences[index], words)

    who = f"clones of {len(voices)} real unseen speakers"
    rows = []
    if long:
        rows += _nearness_rows(items, f"{len(long)} real unseen speakers themselves", len(voices) - 1)
    *near, above = _nearness_rows(made, who, len(voices) - 1)
    margin = _by_speaker(made, "margin")
    rows += [*near, Row(above.what, above.figure, "at least 0.05", margin.value >= 0.05)]
    totals = [[sum(i[key] for i in made if i["speaker"] == k) for k in set(speakers)] for key in ("errors", "words")]
    errors = statistics.error_rate(*totals)
    rows.append(Row(f"word error rate, {who} (PocketSphinx transcribed their references)", percent(errors)))
    for item in items + made:
        item["speaker"] = usable[kept[item["speaker"]]]  # the number of the clip, as in the codec's figures
    shown = [(f"speaker {k}", [("reference", references[k]), ("clone", clones[k])]) for k in range(pictures)]
    return Part(rows, items + made, shown)


def measure_reader(tts: Llasa, sentences: list[str], clips: list[tuple[np.ndarray, str]]) -> Part:
    """The preset of a human reader on held-out sentences, against clips (with their words) of that reader.

    The reader reads other words than the preset: the difference of their error rates is not a paired one.

    Raises:
        LlasaError: fewer than two clips, or the model has no such preset.
    """
    clips = [(audio.set_loudness(sound, RATE, LEVEL), said) for sound, said in clips if metrics.words(said)]
    if len(clips) < 2:
        raise LlasaError("the reader is compared over clips with words in their transcripts: give two or more")
    real, said = [sound for sound, _ in clips], [words for _, words in clips]
    spoken = [say(tts, sentence, PRESET, index) for index, sentence in enumerate(sentences)]
    preset = [speech.samples if speech else np.zeros(0, np.float32) for speech in spoken]
    copies = [tts.codec.decode(tts.codec.encode(sound))[: sound.size] for sound in real]
    heard = iter(judges.spread(judges.transcribe, real + copies + preset))
    items: list[dict[str, Any]] = []
    for what, texts in (("reader", said), ("copy", said), ("preset", sentences)):
        for index, text in enumerate(texts):
            errors, words = metrics.word_errors(text, next(heard))
            items.append(
                {"what": what, "clip" if texts is said else "sentence": index, "errors": errors, "words": words}
            )
    parts = [[item for item in items if item["what"] == what] for what in ("reader", "copy", "preset")]
    columns = [tuple([item[key] for item in part] for key in ("errors", "words")) for part in parts]
    gap = statistics.error_rate_gap(*columns[2], *columns[0])

    known = _embed(real)
    # A clip is compared with the mean of the others: with its own part in it, it would resemble itself.
    own = [float(_unit(known.sum(0) - clip) @ clip) for clip in known]
    near = (_embed(preset) @ _unit(known.sum(0))).tolist()
    for item, value in zip(parts[0] + parts[2], own + near, strict=True):
        item["similarity"] = value
    alike = statistics.mean(near)
    rows = [
        Row(f"word error rate, {len(real)} held-out clips of the reader", percent(statistics.error_rate(*columns[0]))),
        Row("word error rate, the codec's copy of those clips", percent(statistics.error_rate(*columns[1]))),
        Row(f"word error rate, the preset `{PRESET}`", percent(statistics.error_rate(*columns[2]))),
        Row("the preset above the reader's clips, not paired", points(gap), "at most 15 points", gap.value <= 0.15),
        Row("similarity of the reader's clips to the reader", show(statistics.mean(own), 3)),
        Row(f"similarity of the preset `{PRESET}` to the reader", show(alike, 3), "at least 0.80", alike.value >= 0.8),
    ]
    return Part(rows, items)


def cut(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A reference of 3 to 10 s that ends in the quietest fifth of a second, and the rest of the clip.

    The rest lasts 3 s or more where the clip is long enough to leave as much, at 7 s; a shorter clip is all reference.
    """
    last = min(LONGEST, clip.size - SHORTEST)
    if last < SHORTEST + RATE:
        return clip, clip[:0]
    power = np.concatenate([[0], np.cumsum(np.square(clip, dtype=np.float64))])
    # The energy of every window whose middle is a place to cut.
    middles = np.arange(SHORTEST, last + 1)
    energy = power[middles + PAUSE // 2] - power[middles - PAUSE // 2]
    place = int(middles[energy.argmin()])
    return clip[:place], clip[place:]


def _embed(clips: list[np.ndarray]) -> np.ndarray:
    """(N, 256), each row of unit length or zeros."""
    return np.stack([judges.speaker_embedding(clip) for clip in clips])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _nearness(what: str, sounds: np.ndarray, references: np.ndarray, speakers: list[int]) -> list[dict[str, Any]]:
    """Each sound's similarity to its own speaker's reference, and how far that is above the others' mean."""
    items = []
    for cosines, speaker in zip(sounds @ references.T, speakers, strict=True):
        own = float(cosines[speaker])
        others = float(cosines.sum() - own) / (len(references) - 1)
        items.append({"what": what, "speaker": speaker, "own": own, "margin": own - others})
    return items


def _by_speaker(items: list[dict[str, Any]], key: str) -> statistics.Interval:
    speakers = sorted({item["speaker"] for item in items})
    return statistics.mean([np.mean([i[key] for i in items if i["speaker"] == speaker]) for speaker in speakers])


def _nearness_rows(items: list[dict[str, Any]], who: str, others: int) -> list[Row]:
    return [
        Row(f"similarity to the own reference, {who}", show(_by_speaker(items, "own"), 3)),
        Row(f"above that to the {others} others' references, {who}", show(_by_speaker(items, "margin"), 3)),
    ]

"""How good a model's speech is: the parts of `benchmarks/quality.py`, each rows of a table and the figures behind it.

Knows the package's speakers and the judges, and the bars that the embedded voice is held to; knows nothing of files.
Everything here is measured against the teacher, flite's voice of the same name, reading the same words; real people
are in `quality_real.py`. A figure meets its bar by itself; its interval is printed beside it. Whatever is drawn at
random has a fixed seed.

Results name sentences by their numbers, from 0, and hold no words of theirs: held-out lists are others' to publish.
"""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llasa.codec import Codec
from llasa.data.synthesis import RATE
from llasa.data.teachers.flite import TEACHERS, Speaker, speak, speakers
from llasa.errors import LlasaError
from llasa.eval import judges, metrics, statistics
from llasa.eval.report import Row, percent, points, show
from llasa.speech import Speech
from llasa.text import normalise
from llasa.tts import NO_SOUND, Llasa
from llasa.verifiers import content
from llasa.voice import Voice

TEACHER = "rms"  # the default voice, and the flite voice that it learnt from
SEED = 20_000_003  # of the shifted speakers: a training corpus draws its own from small seeds
LONG, SHORT = 1.8, 0.6  # times the teacher's length: beyond these an utterance ran away or stopped early
CLONED = 60  # most speakers to clone


@dataclass
class Part:
    """What one part found: rows of the table, figures of every utterance, and sounds worth looking at."""

    rows: list[Row]
    items: list[dict[str, Any]]
    pictures: list[tuple[str, list[tuple[str, np.ndarray]]]] = field(default_factory=list)


def measure_words(tts: Llasa, sentences: list[str], pictures: int = 5) -> Part:
    """Word error rate by PocketSphinx, faulty lengths and DNSMOS of the voice; the teacher's for comparison.

    The default voice says every sentence, and the codec's copy of its teacher is transcribed too: what it adds is the
    codec's share of the voice's errors. The other teachers' presets, if the model has them, share the sentences out
    among themselves.
    """
    recognise = content.load().transcribe
    others = [name for name in TEACHERS if name != TEACHER and name in tts.voices()]
    readings = [(index, TEACHER) for index in range(len(sentences))]
    readings += [(index, others[index % len(others)]) for index in range(len(sentences) if others else 0)]
    sounds: list[dict[str, np.ndarray]] = []
    items: list[dict[str, Any]] = []
    for index, preset in readings:
        teacher, _, _ = speak(normalise(sentences[index]), Speaker(preset, preset))
        speech = say(tts, sentences[index], preset, index)
        samples = speech.samples if speech else np.zeros(0, np.float32)
        sound = {"teacher": teacher, "voice": samples}
        if preset == TEACHER:
            sound["copy"] = tts.codec.decode(tts.codec.encode(teacher))[: teacher.size]
        sounds.append(sound)
        length = samples.size / teacher.size
        faults = {
            "ran away": length > LONG,
            "stopped early": length < SHORT,
            "never ended": speech is not None and not all(speech.finished),
        }
        items.append({"sentence": index, "preset": preset, "length": length, "faults": faults})
    # One pool for all clips: its processes take seconds to start.
    found = iter(judges.spread(judges.hear, [clip for sound in sounds for clip in sound.values()]))
    for item, sound in zip(items, sounds, strict=True):
        sentence = sentences[item["sentence"]]
        for name, clip in sound.items():
            judged, spelt = next(found), recognise(clip)
            errors, item["words"] = metrics.word_errors(sentence, judged["heard"])
            own, _ = metrics.word_errors(sentence, spelt)
            letters, item["letters"] = metrics.letter_errors(sentence, spelt)
            item[name] = {"errors": errors, "dnsmos": judged["dnsmos"], "own_errors": own, "letter_errors": letters}
    main = items[: len(sentences)]
    by_length = sorted(range(len(main)), key=lambda i: len(sentences[i]))
    chosen = [by_length[len(main) * k // pictures] for k in range(pictures)]
    shown = [(f"sentence {i}", [(name, sounds[i][name]) for name in ("teacher", "voice")]) for i in chosen]
    rows = [*_word_rows(main), *_preset_rows(items[len(main) :]), *_own_rows(main)]
    return Part([*rows, *_fault_rows(items), *_opinion_rows(main)], items, shown)


def _word_rows(items: list[dict[str, Any]]) -> list[Row]:
    total = [item["words"] for item in items]
    teacher, copy, voice = ([item[name]["errors"] for item in items] for name in ("teacher", "copy", "voice"))
    above = statistics.error_rate_difference(voice, teacher, total)
    return [
        Row(f"word error rate, the teacher (flite {TEACHER})", percent(statistics.error_rate(teacher, total))),
        Row("word error rate, the codec's copy of the teacher", percent(statistics.error_rate(copy, total))),
        Row("word error rate, the voice", percent(statistics.error_rate(voice, total))),
        Row("the copy above the teacher, paired", points(statistics.error_rate_difference(copy, teacher, total))),
        Row("the voice above the teacher, paired", points(above), "at most 8 points", above.value <= 0.08),
    ]


def _preset_rows(items: list[dict[str, Any]]) -> list[Row]:
    """The other teachers' presets, each alone and all together; no rows without any."""
    names = list(dict.fromkeys(item["preset"] for item in items))
    rows = []
    for chosen in [*([name] for name in names), *([names] if len(names) > 1 else [])]:
        part = [item for item in items if item["preset"] in chosen]
        total = [item["words"] for item in part]
        voice, teacher = ([item[name]["errors"] for item in part] for name in ("voice", "teacher"))
        rates = [100 * sum(errors) / sum(total) for errors in (voice, teacher)]
        above = statistics.error_rate_difference(voice, teacher, total)
        held = ("at most 8 points", above.value <= 0.08) if chosen == names else ("", None)
        what = f"the voice above the teacher, paired, {', '.join(chosen)}, {len(part)} sentences"
        rows.append(Row(what, f"{points(above)}: {rates[0]:.1f} % and {rates[1]:.1f} %", *held))
    return rows


def _own_rows(items: list[dict[str, Any]]) -> list[Row]:
    rows = []
    total, letters = ([item[name] for item in items] for name in ("words", "letters"))
    for name, label in (("teacher", "the teacher"), ("copy", "the codec's copy"), ("voice", "the voice")):
        rate = statistics.error_rate([item[name]["own_errors"] for item in items], total)
        spelling = statistics.error_rate([item[name]["letter_errors"] for item in items], letters)
        held = ("at most 8 %", rate.value <= 0.08) if name == "voice" else ("", None)
        figure = f"{percent(rate)}; of letters {percent(spelling)}"
        rows.append(Row(f"word error rate by the recipe's own recogniser, {label}", figure, *held))
    voice, teacher = ([item[name]["own_errors"] for item in items] for name in ("voice", "teacher"))
    above = points(statistics.error_rate_difference(voice, teacher, total))
    rows.append(Row("the voice above the teacher by the recipe's own recogniser, paired", above))
    return rows


def _fault_rows(items: list[dict[str, Any]]) -> list[Row]:
    counts = {name: sum(item["faults"][name] for item in items) for name in items[0]["faults"]}
    detail = ", ".join(f"{count} {name}" for name, count in counts.items())
    faulty = statistics.share(sum(any(item["faults"].values()) for item in items), len(items))
    what = f"of {len(items)} utterances, the best of say's takes, those at fault"
    return [Row(what, f"{percent(faulty)}: {detail}", "at most 1 %", faulty.value <= 0.01)]


def _opinion_rows(items: list[dict[str, Any]]) -> list[Row]:
    rows = []
    for name, label in (("teacher", "the teacher"), ("copy", "the codec's copy"), ("voice", "the voice")):
        scores = [item[name]["dnsmos"] for item in items if math.isfinite(item[name]["dnsmos"])]
        rows.append(Row(f"DNSMOS, {label}", show(statistics.mean(scores)) if scores else "no sound"))
    pairs = [(item["teacher"]["dnsmos"], item["voice"]["dnsmos"]) for item in items]
    below = [teacher - voice for teacher, voice in pairs if math.isfinite(teacher) and math.isfinite(voice)]
    if below:
        gap = statistics.mean(below)
        rows.append(Row("DNSMOS, the voice below the teacher, paired", show(gap), "at most 0.3", gap.value <= 0.3))
    return rows


def say(tts: Llasa, sentence: str, voice: str | Voice, seed: int) -> Speech | None:
    """The speech, or None where no take made a sound: that is a finding here, not an error."""
    try:
        return tts.say(sentence, voice=voice, seed=seed)
    except LlasaError as error:
        if str(error) != NO_SOUND:
            raise
        return None


def measure_codec(codec: Codec, sentences: list[str]) -> Part:
    """The codec alone: every sentence is read by every teacher and by two unseen shifted speakers."""
    shifted = speakers(2 * len(sentences), SEED)[len(TEACHERS) :]
    readings = [(index, Speaker(name, name)) for index in range(len(sentences)) for name in TEACHERS]
    plain = len(readings)
    readings += [(i % len(sentences), speaker) for i, speaker in enumerate(shifted)]
    sounds = [speak(normalise(sentences[index]), speaker)[0] for index, speaker in readings]
    streams = [codec.encode(sound) for sound in sounds]
    figures = judges.spread(metrics.compare, sounds, [codec.decode(stream) for stream in streams])
    items: list[dict[str, Any]] = [
        {"sentence": index, "speaker": speaker.name, "seconds": sound.size / RATE, **figure}
        for (index, speaker), sound, figure in zip(readings, sounds, figures, strict=True)
    ]
    rows = []
    for label, part in (("teachers", items[:plain]), ("unseen shifted speakers", items[plain:])):
        for what, key, digits, least in (("STOI", "stoi", 3, 0.9), ("PESQ-WB", "pesq_wb", 2, 2.0)):
            found = mean_of(part, key)
            held = (f"at least {least:.2f}", found.value >= least) if label == "teachers" else ("", None)
            rows.append(Row(f"{what}, {label}", show(found, digits), *held))
        rows.append(Row(f"log-mel distance in nepers, {label}", show(mean_of(part, "mel_distance"))))
        rows.append(Row(f"voiced frames that lose their pitch, {label}", percent(mean_of(part, "pitch_error"))))
    for label, count in (("teachers", plain), ("teachers and shifted speakers", len(items))):
        used = metrics.codebook_usage(streams[:count], codec.codebook_size)
        minutes = sum(item["seconds"] for item in items[:count]) / 60
        share, rest = f"{100 * used.share:.1f} %", used.perplexity / used.size
        what = f"codes used, {label}, {minutes:.0f} min"
        rows.append(Row(what, f"{share} of {used.size:,}", "at least 95 %", used.share >= 0.95))
        figure = f"{used.perplexity:,.0f}, {rest:.3f} of the codebook"
        rows.append(Row(f"perplexity of the codes, {label}", figure, "at least a third", rest >= 1 / 3))
    return Part(rows, items)


def mean_of(items: list[dict[str, Any]], key: str) -> statistics.Interval:
    return statistics.mean([item[key] for item in items if math.isfinite(item[key])])


def measure_cloning(tts: Llasa, sentences: list[str]) -> Part:
    """Unseen shifted speakers, cloned from 3 to 10 s: is a clone nearer to its own reference than to the others'?

    The speakers themselves, reading the words that the clones say, show how far apart this judge can tell them.
    """
    items: list[dict[str, Any]] = []
    sounds: dict[str, list[np.ndarray]] = {"reference": [], "speaker": [], "clone": []}
    for index, speaker in enumerate(speakers(min(len(sentences), CLONED), SEED)[len(TEACHERS) :]):
        said, reference = _reference(sentences, index, speaker)
        other = (said + len(sentences) // 2) % len(sentences)
        speech = say(tts, sentences[other], tts.clone(reference, sentences[said], rate=RATE), index)
        sounds["reference"].append(reference)
        sounds["speaker"].append(speak(normalise(sentences[other]), speaker)[0])
        sounds["clone"].append(speech.samples if speech else np.zeros(0, np.float32))
        items.append({"speaker": speaker.name, "reference": said, "sentence": other})
    embedded = {name: np.stack([judges.speaker_embedding(clip) for clip in clips]) for name, clips in sounds.items()}
    rows = []
    for name, label in (("speaker", "the speakers themselves"), ("clone", "clones")):
        cosines = embedded[name] @ embedded["reference"].T
        own = np.diag(cosines)
        others = (cosines.sum(1) - own) / (len(items) - 1)
        for item, one, rest in zip(items, own.tolist(), others.tolist(), strict=True):
            item[name] = {"own": one, "others": rest}
        for what, figures, least in (
            ("similarity to the own reference", own, 0.75),
            (f"above that to the {len(items) - 1} others' references", own - others, 0.15),
        ):
            found = statistics.mean(figures)
            held = (f"at least {least:.2f}", found.value >= least) if name == "clone" else ("", None)
            rows.append(Row(f"{what}, {label}", show(found, 3), *held))
    return Part(rows, items)


def _reference(sentences: list[str], first: int, speaker: Speaker) -> tuple[int, np.ndarray]:
    """The first sentence, counted round from `first`, that takes this speaker 3 to 10 seconds, and its sound."""
    for index in [*range(first, len(sentences)), *range(first)]:
        sound, _, _ = speak(normalise(sentences[index]), speaker)
        if 3 * RATE <= sound.size <= 10 * RATE:
            return index, sound
    raise LlasaError("no sentence takes 3 to 10 seconds to read, as a reference should: give longer or shorter ones")


def measure_speed(tts: Llasa, sentences: list[str]) -> Part:
    """Wall-clock times of a warm model, one request at a time, on whatever cores this process may use."""
    for sentence in sentences[:2]:
        tts.say(sentence, voice=TEACHER, seed=0)
        next(tts.stream(sentence, voice=TEACHER, seed=0))
    items: list[dict[str, Any]] = []
    for index, sentence in enumerate(sentences):
        began = time.perf_counter()
        seconds = tts.say(sentence, voice=TEACHER, seed=index).seconds
        said = time.perf_counter()
        next(tts.stream(sentence, voice=TEACHER, seed=index))
        first = time.perf_counter() - said
        items.append({"sentence": index, "seconds": seconds, "say": said - began, "first_audio": first})
    factor = statistics.median([item["say"] / item["seconds"] for item in items])
    waits = [1000 * item["first_audio"] for item in items]
    wait = statistics.median(waits)
    first_audio = f"{show(wait, 0, ' ms')}, the longest {max(waits):.0f} ms"
    return Part(
        [
            Row("real-time factor of `say`, warm, median", show(factor), "at most 0.30", factor.value <= 0.3),
            Row("first audio of a stream, warm, median", first_audio, "at most 300 ms", wait.value <= 300),
        ],
        items,
    )

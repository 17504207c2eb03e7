"""Measures how a model runs: streams compared with the whole, the time that speaking takes, the size of its weights."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llasa.codec import Codec
from llasa.engine import fastest_backend
from llasa.errors import LlasaError
from llasa.measure import statistics
from llasa.measure.tables import Part, Row, show
from llasa.models.folder import find_codec
from llasa.models.hub import find_model
from llasa.tts import Llasa

PUSHED = 25  # codes at a time, half a second


def measure_stream(codec: Codec, sounds: Sequence[np.ndarray]) -> Part:
    """The difference of decoding in a stream from decoding at once, as noise. Only the codec runs, on recordings."""
    items = []
    for index, original in enumerate(sounds):
        codes = codec.encode(original)
        stream = codec.decode_stream()
        pieces = [stream.push(codes[start : start + PUSHED]) for start in range(0, len(codes), PUSHED)]
        streamed = np.concatenate([*pieces, stream.finish()])
        items.append({"sentence": index, "snr": snr(codec.decode(codes), streamed)})
    found = statistics.mean([item["snr"] for item in items])
    what = f"a stream against the whole, SNR, {len(items)} sentences"
    return Part([Row(what, show(found, 1, " dB"), "at least 40 dB", found.value >= 40)], items)


def snr(whole: np.ndarray, other: np.ndarray) -> float:
    """Signal-to-noise ratio in dB, at most 120, where the noise is the difference of the two."""
    power, noise = float(np.sum(np.square(whole, dtype=np.float64))), float(np.sum((whole - other) ** 2))
    return min(120.0, 10 * float(np.log10(max(power, 1e-20) / max(noise, 1e-20))))


def measure_speed(model: str, sentences: Sequence[str], preset: str) -> Part:
    """Wall-clock times of the backend that `llasa say` takes here, which has the bars, and of torch."""
    fastest = fastest_backend(1, "cpu")
    parts = [
        _measure_speed(model, name, sentences, preset, name == fastest) for name in dict.fromkeys((fastest, "torch"))
    ]
    return Part([row for part in parts for row in part.rows], [item for part in parts for item in part.items])


def _measure_speed(model: str, backend: str, sentences: Sequence[str], preset: str, has_bars: bool) -> Part:
    """Wall-clock times of a warm model, one request at a time, on the cores that this process may use."""
    tts = Llasa.load(model, device="cpu", backend=backend)
    for sentence in sentences[:2]:
        tts.say(sentence, voice=preset, seed=0)
        next(tts.stream(sentence, voice=preset, seed=0))
    items: list[dict[str, Any]] = []
    for index, sentence in enumerate(sentences):
        began = time.perf_counter()
        seconds = tts.say(sentence, voice=preset, seed=index).seconds
        said = time.perf_counter()
        next(tts.stream(sentence, voice=preset, seed=index))
        first = time.perf_counter() - said
        times = {"seconds": seconds, "say": said - began, "first_audio": first}
        items.append({"backend": backend, "sentence": index, **times})
    factor = statistics.median([item["say"] / item["seconds"] for item in items])
    waits = [1000 * item["first_audio"] for item in items]
    wait = statistics.median(waits)
    first_audio = f"{show(wait, 0, ' ms')}, the longest {max(waits):.0f} ms"
    bars = (("at most 0.14", factor.value <= 0.14), ("at most 80 ms", wait.value <= 80)) if has_bars else ((), ())
    rows = [
        Row(f"real-time factor of `say` by {backend}, warm, median", show(factor), *bars[0]),
        Row(f"first audio of a stream by {backend}, warm, median", first_audio, *bars[1]),
    ]
    return Part(rows, items)


def measure_start(model: str, sentence: str, times: int) -> Part:
    """The time of the command in a process of its own, with its files in the page cache."""
    cold = sorted(_start(model, sentence) for _ in range(times))
    what = f"`llasa say` from its start to the file, one sentence, median of {times} (and their range)"
    figure = f"{cold[times // 2]:.1f} s ({cold[0]:.1f} to {cold[-1]:.1f})"
    return Part([Row(what, figure)], [{"sentence": 0, "cold_starts": cold}])


def _start(model: str, sentence: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "said.wav")
        llasa = str(Path(sys.executable).with_name("llasa"))
        began = time.perf_counter()
        command = [llasa, "say", sentence, "--model", model, "-o", str(output)]
        result = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - began
        if result.returncode or not output.exists():
            raise LlasaError(f"`llasa say` failed: {result.stderr.strip()[-200:]}")
    return seconds


def measure_size(model: str) -> Part:
    """The size of all files in the folders of the language model, its codec and the recogniser beside it."""
    folder = find_model(model)
    parts = {folder.resolve(), find_codec(folder).resolve(), (folder.parent / "recogniser").resolve()}
    files = {path for part in parts for path in part.rglob("*") if path.is_file()}
    size = sum(path.stat().st_size for path in files) / 2**20
    what = f"all {sum(part.is_dir() for part in parts)} folders of weights"
    return Part([Row(what, f"{size:.1f} MiB", "at most 64 MiB", size <= 64)], [{"mib": size}])

"""Measures decoding in a stream and in windows against decoding whole, and encoding in windows against encoding whole.

    python benchmarks/codec_stream.py [--codec FOLDER] [AUDIO ...]

Without audio files, flite reads a passage in four voices. Writes benchmarks/results/codec_stream.md.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import machine
import numpy as np

from llasa import audio
from llasa.codec import Codec, StreamDecoder
from llasa.codec import codec as codec_module
from llasa.codec.stream import CONTEXT, LOOKAHEAD
from llasa.data.synthesis import TEACHERS, Speaker, speak
from llasa.eval.metrics import mel_distance
from llasa.eval.report import write_text

RESULTS = Path(__file__).parent / "results" / "codec_stream.md"
PASSAGE = (
    "The ferry left the harbour a little before seven. Nobody on deck said much, and the gulls followed us as far as "
    "the lighthouse. By noon the wind had turned, so the captain chose the longer way around the island. We ate bread "
    "and cold soup, played two games of chess, and watched the rain come closer over the water."
)
FIRST = 16000  # samples, the first second of a stream
# Codes a push, of context, of look-ahead. The first is what `decode_stream` does when fed half a second at a time.
SETTINGS = [
    (25, CONTEXT, LOOKAHEAD), (10, CONTEXT, LOOKAHEAD), (50, CONTEXT, LOOKAHEAD),
    (25, 25, LOOKAHEAD), (25, 50, LOOKAHEAD), (25, 200, LOOKAHEAD), (25, 400, LOOKAHEAD),
    (25, CONTEXT, 0), (25, CONTEXT, 2), (25, CONTEXT, 5), (25, CONTEXT, 20),
]  # fmt: skip


def pushed(codec: Codec, codes: np.ndarray, chunk: int, context: int, lookahead: int) -> Iterator[np.ndarray]:
    """The pieces that come out of a stream fed `chunk` codes at a time."""
    stream = StreamDecoder(codec, context, lookahead)
    for start in range(0, len(codes), chunk):
        yield stream.push(codes[start : start + chunk])
    yield stream.finish()


def snr(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal to noise in dB, the difference of the two being the noise."""
    return float(10 * np.log10(np.sum(reference**2) / max(1e-20, float(np.sum((reference - other) ** 2)))))


def spectra(samples: np.ndarray) -> np.ndarray:
    """Log power in dB of 20 ms frames every 5 ms, none more than 60 dB below the loudest bin of all."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 320)[::80] * np.hanning(320)
    power = np.abs(np.fft.rfft(frames)) ** 2
    return 10 * np.log10(np.maximum(power, power.max() * 1e-6))


def compare(recording: np.ndarray, whole: np.ndarray, pieces: list[np.ndarray]) -> list[float]:
    """What the columns of the table say, for one recording."""
    stream = np.concatenate(pieces)
    assert len(stream) == len(whole)
    distance = np.sqrt(np.mean((spectra(whole) - spectra(stream)) ** 2, axis=1))
    joins = np.cumsum([len(piece) for piece in pieces if len(piece)])[:-1]
    centres = np.arange(len(distance)) * 80 + 160
    # The crossfade takes 20 ms after the join, and a frame is 20 ms long.
    near = np.any((centres[:, None] > joins - 160) & (centres[:, None] < joins + 480), axis=1)
    return [
        snr(whole, stream),
        snr(whole[:FIRST], stream[:FIRST]),
        float(np.abs(whole - stream).max()),
        float(distance[near].mean()),
        float(distance[~near].mean()),
        mel_distance(recording, stream) - mel_distance(recording, whole),
    ]


def primed(codec: Codec, codes: np.ndarray, whole: np.ndarray) -> tuple[float, float]:
    """SNR of the first second of a stream that starts after 100 codes: not told of them, and told."""
    rest = whole[100 * codec.hop :][:FIRST]
    heard = []
    for before in (None, codes[:100]):
        stream = codec.decode_stream(before)
        heard.append(np.concatenate([stream.push(codes[k : k + 25]) for k in range(100, 200, 25)])[:FIRST])
    return snr(rest, heard[0]), snr(rest, heard[1])


def latency(codec: Codec, codes: np.ndarray, chunk: int) -> float:
    """Milliseconds from a push of `chunk` codes to its samples, when the context is full; the median of 20."""
    stream = StreamDecoder(codec)
    stream.push(codes[:200])
    times = []
    for start in range(20):
        begin = time.perf_counter()
        stream.push(codes[start : start + chunk])
        times.append(time.perf_counter() - begin)
    return 1000 * median(times)


def windowed_agreement(codec: Codec, recordings: list[np.ndarray]) -> tuple[float, float, int]:
    """Of the recordings, joined into one: share of equal codes, SNR of the decoded sound, whole against windows."""
    samples = np.concatenate(recordings)
    codes = codec.encode(samples)
    sound = codec.decode(codes)
    codec_module.WINDOW, window = len(codes), codec_module.WINDOW
    whole = codec.encode(samples)
    codec_module.WINDOW = window
    return float(np.mean(codes == whole)), snr(codec.decode_window(codes.astype(np.int64)), sound), len(codes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", nargs="*", type=Path, help="recordings of 3 to 20 s; default: flite reads a passage")
    parser.add_argument("--codec", default="tiny", help="codec folder, hub id, or a language model's name")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    codec = Codec.load(arguments.codec)
    recordings = [audio.load(path) for path in arguments.audio]
    recordings = recordings or [speak(PASSAGE, Speaker(name, name))[0] for name in TEACHERS]
    encoded = [codec.encode(recording) for recording in recordings]
    wholes = [codec.decode_window(codes.astype(np.int64)) for codes in encoded]
    seconds = sum(map(len, recordings)) / codec.rate

    loss = np.mean([mel_distance(*pair) for pair in zip(recordings, wholes, strict=True)])

    lines = [
        f"# Streaming decoder against decoding whole: {Path(arguments.codec).name}\n",
        f"{len(recordings)} recordings, {seconds:.0f} s. The SNR takes for noise what distinguishes the stream's",
        "samples from those of decoding all codes at once; spectral distances, at joins and elsewhere, are root mean",
        "squares over 20 ms frames and 60 dB. The last column is how much farther the stream lies from the recording",
        f"than the whole does, which lies {loss:.4f} nepers from it.\n",
        "| codes a push | context | look-ahead | SNR, dB | first second | largest difference | joins, dB "
        "| elsewhere, dB | mel distance |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for chunk, context, lookahead in SETTINGS:
        figures = [
            compare(recording, whole, list(pushed(codec, codes, chunk, context, lookahead)))
            for recording, whole, codes in zip(recordings, wholes, encoded, strict=True)
        ]
        ratio, first, largest, near, far, extra = np.mean(figures, axis=0)
        lines.append(
            f"| {chunk} | {context} | {lookahead} | {ratio:.1f} | {first:.1f} | {largest:.3f} | {near:.2f} | {far:.2f} "
            f"| {extra:+.4f} |"
        )
    plain, told = np.mean([primed(codec, *pair) for pair in zip(encoded, wholes, strict=True)], axis=0)
    agreement, ratio, count = windowed_agreement(codec, recordings)
    lines += [
        "\n| from a push to its samples, context full | ms |\n|---|---|",
        *(f"| {chunk} codes | {latency(codec, np.concatenate(encoded), chunk):.1f} |" for chunk in (10, 25, 50)),
        f"\nFirst second of a stream that starts 2 s into a recording: SNR {plain:.1f} dB; given the codes before it,",
        f"{told:.1f} dB.",
        f"\nThe recordings joined, {count} codes, in windows against all at once: {100 * agreement:.2f} % of codes",
        f"equal; SNR of the sound {ratio:.1f} dB.\n",
        *(f"- {name}: {fact}" for name, fact in machine.describe().items()),
    ]
    write_text(arguments.output, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""Compares decoding in a stream with decoding at once, and windows of long recordings with the whole.

    python benchmarks/codec_stream.py [--codec FOLDER] [--joined FOLDER] [AUDIO ...]

Without audio files, flite reads a passage in four voices, and a longer one for the windows. Writes
benchmarks/results/codec_stream.md.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from unittest.mock import patch

import machine
import numpy as np

from llasa import audio
from llasa.codec import Codec, load_codec
from llasa.codec import codec as codec_module
from llasa.codec.streaming import CONTEXT, LOOKAHEAD, StreamDecoder
from llasa.data.teachers.flite import TEACHERS, Speaker, speak
from llasa.measure import statistics
from llasa.measure.metrics import mel_distance, stoi
from llasa.measure.tables import show, write_text

RESULTS = Path(__file__).parent / "results" / "codec_stream.md"
PASSAGE = (
    "The ferry left the harbour a little before seven. Nobody on deck said much, and the gulls followed us as far as "
    "the lighthouse. By noon the wind had turned, so the captain chose the longer way around the island. We ate bread "
    "and cold soup, played two games of chess, and watched the rain come closer over the water."
)
# Read one by one, then joined: recordings of about a minute whose clips are known.
STORY = [
    *PASSAGE.split(". "),
    "In the evening the clouds broke, and a narrow band of yellow light lay along the coast",
    "Somebody had found an old accordion below, and its owner could not be persuaded to stop",
    "My neighbour told me that she had made this journey every spring since she was a child",
    "Then there had been no lighthouse, only a fire on the rocks, which two brothers looked after",
    "When the younger one left for the city, the elder kept it burning alone for thirty years",
    "She asked whether I believed that, and I said that I would rather believe it than not",
    "Towards midnight the engines slowed, and we heard the chains run out before we saw any land",
    "A boy with a lantern counted us as we walked down to the pier, and he counted one too many",
]
LENGTH = 120 * 16000  # samples of a recording joined from the clips of a folder, two of which are made
# Windows and context, in codes: those of the codec beyond a minute, without context, and smaller ones.
PRESENT = (codec_module.WINDOW, codec_module.CONTEXT)
WINDOWS = [PRESENT, (PRESENT[0], 0), (PRESENT[0] // 2, PRESENT[1])]
Grid = Callable[[int], list[tuple[int, int]]]
GRID: Grid = codec_module.windows
FIRST = 16000  # samples, the first second of a stream
# Codes in a push, in the context and in the look-ahead. The first line is `decode_stream` with half a second a push.
SETTINGS = [
    (25, CONTEXT, LOOKAHEAD), (10, CONTEXT, LOOKAHEAD), (50, CONTEXT, LOOKAHEAD),
    (25, 25, LOOKAHEAD), (25, 50, LOOKAHEAD), (25, 200, LOOKAHEAD), (25, 400, LOOKAHEAD),
    (25, CONTEXT, 0), (25, CONTEXT, 2), (25, CONTEXT, 5), (25, CONTEXT, 20),
]  # fmt: skip


def pushed(codec: Codec, codes: np.ndarray, chunk: int, context: int, lookahead: int) -> Iterator[np.ndarray]:
    """The pieces from a stream that gets `chunk` codes at a time."""
    stream = StreamDecoder(codec, context, lookahead)
    for start in range(0, len(codes), chunk):
        yield stream.push(codes[start : start + chunk])
    yield stream.finish()


def snr(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal-to-noise ratio in dB, where the noise is the difference of the two."""
    return float(10 * np.log10(np.sum(reference**2) / max(1e-20, float(np.sum((reference - other) ** 2)))))


def spectra(samples: np.ndarray) -> np.ndarray:
    """Log power in dB of 20 ms frames every 5 ms, none more than 60 dB below the loudest bin of all."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 320)[::80] * np.hanning(320)
    power = np.abs(np.fft.rfft(frames)) ** 2
    return 10 * np.log10(np.maximum(power, power.max() * 1e-6))


def compare(recording: np.ndarray, whole: np.ndarray, pieces: list[np.ndarray]) -> list[float]:
    """The columns of the table for one recording."""
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
    """SNR of the first second of a stream that starts after 100 codes, without and with these as context."""
    rest = whole[100 * codec.hop :][:FIRST]
    heard = []
    for before in (None, codes[:100]):
        stream = codec.decode_stream(before)
        heard.append(np.concatenate([stream.push(codes[k : k + 25]) for k in range(100, 200, 25)])[:FIRST])
    return snr(rest, heard[0]), snr(rest, heard[1])


def latency(codec: Codec, codes: np.ndarray, chunk: int) -> float:
    """Milliseconds from a push of `chunk` codes to its samples with a full context; the median of 20."""
    stream = StreamDecoder(codec)
    stream.push(codes[:200])
    times = []
    for start in range(20):
        begin = time.perf_counter()
        stream.push(codes[start : start + chunk])
        times.append(time.perf_counter() - begin)
    return 1000 * median(times)


def joined(folder: Path) -> list[list[np.ndarray]]:
    """The clips of two long recordings, from the first files of a folder in the order of their names."""
    paths = iter(sorted(path for path in folder.iterdir() if path.suffix in (".flac", ".wav")))
    recordings: list[list[np.ndarray]] = [[], []]
    for clips in recordings:
        while sum(map(len, clips)) < LENGTH:
            clips.append(audio.load(next(paths)))
    return recordings


def shifted(total: int) -> list[tuple[int, int]]:
    """The codec's windows, moved by half a window, so that joins fall into the middle of a window."""
    starts = [start for start, _ in GRID(total)]
    edges = [0, *(start + total // len(starts) // 2 for start in starts), total]
    return list(pairwise(edges))


def copied(
    codec: Codec, samples: np.ndarray, window: int, context: int, grid: Grid = GRID
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Codes made in windows, the sound decoded in the same windows, and the positions of the joins in samples."""
    with patch.multiple(codec_module, WHOLE=0, WINDOW=window, CONTEXT=context, windows=grid):
        codes = codec.encode(samples)
        ends = [stop * codec.hop for _, stop in grid(len(codes))[:-1]]
        return codes, codec.decode(codes)[: len(samples)], ends


def clip_by_clip(codec: Codec, clips: list[np.ndarray]) -> np.ndarray:
    """Copies of the clips, each made alone, joined."""
    return np.concatenate([codec.decode(codec.encode(clip))[: len(clip)] for clip in clips])


def quality(codec: Codec, name: str, recordings: list[list[np.ndarray]]) -> list[str]:
    """Rows of the table of copies: averages over recordings, which are given as lists of clips."""
    wholes = [np.concatenate(clips) for clips in recordings]
    minutes = sum(map(len, wholes)) / codec.rate / 60
    ways: dict[str, tuple[int, int] | None] = {"clip by clip": None, "all in one pass": (max(map(len, wholes)), 0)}
    ways |= {f"windows of {window}, context {context}": (window, context) for window, context in WINDOWS}
    lines: list[str] = []
    passes: list[np.ndarray] = []
    for way, setting in ways.items():
        begin = time.process_time()
        if setting:
            made = [copied(codec, whole, *setting) for whole in wholes]
            codes, copies = [copy[0] for copy in made], [copy[1] for copy in made]
        else:
            codes, copies = [], [clip_by_clip(codec, clips) for clips in recordings]
        cost = (time.process_time() - begin) / minutes
        passes = passes or codes  # the one pass comes before the windows
        equal = f"{100 * np.mean(np.concatenate(codes) == np.concatenate(passes)):.1f} %" if codes else ""
        figures = [(stoi(*pair), mel_distance(*pair)) for pair in zip(wholes, copies, strict=True)]
        heard, distance = np.mean(figures, axis=0)
        lines.append(f"| {name} | {way} | {heard:.4f} | {distance:.4f} | {equal} | {cost:.1f} |")
    return lines


def at_joins(codec: Codec, name: str, recordings: list[list[np.ndarray]]) -> list[str]:
    """Rows of the table of joins: the second around a join against the same second amid a window."""
    lines = []
    for window, context in WINDOWS[:2]:
        figures = []
        for clips in recordings:
            whole = np.concatenate(clips)
            copies = [copied(codec, whole, window, context, grid)[1:] for grid in (GRID, shifted)]
            for (joint, joins), (smooth, _) in (copies, copies[::-1]):
                for join in joins:
                    second = slice(max(0, join - codec.rate // 2), join + codec.rate // 2)
                    pairs = [(whole[second], copy[second]) for copy in (joint, smooth)]
                    figures.append([measure(*pair) for measure in (mel_distance, stoi) for pair in pairs])
        # STOI is undefined for a second without speech.
        mels, calm_mels, stois, calm_stois = np.array([row for row in figures if np.isfinite(row).all()]).T
        cells = [f"{name} | {window}, {context} | {len(mels)}"]
        for at, amid in ((mels, calm_mels), (stois, calm_stois)):
            cells.append(f"{at.mean():.3f} | {amid.mean():.3f} | {show(statistics.mean(at - amid), 3)}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def windows_section(codec: Codec, kinds: dict[str, list[list[np.ndarray]]]) -> list[str]:
    """The two tables, kinds of recordings by name."""
    lengths = [sum(map(len, clips)) / codec.rate for recordings in kinds.values() for clips in recordings]
    lines = [
        "\n## Windows on long recordings\n",
        f"{len(lengths)} recordings of {min(lengths):.0f} to {max(lengths):.0f} s, clips joined, encoded and decoded",
        "in windows of so many codes with so many beside them; every figure compares a copy with the original. Equal",
        "codes are those that one pass over the whole recording gives as well. Seconds are the processor's, for each",
        "minute of sound. Up to a minute the codec makes no windows; beyond, those of the third row.\n",
        "| recordings | copy | STOI | mel distance | equal codes | s a minute |\n|---|---|---|---|---|---|",
    ]
    for name, recordings in kinds.items():
        lines += quality(codec, name, recordings)
    lines += [
        "\nSeams: the second around each join, and the same second copied in windows moved by half of one, where it is",
        "far from any join. Differences with their 95 % interval; a seam would raise the distance and lower STOI.\n",
        "| recordings | window, context | joins | mel distance, at joins | amid windows | difference | STOI, at joins "
        "| amid windows | difference |\n|---|---|---|---|---|---|---|---|---|",
    ]
    for name, recordings in kinds.items():
        lines += at_joins(codec, name, recordings)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", nargs="*", type=Path, help="recordings of 3 to 20 s; default: flite reads a passage")
    parser.add_argument(
        "--joined", action="append", default=[], type=Path, help="a folder of clips to make long recordings of as well"
    )
    parser.add_argument("--codec", default="tiny", help="codec folder, hub id, or a language model's name")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    codec = load_codec(arguments.codec)
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
    plain, warm = np.mean([primed(codec, *pair) for pair in zip(encoded, wholes, strict=True)], axis=0)
    kinds = {"flite": [[speak(text, Speaker(name, name))[0] for text in STORY] for name in TEACHERS]}
    kinds |= {folder.name: joined(folder) for folder in arguments.joined}
    lines += [
        "\n| from a push to its samples, context full | ms |\n|---|---|",
        *(f"| {chunk} codes | {latency(codec, np.concatenate(encoded), chunk):.1f} |" for chunk in (10, 25, 50)),
        f"\nFirst second of a stream that starts 2 s into a recording: SNR {plain:.1f} dB; given the codes before it,",
        f"{warm:.1f} dB.",
        *windows_section(codec, kinds),
        "",
        *(f"- {name}: {fact}" for name, fact in machine.describe().items()),
    ]
    write_text(arguments.output, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

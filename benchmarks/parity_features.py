"""The part `features` of parity.py: compares the semantic encoder's features with transformers' feature extractor.

Batches have 16 clips of 10 s from the recordings, every other one cut to an odd length. Both sides compute the same
clips in turns, on torch's number of threads, after a warm-up round.
"""

import time
from statistics import median

import numpy as np
import torch
from parity_rows import Options, Row
from transformers import SeamlessM4TFeatureExtractor

from llasa.codec.features import HOP, RATE, mel_features

BATCH, SECONDS, ROUNDS = 16, 10, 7
CLOSE = 1e-4


def run(options: Options) -> tuple[list[Row], str]:
    """The largest difference of features and masks, in a batch and one by one, and the time that each took."""
    clips = _clips(options.speech)
    lengths = [len(clip) for clip in clips]
    batch = torch.zeros(BATCH, max(lengths))
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    extractor = SeamlessM4TFeatureExtractor()
    padded = [_pad(clip) for clip in clips]

    ours, theirs = [], []
    for turn in range(ROUNDS + 1):
        began = time.perf_counter()
        features, mask = mel_features(batch, lengths)
        between = time.perf_counter()
        expected = extractor(padded, sampling_rate=RATE, return_tensors="np")
        if turn:
            ours.append(between - began)
            theirs.append(time.perf_counter() - between)

    difference = float(np.abs(features.numpy() - expected["input_features"]).max())
    equal = float((mask.numpy() == expected["attention_mask"]).mean())
    single = 0.0
    for clip, wave in zip(clips, padded, strict=True):
        alone = extractor(wave, sampling_rate=RATE, return_tensors="np")["input_features"]
        single = max(single, float(np.abs(mel_features(torch.from_numpy(clip))[0].numpy() - alone).max()))
    against = "transformers' SeamlessM4TFeatureExtractor"
    rows = [
        Row(f"log-mel features, {BATCH} clips in a batch, and its mask", against, difference, equal, CLOSE, True),
        Row(f"log-mel features, {BATCH} clips one by one", against, single, bound=CLOSE),
    ]
    ratio = median(theirs) / median(ours)
    return rows, (
        f"A batch of {BATCH} clips of up to {SECONDS} s: {1000 * median(ours):.0f} ms here, "
        f"{1000 * median(theirs):.0f} ms there, **{ratio:.1f} times** faster (medians of {ROUNDS} rounds in turns)."
    )


def _clips(speech: np.ndarray) -> list[np.ndarray]:
    """Pieces of the recordings from places spread over them, every other one cut to an odd length."""
    speech = np.resize(speech, max(len(speech), RATE * SECONDS)).astype(np.float32)
    starts = np.linspace(0, len(speech) - RATE * SECONDS, BATCH).astype(int)
    lengths = [RATE * SECONDS - (4321 * i) * (i % 2) for i in range(BATCH)]
    return [speech[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def _pad(clip: np.ndarray) -> np.ndarray:
    """X-codec2's padding: a zero, zeros up to a hop, and half a hop at both ends."""
    whole = np.append(clip, np.float32(0))
    return np.pad(whole, (HOP // 2, -len(whole) % HOP + HOP // 2))

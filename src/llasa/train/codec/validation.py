"""Measures a codec on held-out speech while it trains, and draws spectrograms."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Xcodec2Model

from llasa.codec.features import acoustic_input, mel_features
from llasa.data.shards import read_rows, row_audio, shard_files
from llasa.measure.metrics import codebook_usage
from llasa.train.codec.spectral import log_mel


def resynthesise(model: Xcodec2Model, samples: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
    """Encodes and decodes: returns samples of the same length, and the codes (1, frames)."""
    wave = torch.from_numpy(samples).to(model.device)
    features, _ = mel_features(wave)
    codes = model.encode(acoustic_input(wave), features).audio_codes
    made = model.decode(codes).audio_values[0, 0, : len(samples)]
    return made.float().cpu().numpy(), codes[0].cpu()


@torch.no_grad()
def validate(model: Xcodec2Model, folders: list[Path], out: Path, step: int, count: int = 8) -> dict[str, float]:
    """Measures STOI, PESQ-WB and log-mel distance over `count` held-out utterances of each folder.

    The use of the codebook is measured over eight times as many. Also writes `validation/STEP.png`: three spectrograms
    above their reconstructions.
    """
    import pesq
    import pystoi

    was_training = model.training
    model.eval()
    figures: dict[str, float] = {}
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    codes: list[np.ndarray] = []
    for folder in folders:
        rows = [row for file in shard_files(folder)[:1] for row in read_rows(file)][: 8 * count]
        scores: dict[str, list[float]] = {"stoi": [], "pesq": [], "mel": []}
        for index, row in enumerate(rows):
            real = row_audio(row)
            made, found = resynthesise(model, real)
            codes.append(found.flatten().numpy())
            if index >= count:
                continue
            scores["stoi"].append(float(pystoi.stoi(real, made, 16000)))
            scores["pesq"].append(_pesq(pesq, real, made))
            pair = torch.from_numpy(np.stack([real, made]))
            mels = log_mel(pair)
            scores["mel"].append(float((mels[0] - mels[1]).abs().mean()))
            if index < 3:
                shown.append((real, made))
        figures |= {f"{folder.name}/{key}": float(np.nanmean(values)) for key, values in scores.items()}
    size = int(model.quantizer.quantizer.codebook.shape[0])
    usage = codebook_usage(codes, size)
    figures |= {"used": usage.share, "perplexity": usage.perplexity}
    picture(shown[:3], out / "validation" / f"{step:06d}.png")
    model.train(was_training)
    return figures


def _pesq(module: Any, real: np.ndarray, made: np.ndarray) -> float:
    """PESQ wide-band; NaN if it finds no speech to score."""
    try:
        return float(module.pesq(16000, real, made, "wb"))
    except module.PesqError:
        return float("nan")


def picture(pairs: list[tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Log-mel spectrograms of (original, reconstruction) pairs, one pair a column."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(pairs), figsize=(5 * len(pairs), 5), squeeze=False)
    for column, pair in enumerate(pairs):
        for row, (samples, name) in enumerate(zip(pair, ("original", "codec"), strict=True)):
            mels = log_mel(torch.from_numpy(samples)[None])[0].T
            axes[row][column].imshow(mels, origin="lower", aspect="auto", vmin=-4, vmax=1)
            axes[row][column].set_title(name)
    width = 5 * len(pairs)  # a layout that fits itself takes half as long again
    figure.subplots_adjust(left=0.45 / width, right=1 - 0.2 / width, bottom=0.06, top=0.93, wspace=0.15, hspace=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    pyplot.close(figure)

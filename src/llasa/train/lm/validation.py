"""Measures a language model while it trains: its loss on held-out speech, and how well its heads align."""

import itertools
from pathlib import Path

import torch

from llasa.train.lm.data import Pack
from llasa.train.lm.stage import Trainer, alike


def validate(trainer: Trainer, held_out: list[Pack], out: Path, step: int) -> dict[str, float]:
    """The figures of `measure`. Also draws the attention of the last pointing head."""
    figures, pictures = measure(trainer, held_out)
    if trainer.settings.losses.pointing_heads:
        picture(pictures, out / "validation" / f"{step:06d}.png")
    return figures


@torch.no_grad()
def measure(trainer: Trainer, held_out: list[Pack]) -> tuple[dict[str, float], list[torch.Tensor]]:
    """Measures the loss a token, of speech and of text if there is any, and how often pointing heads are right.

    A head is right if it attends to the right place or to one next to it.

    Returns:
        The figures, and the attention of the last pointing head in the first three samples that have pointers.
    """
    trainer.eval()
    near = known = 0.0
    sums = {"speech": [0.0, 0.0], "text": [0.0, 0.0]}
    pictures: list[torch.Tensor] = []
    for pack in held_out:
        terms_of = trainer(pack)
        counts = {"speech": (pack.labels >= 0) & ~pack.chat, "text": pack.chat}
        for name, own in counts.items():
            if own.any():
                sums[name][0] += float(terms_of[name]) * int(own.sum())
                sums[name][1] += int(own.sum())
    if trainer.settings.losses.pointing_heads:
        layer, head = trainer.settings.losses.pointing_heads[-1]
        for pack in held_out[:2]:
            trainer.hidden(pack)
            for where, targets in alike(pack):
                attention = trainer.scores(layer, head, where).softmax(-1)
                mask = targets >= 0
                near += float(((attention.argmax(-1) - targets).abs() <= 1)[mask].sum())
                known += float(mask.sum())
                shown = itertools.islice(zip(attention, targets, mask, strict=True), 3 - len(pictures))
                pictures += [one[own, : int(to.max()) + 2].cpu() for one, to, own in shown]
        trainer.seen.clear()
    trainer.train()
    text = {"text": sums["text"][0] / sums["text"][1]} if sums["text"][1] else {}
    speech = {"loss": sums["speech"][0] / max(1, sums["speech"][1])}
    return speech | text | {"pointing_right": near / max(1, known)}, pictures


def picture(attentions: list[torch.Tensor], path: Path) -> None:
    """Draws the attention from speech frames (across) to characters (up). A diagonal shows that they are aligned."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, max(1, len(attentions)), figsize=(15, 4), squeeze=False)
    for axis, attention in zip(axes[0], attentions, strict=False):
        axis.imshow(attention.T.float(), origin="lower", aspect="auto", vmin=0, vmax=1)
        axis.set_xlabel("speech frame")
        axis.set_ylabel("text token")
    figure.subplots_adjust(left=0.05, right=0.98, bottom=0.14, top=0.96)  # a layout that fits itself takes longer
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=60)
    pyplot.close(figure)

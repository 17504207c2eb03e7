"""How good a language model is while it trains: its loss on held-out speech, and where its pointing heads look."""

from pathlib import Path

import torch

from llasa.train.lm import Trainer
from llasa.train.lm_data import Pack


@torch.no_grad()
def validate(trainer: Trainer, held_out: list[Pack], out: Path, step: int) -> dict[str, float]:
    """Loss a token of speech, and of text if there is any; how often pointing heads look next to the right place."""
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
    if trainer.settings.pointing_heads:
        layer, head = trainer.settings.pointing_heads[-1]
        for pack in held_out[:2]:
            trainer.model.model(
                input_ids=pack.ids[None], position_ids=pack.positions[None], bounds=pack.bounds, use_cache=False
            )
            for a, b in zip(pack.bounds, pack.bounds[1:], strict=False):
                pointers = pack.pointers[a:b]
                mask = pointers >= 0
                if mask.any():
                    attention = trainer.scores(pack, layer, head, a, b).softmax(-1)[mask]
                    near += float(((attention.argmax(-1) - (pointers[mask] - a)).abs() <= 1).sum())
                    known += float(mask.sum())
                    pictures.append(attention[:, : int((pointers.max() - a) + 2)])
        trainer.seen.clear()
        picture(pictures[:3], out / "validation" / f"{step:06d}.png")
    trainer.train()
    text = {"text": sums["text"][0] / sums["text"][1]} if sums["text"][1] else {}
    return {"loss": sums["speech"][0] / max(1, sums["speech"][1])} | text | {"pointing_right": near / max(1, known)}


def picture(attentions: list[torch.Tensor], path: Path) -> None:
    """The attention of speech frames (across) over characters (up): where speech is aligned to text, a diagonal."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, max(1, len(attentions)), figsize=(15, 4), squeeze=False)
    for axis, attention in zip(axes[0], attentions, strict=False):
        axis.imshow(attention.T.float(), origin="lower", aspect="auto", vmin=0, vmax=1)
        axis.set_xlabel("speech frame")
        axis.set_ylabel("text token")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=60)
    pyplot.close(figure)

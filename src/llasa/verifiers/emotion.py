"""What is felt: emotion2vec+ (arXiv 2312.15185) through funasr.

Either how like the reference's emotion the speech's is (the cosine of their embeddings), or how probable an emotion is
that is asked for by name. A model's folder is funasr's: `config.yaml`, `configuration.json`, `model.pt`, `tokens.txt`.
"""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from llasa.errors import LlasaError, need_extra
from llasa.loading import check_device, first_line
from llasa.verifiers.likeness import Likeness, is_judged
from llasa.verifiers.protocol import Verifier
from llasa.verifiers.weights import find_weights

DEFAULT = "emotion2vec/emotion2vec_plus_large"
LABELS = ("angry", "disgusted", "fearful", "happy", "neutral", "other", "sad", "surprised")


def load(choice: str | None = None, device: str = "cpu") -> Verifier:
    """The verifier of the reference's emotion, or of a named one.

    Args:
        choice: one of `LABELS`, a model (folder or hub id), or both as `happy:MODEL`.

    Raises:
        LlasaError: the package is missing, there is no such emotion or model, or the hub cannot be reached.
    """
    need_extra("emotion", "funasr")
    name = "emotion" if choice is None else f"emotion:{choice}"
    label, _, model = (choice or "").partition(":")
    if label not in LABELS:
        label, model = "", choice or ""
        if model.isalpha() and not Path(model).is_dir():
            raise LlasaError(f"there is no emotion called {model}: pass one of {', '.join(LABELS)}, or a model")
    ear = _load_ear(model or DEFAULT, check_device(device))
    if label:
        known = [_english(token) for token in getattr(ear.kwargs["tokenizer"], "token_list", [])]
        if label not in known:
            raise LlasaError(f"{model or DEFAULT} cannot tell whether speech is {label}: use an emotion2vec+ model")
        return Emotion(name, ear, label)
    return Likeness(name, lambda audios: np.stack([heard["feats"] for heard in listen(ear, audios)]))


class Emotion:
    """The probability of one emotion among the model's; 0 for silence and below half a second.

    The model takes the mean over time, so that a fragment can be judged too.
    """

    process = True
    needs_text = False
    needs_reference = False

    def __init__(self, name: str, ear: Any, label: str) -> None:
        self.name, self._ear, self._label = name, ear, label

    def score(
        self,
        texts: Sequence[str],
        audios: Sequence[np.ndarray],
        references: Sequence[np.ndarray | None],
        ended: bool = True,
    ) -> np.ndarray:
        scores = np.zeros(len(audios))
        rows = [row for row, audio in enumerate(audios) if is_judged(audio)]
        for row, heard in zip(rows, listen(self._ear, [audios[row] for row in rows]), strict=True):
            scores[row] = heard["scores"][[_english(label) for label in heard["labels"]].index(self._label)]
        return scores


def listen(ear: Any, audios: Sequence[np.ndarray] | np.ndarray) -> list[dict[str, Any]]:
    """What funasr says of each sound: `feats` (D,), the mean over time, `labels`, and `scores` that sum to one."""
    if not len(audios):
        return []
    # funasr hears one at a time, whatever the batch.
    return ear.generate(list(audios), granularity="utterance", extract_embedding=True)


def _english(label: str) -> str:
    """The English half of a label that is in two languages, as 开心/happy is."""
    return label.rpartition("/")[2]


def _load_ear(name: str, device: str) -> Any:
    import torch

    folder = find_weights(name, ["*.yaml", "*.json", "*.txt", "model.pt"])
    if not (folder / "config.yaml").is_file() or not (folder / "model.pt").is_file():
        raise LlasaError(f"{name} has no config.yaml and model.pt: pass a folder or hub id with an emotion2vec")
    printed = io.StringIO()
    try:
        # It prints notices, sets torch's threads and seeds every random generator: all that stays as it was.
        with redirect_stdout(printed), torch.random.fork_rng():
            from funasr import AutoModel

            ear = AutoModel(
                model=str(folder), device=device, ncpu=torch.get_num_threads(),
                disable_update=True, disable_pbar=True, log_level="ERROR",
            )  # fmt: skip
    except Exception as error:  # whatever a damaged file makes its libraries raise
        raise LlasaError(f"the model {name} cannot be loaded ({first_line(error)}): fetch or copy it again") from error
    if type(ear.model).__name__ != "Emotion2vec":
        raise LlasaError(f"{name} holds a model of type {type(ear.model).__name__}, where Emotion2vec is needed")
    if "miss key in ckpt: blocks." in printed.getvalue():  # which it would leave as they are, at random
        raise LlasaError(f"{name}/model.pt lacks weights of an emotion2vec: fetch or copy it again")
    return ear

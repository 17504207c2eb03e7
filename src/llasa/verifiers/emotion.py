"""Scores emotion with emotion2vec+ (arXiv 2312.15185), through funasr.

The score is either the similarity to the reference's emotion (the cosine of the embeddings), or the probability of an
emotion given by name. A model's folder has funasr's layout: `config.yaml`, `configuration.json`, `model.pt`,
`tokens.txt`.
"""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from llasa.errors import LlasaError, first_line, need_extra
from llasa.files import is_file, is_folder
from llasa.models.defaults import check_device
from llasa.verifiers.downloads import find_weights
from llasa.verifiers.likeness import Likeness, is_judged
from llasa.verifiers.protocol import Batch, Verifier

DEFAULT = "emotion2vec/emotion2vec_plus_large"
LABELS = ("angry", "disgusted", "fearful", "happy", "neutral", "other", "sad", "surprised")


def load(choice: str | None = None, device: str = "cpu") -> Verifier:
    """Loads the verifier of the reference's emotion, or of a named one.

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
        if model.isalpha() and not is_folder(model):
            raise LlasaError(f"there is no emotion called {model}: pass one of {', '.join(LABELS)}, or a model")
    classifier = _load_model(model or DEFAULT, check_device(device))
    if label:
        known = [_english(token) for token in getattr(classifier.kwargs["tokenizer"], "token_list", [])]
        if label not in known:
            raise LlasaError(f"{model or DEFAULT} has no label {label}: use an emotion2vec+ model")
        return Emotion(name, classifier, label)
    return Likeness(name, lambda audios: np.stack([result["feats"] for result in listen(classifier, audios)]))


class Emotion:
    """The probability of one of the model's emotions; 0 for silence and for sounds below half a second.

    The model takes the mean over time, so it can score a fragment, too.
    """

    process = True
    needs_text = False
    needs_reference = False

    def __init__(self, name: str, classifier: Any, label: str) -> None:
        self.name, self._classifier, self._label = name, classifier, label

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        scores = np.zeros(len(batch))
        rows = [row for row, audio in enumerate(batch.audios) if is_judged(audio)]
        for row, result in zip(rows, listen(self._classifier, [batch.audios[row] for row in rows]), strict=True):
            scores[row] = result["scores"][[_english(label) for label in result["labels"]].index(self._label)]
        return scores


def listen(classifier: Any, audios: Sequence[np.ndarray] | np.ndarray) -> list[dict[str, Any]]:
    """funasr's result for each sound: `feats` (D,), the mean over time, `labels`, and `scores` that sum to one."""
    if not len(audios):
        return []
    # funasr processes one sound at a time, whatever the batch.
    return classifier.generate(list(audios), granularity="utterance", extract_embedding=True)


def _english(label: str) -> str:
    """The English half of a label in two languages, such as 开心/happy."""
    return label.rpartition("/")[2]


def _load_model(name: str, device: str) -> Any:
    import torch

    folder = find_weights(name, ["*.yaml", "*.json", "*.txt", "model.pt"])
    if not is_file(folder / "config.yaml") or not is_file(folder / "model.pt"):
        raise LlasaError(f"{name} lacks config.yaml or model.pt: pass a folder or hub id with an emotion2vec model")
    printed = io.StringIO()
    try:
        # funasr prints notices, sets torch's threads and seeds every random generator: none of this may have effects.
        with redirect_stdout(printed), torch.random.fork_rng():
            from funasr import AutoModel

            classifier = AutoModel(
                model=str(folder), device=device, ncpu=torch.get_num_threads(),
                disable_update=True, disable_pbar=True, log_level="ERROR",
            )  # fmt: skip
    except Exception as error:  # a damaged file may make its libraries raise anything
        raise LlasaError(f"the model {name} cannot be loaded ({first_line(error)}): fetch or copy it again") from error
    if type(classifier.model).__name__ != "Emotion2vec":
        raise LlasaError(f"{name} holds a model of type {type(classifier.model).__name__}: pass an Emotion2vec")
    if "miss key in ckpt: blocks." in printed.getvalue():  # funasr would leave missing weights random
        raise LlasaError(f"{name}/model.pt lacks weights of an emotion2vec: fetch or copy it again")
    return classifier

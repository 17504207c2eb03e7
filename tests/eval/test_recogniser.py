"""The embedded recogniser on flite's speech, and folders that are none."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from llasa.codec.features import mel_features
from llasa.data.synthesis import Speaker, speak
from llasa.errors import LlasaError
from llasa.eval import metrics, recogniser
from llasa.train import semantic

SENTENCE = "She wrote a long letter to her brother in the city."


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return speak(SENTENCE, Speaker("rms", "rms"))[0]


def test_it_spells_about_what_the_teacher_says(clip: np.ndarray) -> None:
    recognise = recogniser.load_recogniser()
    errors, letters = metrics.letter_errors(SENTENCE, recognise(clip))
    assert errors < 0.4 * letters
    other, _ = metrics.letter_errors("There was nothing left in the house but a table.", recognise(clip))
    assert other > 1.5 * errors
    assert recognise(np.zeros(16000, np.float32)) == ""


def test_its_best_path_is_the_one_that_training_measures(clip: np.ndarray) -> None:
    from transformers import Wav2Vec2BertForCTC

    model = Wav2Vec2BertForCTC.from_pretrained(recogniser.EMBEDDED, dtype=torch.float32).eval()
    features, mask = mel_features(torch.from_numpy(clip))
    with torch.no_grad():
        (text,) = semantic.greedy(model(features, attention_mask=mask).logits, mask.sum(1))
    assert recogniser.load_recogniser()(clip) == " ".join(text.split())


def test_a_folder_that_is_no_recogniser_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match=r"no vocab\.json"):
        recogniser.load_recogniser(tmp_path)
    shutil.copy(recogniser.EMBEDDED / "vocab.json", tmp_path)
    with pytest.raises(LlasaError, match="weights are missing"):
        recogniser.load_recogniser(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(LlasaError, match="cannot be loaded"):
        recogniser.load_recogniser(tmp_path)

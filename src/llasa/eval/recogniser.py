"""The recipe's own recogniser as a judge: Wav2Vec2-BERT with CTC over letters, without a language model.

Knows its folder (transformers' layout with `vocab.json`) and 16 kHz waveforms. It spells what it hears, so its errors
are of sounds, where PocketSphinx may guess words from their neighbours. It is no independent judge: its first layers
are the codec's semantic encoder, and it learnt from the same teachers; so judge the voice beside the teacher.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from llasa.errors import LlasaError

EMBEDDED = Path(__file__).parents[1] / "assets" / "tiny" / "recogniser"


def load_recogniser(folder: Path = EMBEDDED) -> Callable[[np.ndarray], str]:
    """A function from a waveform (T,) at 16 kHz to the letters on its best path; an empty string for silence.

    Raises:
        LlasaError: the folder is missing, damaged, or without its letters.
    """
    import torch
    from transformers import Wav2Vec2BertForCTC, Wav2Vec2CTCTokenizer

    from llasa.codec.features import mel_features
    from llasa.loading import check_weights, first_line

    if not (folder / "vocab.json").is_file():
        raise LlasaError(f"{folder} is no recogniser: it has no vocab.json")
    check_weights(folder)
    try:
        model = Wav2Vec2BertForCTC.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
        blank = {"bos_token": "<pad>", "eos_token": "<pad>", "unk_token": "<pad>", "pad_token": "<pad>"}
        tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), **blank)
    except Exception as error:  # transformers raises what its libraries raise
        raise LlasaError(f"the recogniser in {folder} cannot be loaded: {first_line(error)}") from error

    @torch.no_grad()
    def recognise(samples: np.ndarray) -> str:
        if not samples.any():
            return ""
        features, mask = mel_features(torch.from_numpy(samples))
        best = model(features, attention_mask=mask).logits[0].argmax(-1)
        return " ".join(tokenizer.decode(best.tolist()).split())

    return recognise

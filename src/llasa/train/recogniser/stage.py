"""Defines the recogniser: a small Wav2Vec2-BERT that recognises speech and serves a codec as its semantic encoder.

The last layer has a CTC loss over letters. The codec uses a middle layer (`tap`, as X-codec2 uses layer 16 of 24). Two
linear probes decide what that layer keeps: one predicts the phone of each frame (flite prints where phones end), and
one reconstructs the mel spectrum, so that pitch and timbre are kept. The probes are dropped at the end.

A recogniser for scoring speech made from codes is trained further on such speech: the corpus then has shards of codes
besides shards of audio, and the codec decodes them.
"""

import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertForCTC

from llasa.codec import Codec
from llasa.codec.features import HOP, mel_features
from llasa.data.shards import row_audio
from llasa.errors import LlasaError
from llasa.models.defaults import half_precision
from llasa.models.folder import check_weights, hush_transformers
from llasa.text.lexicon import ARPABET, LETTERS
from llasa.train.recogniser.data import GRID
from llasa.train.recogniser.settings import RecogniserSettings

# The CTC alphabet, blank first, in the layout of transformers' Wav2Vec2CTCTokenizer: "|" is the space.
SYMBOLS = ["<pad>", "|", "'", *LETTERS]
PHONE_NAMES = [*ARPABET, "pau"]


def make_model(settings: RecogniserSettings) -> Wav2Vec2BertForCTC:
    """The recogniser to start from.

    Raises:
        LlasaError: the recogniser `start` has another alphabet.
    """
    if settings.start:
        hush_transformers()
        check_weights(Path(settings.start))
        model = Wav2Vec2BertForCTC.from_pretrained(settings.start, dtype=torch.float32, local_files_only=True)
        if model.config.vocab_size != len(SYMBOLS):
            raise LlasaError(
                f"{settings.start} recognises {model.config.vocab_size} symbols instead of {len(SYMBOLS)}: start from "
                "another recogniser"
            )
        return model
    positions: Any = settings.sizes.positions or None
    return Wav2Vec2BertForCTC(
        Wav2Vec2BertConfig(
            vocab_size=len(SYMBOLS),
            hidden_size=settings.sizes.hidden,
            num_hidden_layers=settings.sizes.layers,
            num_attention_heads=settings.sizes.heads,
            intermediate_size=settings.sizes.intermediate,
            output_hidden_size=settings.sizes.hidden,
            feature_projection_input_dim=160,
            conv_depthwise_kernel_size=settings.sizes.kernel,
            position_embeddings_type=positions,
            hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0,
            final_dropout=0.0, conformer_conv_dropout=0.0, layerdrop=0.0, apply_spec_augment=False,
            mask_time_prob=0.0, ctc_loss_reduction="mean", ctc_zero_infinity=True, pad_token_id=0,
        )
    )  # fmt: skip


def letters(text: str) -> list[int]:
    """CTC symbols of a text that was normalised when the corpus was made."""
    spoken = "".join(c if c in LETTERS + "'" else " " for c in text.lower())
    return [SYMBOLS.index("|" if c == " " else c) for c in " ".join(spoken.split())]


def frame_phones(phones: list[str], ends: list[float], frames: int) -> np.ndarray:
    """The index of the phone at each code frame, (frames,) int64; all -100 if the row has no phones."""
    if not phones:
        return np.full(frames, -100)
    index = np.searchsorted(np.array(ends), (np.arange(frames) + 0.5) * HOP / 16000)
    names = [PHONE_NAMES.index(p) if p in PHONE_NAMES else -100 for p in phones] + [PHONE_NAMES.index("pau")]
    return np.array(names)[np.minimum(index, len(names) - 1)]


def collate(rows: list[dict[str, Any]], codec: Codec | None = None) -> dict[str, torch.Tensor]:
    """Features, mask, CTC labels (padded with -100) and phones of a batch of rows, which hold audio or codes."""
    waves = [_wave(row, codec) for row in rows]
    lengths = [len(wave) for wave in waves]
    padded = torch.zeros(len(waves), math.ceil(max(lengths) / (GRID * 16000)) * GRID * 16000)
    for line, wave in zip(padded, waves, strict=True):
        line[: len(wave)] = torch.from_numpy(wave)
    features, mask = mel_features(padded, lengths)
    labels = [torch.tensor(letters(row["text"])) for row in rows]
    phones = [torch.from_numpy(frame_phones(row["phones"], row["ends"], features.shape[1])) for row in rows]
    return {
        "features": features,
        "mask": mask,
        "labels": nn.utils.rnn.pad_sequence(labels, True, -100),
        "phones": torch.stack(phones).masked_fill(~mask, -100),
    }


def _wave(row: dict[str, Any], codec: Codec | None) -> np.ndarray:
    if "audio" in row:
        return row_audio(row)
    if codec is None:
        raise LlasaError("there are shards of codes in the corpus: name the codec that decodes them, as `data.codec`")
    return codec.decode(np.array(row["codes"]))


class Probes(nn.Module):
    """Two linear probes of the tapped layer: one for phones, one for the mel spectrum."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.phone = nn.Linear(hidden, len(PHONE_NAMES))
        self.mel = nn.Linear(hidden, 160)


def losses(
    model: Wav2Vec2BertForCTC, probes: Probes, batch: dict[str, torch.Tensor], settings: RecogniserSettings
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The weighted sum of the losses of letters (CTC), phones and mel spectrum; and each loss by itself."""
    with half_precision(batch["features"].device.type):
        output = model.wav2vec2_bert(batch["features"], batch["mask"], output_hidden_states=True)
        logits = model.lm_head(output.last_hidden_state).float()
        tapped = output.hidden_states[settings.losses.tap].float()
        phone, mel = probes.phone(tapped).float(), probes.mel(tapped).float()
    log_probabilities = logits.log_softmax(-1).transpose(0, 1)
    labels, frames = batch["labels"], batch["mask"].sum(1)
    sizes = (labels >= 0).sum(1)
    kept = (sizes > 0) & (sizes <= frames)
    ctc = torch.zeros(())
    if kept.any():
        ctc = F.ctc_loss(
            log_probabilities[:, kept], labels[kept].clamp_min(0), frames[kept], sizes[kept], zero_infinity=True
        )
    named = (
        F.cross_entropy(phone.flatten(0, 1), batch["phones"].flatten(), ignore_index=-100)
        if (batch["phones"] >= 0).any()
        else torch.zeros(())
    )
    spectrum = (mel - batch["features"])[batch["mask"]].abs().mean()
    loss = ctc + settings.losses.phone_weight * named + settings.losses.mel_weight * spectrum
    return loss, {"ctc": ctc, "phone": named, "mel": spectrum}


def greedy(logits: torch.Tensor, frames: torch.Tensor) -> list[str]:
    """The texts of the best paths of CTC logits (B, T, symbols)."""
    texts = []
    for row, count in zip(logits.argmax(-1), frames.tolist(), strict=True):
        best = torch.unique_consecutive(row[:count])
        texts.append("".join(SYMBOLS[i] for i in best.tolist() if i).replace("|", " ").strip())
    return texts


@torch.no_grad()
def validate(
    model: Wav2Vec2BertForCTC, probes: Probes, rows: list[dict[str, Any]], tap: int, codec: Codec | None
) -> dict[str, float]:
    """Letter error rate of the best path, and the share of frames whose phone the tapped layer predicts correctly."""
    model.eval()
    errors = total = right = named = 0
    for start in range(0, len(rows), 16):
        batch = collate(rows[start : start + 16], codec)
        output = model.wav2vec2_bert(batch["features"], batch["mask"], output_hidden_states=True)
        guess = probes.phone(output.hidden_states[tap]).argmax(-1)
        known = batch["phones"] >= 0
        right += int((guess == batch["phones"])[known].sum())
        named += int(known.sum())
        texts = greedy(model.lm_head(output.last_hidden_state), batch["mask"].sum(1))
        for text, row in zip(texts, rows[start : start + 16], strict=True):
            wanted = "".join(SYMBOLS[i] for i in letters(row["text"])).replace("|", " ")
            errors += edit_distance(wanted, text)
            total += len(wanted)
    model.train()
    return {"letter_errors": errors / max(1, total), "phone_frames": right / max(1, named)}


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Levenshtein distance of two strings, or of two lists of words."""
    numbers = {x: i for i, x in enumerate({*a, *b})}
    along = np.array([numbers[x] for x in b], dtype=np.int64)
    columns = np.arange(len(b) + 1)
    row = columns
    for i, x in enumerate(a, 1):
        # First the cheaper of a deletion and a substitution; then insertions, each of which costs one more.
        best = np.minimum(row[1:] + 1, row[:-1] + (along != numbers[x]))
        row = np.minimum.accumulate(np.append(i, best) - columns) + columns
    return int(row[-1])


def save_recogniser(model: Wav2Vec2BertForCTC, folder: Path) -> None:
    """Writes a voice's folder `recogniser`: the weights in half precision, and the alphabet."""
    copy.deepcopy(model).cpu().half().save_pretrained(folder)
    vocabulary = {symbol: index for index, symbol in enumerate(SYMBOLS)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))

"""Trains the semantic encoder: a small Wav2Vec2-BERT that recognises speech, and that a codec can listen through.

CTC over letters on the last layer makes it a recogniser in its own right. The codec takes a middle layer (`tap`, as
X-codec2 takes layer 16 of 24), and two linear probes there decide what that layer keeps: one names the phone of each
frame (flite prints where phones end), one gives back the mel spectrum, so that pitch and timbre are not thrown away.
Probes are dropped at the end.

A recogniser that is to judge speech made of codes is trained further on what the codec makes of the corpus: shards of
codes stand in the corpus beside those of audio, and are heard through the codec.
"""

import copy
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertForCTC

from llasa.codec import Codec
from llasa.codec.features import HOP, mel_features
from llasa.data.shards import read_rows, row_audio, shard_files
from llasa.errors import LlasaError
from llasa.lexicon import ARPABET, LETTERS
from llasa.loading import check_weights, hush_transformers
from llasa.locks import claimed
from llasa.train import loop

# The CTC alphabet, blank first: the layout of transformers' Wav2Vec2CTCTokenizer, "|" for the space.
SYMBOLS = ["<pad>", "|", "'", *LETTERS]
PHONE_NAMES = [*ARPABET, "pau"]
GRID = 2  # seconds


@dataclass
class Settings:
    """`recipes/*/semantic.yaml` and `recogniser.yaml`.

    Attributes:
        start: a recogniser's folder to go on from, in whose size; a fresh one where empty.
        codec: through which shards of codes are heard; a corpus of audio needs none.
        positions: how attention tells order, a `position_embeddings_type` of transformers' Wav2Vec2BertConfig; where
            empty it does not, and the convolutions alone do.
    """

    corpus: list[str]
    validation: str
    out: str
    start: str = ""
    codec: str = ""
    hidden: int = 192
    layers: int = 6
    tap: int = 4
    heads: int = 4
    intermediate: int = 768
    kernel: int = 15
    positions: str = ""
    steps: int = 2000
    batch_seconds: float = 60.0
    longest: float = 14.0
    lr: float = 1e-3
    muon_lr: float = 0.0
    warmup: int = 100
    phone_weight: float = 1.0
    mel_weight: float = 0.5
    ema: float = 0.995
    checkpoint_minutes: float = 3.0
    seed: int = 0


def make_model(settings: Settings) -> Wav2Vec2BertForCTC:
    """The recogniser to start from.

    Raises:
        LlasaError: `start` is no recogniser of this alphabet.
    """
    if settings.start:
        hush_transformers()
        check_weights(Path(settings.start))
        model = Wav2Vec2BertForCTC.from_pretrained(settings.start, dtype=torch.float32, local_files_only=True)
        if model.config.vocab_size != len(SYMBOLS):
            raise LlasaError(f"{settings.start} recognises {model.config.vocab_size} symbols and not {len(SYMBOLS)}")
        return model
    positions: Any = settings.positions or None
    return Wav2Vec2BertForCTC(
        Wav2Vec2BertConfig(
            vocab_size=len(SYMBOLS),
            hidden_size=settings.hidden,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            intermediate_size=settings.intermediate,
            output_hidden_size=settings.hidden,
            feature_projection_input_dim=160,
            conv_depthwise_kernel_size=settings.kernel,
            position_embeddings_type=positions,
            hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0,
            final_dropout=0.0, conformer_conv_dropout=0.0, layerdrop=0.0, apply_spec_augment=False,
            mask_time_prob=0.0, ctc_loss_reduction="mean", ctc_zero_infinity=True, pad_token_id=0,
        )
    )  # fmt: skip


def letters(text: str) -> list[int]:
    """Text, normalised when the corpus was made, to CTC symbols."""
    spoken = "".join(c if c in LETTERS + "'" else " " for c in text.lower())
    return [SYMBOLS.index("|" if c == " " else c) for c in " ".join(spoken.split())]


def frame_phones(phones: list[str], ends: list[float], frames: int) -> np.ndarray:
    """The phone index sounding at each code frame; -100 throughout where the row has no alignment. (frames,) int64."""
    if not phones:
        return np.full(frames, -100)
    index = np.searchsorted(np.array(ends), (np.arange(frames) + 0.5) * HOP / 16000)
    names = [PHONE_NAMES.index(p) if p in PHONE_NAMES else -100 for p in phones] + [PHONE_NAMES.index("pau")]
    return np.array(names)[np.minimum(index, len(names) - 1)]


def batches(files: list[Path], settings: Settings, rng: random.Random) -> Iterator[list[dict[str, Any]]]:
    """Endless full batches of rows of one length, in steps of `GRID` seconds, over reshuffled shards.

    Every batch of a length has the same shape: the CPU's matrix library takes seconds to plan for each new one.
    """
    waiting: dict[int, list[dict[str, Any]]] = {}
    while True:
        rng.shuffle(files)
        for file in files:
            ready = []
            for row in read_rows(file):
                if not 0.5 <= row["seconds"] <= settings.longest:
                    continue
                size = math.ceil(row["seconds"] / GRID)
                group = waiting.setdefault(size, [])
                group.append(row)
                if len(group) == max(1, int(settings.batch_seconds / (size * GRID))):
                    ready.append(waiting.pop(size))
            rng.shuffle(ready)
            yield from ready


def collate(rows: list[dict[str, Any]], codec: Codec | None = None) -> dict[str, torch.Tensor]:
    """Features, mask, CTC labels (padded with -100) and phones of a batch of rows, of audio or of the codec's codes."""
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
        raise LlasaError(
            "there are shards of codes in the corpus: name the codec to hear them through, as codec: FOLDER"
        )
    return codec.decode(np.array(row["codes"]))


class Probes(nn.Module):
    """What the tapped layer must know, asked by two linear maps."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.phone = nn.Linear(hidden, len(PHONE_NAMES))
        self.mel = nn.Linear(hidden, 160)


def losses(
    model: Wav2Vec2BertForCTC, probes: Probes, batch: dict[str, torch.Tensor], settings: Settings
) -> tuple[torch.Tensor, dict[str, float]]:
    """CTC on letters, phone of each frame, mel of each frame; and their values for the log."""
    with torch.autocast(batch["features"].device.type, torch.bfloat16):
        output = model.wav2vec2_bert(batch["features"], batch["mask"], output_hidden_states=True)
        logits = model.lm_head(output.last_hidden_state).float()
        tapped = output.hidden_states[settings.tap].float()
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
    loss = ctc + settings.phone_weight * named + settings.mel_weight * spectrum
    values = {"ctc": ctc, "phone": named, "mel": spectrum}
    return loss, {key: float(value.detach()) for key, value in values.items()}


def greedy(logits: torch.Tensor, frames: torch.Tensor) -> list[str]:
    """Best path of CTC logits (B, T, symbols) to texts."""
    texts = []
    for row, count in zip(logits.argmax(-1), frames.tolist(), strict=True):
        best = torch.unique_consecutive(row[:count])
        texts.append("".join(SYMBOLS[i] for i in best.tolist() if i).replace("|", " ").strip())
    return texts


@torch.no_grad()
def validate(
    model: Wav2Vec2BertForCTC, probes: Probes, rows: list[dict[str, Any]], tap: int, codec: Codec | None
) -> dict[str, float]:
    """Letter error rate of the best path, and how many frames the tapped layer names rightly."""
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
        # The least of a deletion and a substitution; then insertions, each one more than what lies before it.
        best = np.minimum(row[1:] + 1, row[:-1] + (along != numbers[x]))
        row = np.minimum.accumulate(np.append(i, best) - columns) + columns
    return int(row[-1])


def save_recogniser(model: Wav2Vec2BertForCTC, folder: Path) -> None:
    """Writes the folder that a voice brings as `recogniser`: the weights in half precision, and the alphabet."""
    copy.deepcopy(model).cpu().half().save_pretrained(folder)
    vocabulary = {symbol: index for index, symbol in enumerate(SYMBOLS)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))


def train(settings: Settings) -> None:
    """Trains, or goes on training, in `settings.out`; leaves the recogniser in `out/model`.

    Raises:
        LlasaError: another run is writing into the folder, the disk is full, or a loss is no longer a number.
    """
    with claimed(Path(settings.out)):
        _train(settings)


def _train(settings: Settings) -> None:
    out = Path(settings.out)
    torch.manual_seed(settings.seed)
    model = make_model(settings).train()
    codec = Codec.load(settings.codec) if settings.codec else None
    probes = Probes(model.config.hidden_size)
    both = nn.ModuleDict({"model": model, "probes": probes})
    groups = loop.optimisers(both, settings.lr, settings.muon_lr, betas=(0.9, 0.98))
    average, step = loop.Average(both, settings.ema), 0
    if (saved := loop.load_checkpoint(out)) is not None:
        with loop.resuming(out, groups):
            both.load_state_dict(saved["model"])
            for optimiser, state in zip(groups, saved["optimisers"], strict=True):
                optimiser.load_state_dict(state)
            average.load(saved["average"], both)
        step = saved["step"]
    files = [file for folder in settings.corpus for file in shard_files(Path(folder))]
    stream = batches(files, settings, random.Random(settings.seed + step))
    held_out = [r for file in shard_files(Path(settings.validation))[:1] for r in read_rows(file)][:100]
    log, clock = loop.Log(out, "semantic", settings.steps), loop.Clock(settings.checkpoint_minutes)
    while step < settings.steps:
        rows = next(stream)
        loop.set_learning_rate(groups, step, settings.warmup, settings.steps)
        loss, values = losses(model, probes, collate(rows, codec), settings)
        loss.backward()
        values["gradient"] = loop.clip(both.parameters(), 1.0)
        for optimiser in groups:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        step += 1
        average.update(both, step)
        log.step(step, sum(row["seconds"] for row in rows), values)
        if clock.due() or step == settings.steps:
            state = {"model": both.state_dict(), "optimisers": [o.state_dict() for o in groups]}
            loop.save_checkpoint(out, state | {"average": average.weights, "step": step, "settings": asdict(settings)})
            with average.swapped(both), loop.saving(out):
                figures = validate(model, probes, held_out, settings.tap, codec)
                model.save_pretrained(out / "model")
                torch.save(probes.state_dict(), out / "probes.pt")
            log.write(step, figures)
            print("validation", "  ".join(f"{k} {v:.4f}" for k, v in figures.items()), flush=True)
        if clock.stop:
            return
